"""The signer: what it signs, what it refuses, what it remembers, and who may ask."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.control.desk import Desk, Running

from fleetgate.clock import SystemClock
from fleetgate.control import signer as signer_module
from fleetgate.control.auditkey import make_audit_key, read_audit_key
from fleetgate.control.heads import NO_LINK, Head, SignedHead, check_signature, links, read_public_key
from fleetgate.control.localsocket import short_name
from fleetgate.control.signer import Refused, Service
from fleetgate.control.signing import Answer, AskNewest, AskSign, SignerAway, SignerClient, SignerRefused
from fleetgate.control.signlog import EMPTY, SignLog, count_of, read_log
from fleetgate.errors import CheckFailed, ConfigError, Conflict

SPOOL = "ab" * 16


def digests(first: int, last: int, salt: str = "") -> list[str]:
    """Stand for rows of a chain at these places."""
    return [sha256(f"{salt}{place}".encode()).hexdigest() for place in range(first, last + 1)]


def head(place: int, salt: str = "", spool: str = SPOOL) -> Head:
    """The end of a chain of that many rows."""
    link = links(NO_LINK, map(bytes.fromhex, digests(1, place, salt)))
    return Head(spool, place, "cd" * 32, place, link)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path)
    yield found
    found.signlog.close()


def test_a_signed_head_is_verified_with_the_public_key_alone(desk: Desk) -> None:
    """And any other head, time or key is not."""
    signed = desk.sign(head(3), digests(1, 3))
    key = read_public_key(desk.public)
    check_signature(signed, key)
    for other in (
        msgspec.structs.replace(signed, head=head(4)),
        msgspec.structs.replace(signed, signed_at=signed.signed_at + 1),
    ):
        with pytest.raises(CheckFailed, match="signature is wrong"):
            check_signature(other, key)
    with pytest.raises(CheckFailed, match="another key"):
        check_signature(signed, Ed25519PrivateKey.generate().public_key())


def test_a_chain_goes_on_from_what_was_signed(desk: Desk) -> None:
    """The rows between two heads have to lead from one to the other."""
    desk.sign(head(3), digests(1, 3))
    assert desk.sign(head(5), digests(4, 5)).head == head(5)


def test_the_same_head_again_has_its_signature_from_before(desk: Desk) -> None:
    """An answer that got lost is asked for again; nothing is written twice."""
    first = desk.sign(head(3), digests(1, 3))
    desk.clock.ms += 60_000
    assert desk.sign(head(3), []) == first
    assert len(list(read_log(desk.log))) == 1


@pytest.mark.parametrize(
    ("what", "steps", "reason"),
    [
        pytest.param(head(2), digests(1, 2), "rollback", id="behind"),
        pytest.param(head(3, "x"), [], "fork", id="beside"),
        pytest.param(head(5, "x"), digests(4, 5, "x"), "fork", id="of-another-chain"),
        pytest.param(head(5), digests(4, 5, "x"), "fork", id="with-other-rows"),
        pytest.param(head(5), digests(5, 5), "malformed", id="with-a-row-too-few"),
        pytest.param(head(5), [], "malformed", id="without-rows"),
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
def test_a_head_behind_or_beside_a_signed_one_is_refused(
    desk: Desk, what: Head, steps: list[str], reason: str, restarted: bool
) -> None:
    """Whoever rolls the chain back or forks it gets no signature, from a new process neither."""
    desk.sign(head(3), digests(1, 3))
    if restarted:
        desk.again()
    with pytest.raises(Refused) as refused:
        desk.sign(what, steps)
    assert refused.value.reason == reason


def test_spools_have_chains_of_their_own(desk: Desk) -> None:
    """What was signed of one says nothing about another."""
    desk.sign(head(3), digests(1, 3))
    assert desk.sign(head(1, spool="cd" * 16), digests(1, 1)).head.place == 1
    assert desk.signer.answer(AskNewest("ef" * 16)) == Answer(None)


def test_a_line_that_a_crash_cut_off_is_forgotten(desk: Desk) -> None:
    """It was never answered, so its head may be signed again."""
    desk.sign(head(3), digests(1, 3))
    whole, count = desk.log.read_bytes(), desk.count.read_bytes()
    desk.sign(head(4), digests(4, 4))
    desk.log.write_bytes(desk.log.read_bytes()[:-5])
    desk.count.write_bytes(count)  # it comes behind the line
    desk.again()
    assert desk.log.read_bytes() == whole
    assert desk.sign(head(4), digests(4, 4)).head.place == 4


@pytest.mark.parametrize("counted", [False, True])
def test_a_whole_line_without_its_end_is_kept(desk: Desk, counted: bool) -> None:
    """It may have been answered: forgotten, another head could be signed for its place."""
    count = desk.count.read_bytes()
    desk.sign(head(1), digests(1, 1))
    whole = desk.log.read_bytes()
    desk.log.write_bytes(whole[:-1])
    if not counted:
        desk.count.write_bytes(count)
    desk.again()
    assert desk.log.read_bytes() == whole
    desk.sign(head(2), digests(2, 2))
    desk.again()
    with pytest.raises(Refused, match="is signed with another head"):
        desk.sign(head(2, "other"), digests(2, 2, "other"))


def _emptied(desk: Desk) -> None:
    desk.log.write_bytes(b"")


def _shortened(desk: Desk) -> None:
    desk.log.write_bytes(b"".join(desk.log.read_bytes().splitlines(keepends=True)[:1]))


def _torn(desk: Desk) -> None:
    desk.log.write_bytes(desk.log.read_bytes()[:-2])


def _uncounted(desk: Desk) -> None:
    desk.count.unlink()


def _miscounted(desk: Desk) -> None:
    desk.count.write_bytes(b"{}")


@pytest.mark.parametrize("loss", [_emptied, _shortened, _torn, _uncounted, _miscounted])
def test_a_log_that_lost_what_was_signed_stops_the_signer(desk: Desk, loss: Callable[[Desk], None]) -> None:
    """Beside the key stands how many heads were signed: a shorter log, or no such count, is no log to go on with."""
    for place in (1, 2):
        desk.sign(head(place), digests(place, place))
    kept = desk.log.read_bytes(), desk.count.read_bytes()
    loss(desk)
    with pytest.raises(ConfigError, match=r"restore.*begin anew"):
        desk.again()
    desk.log.write_bytes(kept[0])
    desk.count.write_bytes(kept[1])
    desk.signlog = SignLog(desk.log, desk.count)


@pytest.mark.parametrize("damage", ["line out", "line changed", "no json"])
def test_a_log_that_is_not_as_it_was_written_stops_the_signer(desk: Desk, damage: str) -> None:
    """A signer that has forgotten what it signed could be led back."""
    for place in (1, 2, 3):
        desk.sign(head(place), digests(place, place))
    lines = desk.log.read_bytes().splitlines(keepends=True)
    match damage:
        case "line out":
            del lines[1]
        case "line changed":
            lines[1] = lines[1].replace(b'"segment":2', b'"segment":9')
        case _:
            lines[1] = b"{}\n"
    desk.log.write_bytes(b"".join(lines))
    with pytest.raises(ConfigError, match="restore the log"):
        desk.again()
    desk.log.write_bytes(b"")  # for the fixture's end
    desk.count.write_bytes(EMPTY)
    desk.signlog = SignLog(desk.log, desk.count)


def test_a_lost_log_or_key_is_not_made_anew(desk: Desk) -> None:
    """Only a first start makes them: later their absence means that something was taken away."""
    desk.sign(head(1), digests(1, 1))
    desk.key.rename(desk.key.with_suffix(".away"))
    with pytest.raises(ConfigError, match=r"has signed.*begin anew"):
        make_audit_key(desk.key, desk.public, desk.log)
    desk.key.with_suffix(".away").rename(desk.key)
    desk.log.rename(desk.log.with_suffix(".away"))
    make_audit_key(desk.key, desk.public, desk.log)
    with pytest.raises(ConfigError, match=r"must not forget.*begin anew: keep .*signer.log and .*audit\.\*"):
        SignLog(desk.log, desk.count)


def test_a_lost_key_is_not_made_anew_where_the_count_says_it_signed(desk: Desk) -> None:
    """With an empty log too, and with a count that nobody can read."""
    desk.sign(head(1), digests(1, 1))
    desk.key.unlink()
    public, counted = desk.public.read_bytes(), desk.count.read_bytes()
    for log in (b"", None):
        desk.log.write_bytes(b"") if log is not None else desk.log.unlink()
        for count in (counted, counted[:-5], b"\xff"):
            desk.count.write_bytes(count)
            with pytest.raises(ConfigError, match="has signed"):
                make_audit_key(desk.key, desk.public, desk.log)
    assert desk.public.read_bytes() == public


def test_a_first_start_that_was_cut_off_begins_again(tmp_path: Path) -> None:
    """Of the count a crash may have left a part."""
    key, public, log = (tmp_path / name for name in ("audit.key", "audit.pem", "signer.log"))
    for left in (b"", EMPTY[:10], EMPTY):
        log.write_bytes(b"")
        count_of(key).write_bytes(left)
        make_audit_key(key, public, log)
        read_audit_key(key, public)
        key.unlink()


def test_files_of_the_signer_are_its_users_alone(desk: Desk) -> None:
    """Key and log have mode 0600; the public key is for everybody."""
    modes = [path.stat().st_mode & 0o777 for path in (desk.key, desk.log, desk.count, desk.public)]
    assert modes == [0o600, 0o600, 0o600, 0o644]


def test_a_second_signer_is_kept_off(desk: Desk) -> None:
    """Two could sign two heads for one place."""
    with pytest.raises(Conflict, match="only one"):
        SignLog(desk.log, desk.count)


@pytest.fixture
def running(desk: Desk, tmp_path: Path) -> Iterator[Running]:
    directory = tmp_path / ("long" * 30)  # longer than a socket's address may be
    directory.mkdir()
    found = Running(desk, directory)
    yield found
    found.stop()


def test_a_client_is_answered(running: Running, desk: Desk) -> None:
    """The socket is the user's alone."""
    client = running.client
    assert client.newest(SPOOL) is None
    signed = client.sign(head(2), digests(1, 2))
    assert client.newest(SPOOL) == signed
    check_signature(signed, read_public_key(desk.public))
    assert running.path.stat().st_mode & 0o777 == 0o600


def test_a_refusal_reaches_the_client_with_its_reason(running: Running) -> None:
    """So that load can say it."""
    with pytest.raises(SignerRefused, match="lead to this head") as refused:
        running.client.sign(head(2, "x"), digests(1, 2))
    assert refused.value.reason == "fork"


HOSTILE = {
    "nothing of ours": b"GET / HTTP/1.1\n",
    "not UTF-8": b'{"ask":"\xff\xfe"}\n',
    "deep": b"[" * 20_000 + b"\n",
    "unknown field": b'{"ask":"newest","spool":"' + b"ab" * 16 + b'","x":1}\n',
    "not hex": b'{"ask":"newest","spool":"' + b"zz" * 16 + b'"}\n',
    "negative place": b'{"ask":"sign","head":{"spool":"' + b"ab" * 16 + b'","segment":1,"sha256":"' + b"ab" * 32
    + b'","place":-1,"link":"' + b"ab" * 32 + b'"},"steps":[]}\n',
    "too many steps": msgspec.json.encode(AskSign(head(1), ["ab" * 32] * 501)) + b"\n",
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_get_a_reason_and_the_next_is_served(running: Running, data: bytes) -> None:
    """Nothing that is sent ends the process."""
    answer = msgspec.json.decode(running.send(data), type=Answer)
    assert answer.refused == "malformed"
    assert running.client.newest(SPOOL) is None


def test_an_endless_request_is_cut_off(running: Running) -> None:
    """At its bound, whether there is a line's end in it or not."""
    answer = msgspec.json.decode(running.send(b" " * 70_000), type=Answer)
    assert answer.refused == "too_long"


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOSPC])
def test_a_log_that_cannot_be_written_ends_the_service(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whatever the disk calls it, a network's disk too: recovery decides what was signed."""

    def fails(_: SignedHead) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(desk.signlog, "append", fails)
    service = Service(tmp_path / "signer.sock", desk.signer, SystemClock())
    with socket.socket(socket.AF_UNIX) as client:
        with short_name(tmp_path / "signer.sock") as name:
            client.connect(name)
        client.sendall(msgspec.json.encode(AskSign(head(1), digests(1, 1))) + b"\n")
        client.shutdown(socket.SHUT_WR)
        ending = threading.Timer(5, service.stop)  # of one that goes on
        ending.start()
        try:
            with pytest.raises(OSError) as raised:
                service.run(lambda: True)
        finally:
            ending.cancel()
            service.close()
    assert raised.value.errno == number


def test_a_peer_that_breaks_off_ends_nothing(running: Running) -> None:
    """It goes with bytes unread, which resets the connection."""
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as client:
            with short_name(running.path) as name:
                client.connect(name)
            client.sendall(msgspec.json.encode(AskNewest(SPOOL)) + b'\n{"ask"')
    assert running.client.newest(SPOOL) is None


def test_a_request_that_does_not_come_is_given_up(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is silent keeps others waiting for the length of a deadline, no longer."""
    monkeypatch.setattr(signer_module, "REQUEST_SECONDS", 0.2)
    answer = msgspec.json.decode(running.send(b'{"ask"'), type=Answer)
    assert answer.refused == "too_slow"


def test_who_only_holds_the_socket_is_no_signer(desk: Desk, running: Running, tmp_path: Path) -> None:
    """What another key signed, or what cannot be verified, is no answer: neither a signature nor a newest head."""
    others = tmp_path / "others"
    others.mkdir()
    impostor = Desk(others)
    running.client.sign(head(2), digests(1, 2))
    for public in (impostor.public, tmp_path / "absent.pem"):
        client = SignerClient(running.path, public)
        with pytest.raises(SignerAway, match="not proven to be the signer"):
            client.newest(SPOOL)
        with pytest.raises(SignerAway, match="not proven to be the signer"):
            client.sign(head(2), [])
    impostor.signlog.close()


def test_a_connection_is_over_after_its_answer(running: Running) -> None:
    """Who would ask on and on over one kept everybody else out."""
    ask = msgspec.json.encode(AskNewest(SPOOL)) + b"\n"
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as answers:
        client.settimeout(10)
        with short_name(running.path) as name:
            client.connect(name)
        client.sendall(ask + ask)
        assert len(answers.read().splitlines()) == 1


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Hears of the process, which is to ping it every 10 ms."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "30000")
        yield listener


def test_the_watchdog_hears_of_a_signer_that_is_asked_on_and_on(manager: socket.socket, running: Running) -> None:
    """It works, and is not to be ended for it."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            running.send(b"\n")

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        heard = [manager.recv(100) for _ in range(10)]
    finally:
        stop.set()
        asking.join()
    assert heard.count(b"WATCHDOG=1") == 9  # beside READY=1


def test_the_watchdog_hears_nothing_while_the_renewals_hang(manager: socket.socket, running: Running) -> None:
    """Heads are signed on; but the process is no longer what it was started for."""
    assert manager.recv(100)
    running.others_work = False
    running.client.newest(SPOOL)  # behind this answer the loop has asked whether they work
    running.client.newest(SPOOL)
    manager.setblocking(False)
    with suppress(BlockingIOError):
        while manager.recv(100):
            pass
    time.sleep(0.3)  # a turn of the loop, and many times its pings
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_too_many_requests_are_refused(running: Running) -> None:
    """Each signature is an fsync: the rate is bounded."""

    def ask_for_ever() -> None:
        while True:
            running.client.newest(SPOOL)

    with pytest.raises(SignerRefused, match="too_often"):
        ask_for_ever()


def test_another_user_is_refused(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one who could open the socket."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    answer = msgspec.json.decode(running.send(b"\n"), type=Answer)
    assert answer.refused == "other_user"


def test_without_a_signer_the_client_says_so(tmp_path: Path) -> None:
    """No socket, or one that nobody listens at."""
    client = SignerClient(tmp_path / "signer.sock", tmp_path / "audit.pem")
    with pytest.raises(SignerAway, match="does not answer"):
        client.newest(SPOOL)
    with socket.socket(socket.AF_UNIX) as listener:
        with short_name(tmp_path / "signer.sock") as name:
            listener.bind(name)
        listener.close()
        with pytest.raises(SignerAway, match="does not answer"):
            client.newest(SPOOL)


def test_the_socket_of_a_killed_signer_is_taken_over(desk: Desk, tmp_path: Path) -> None:
    """Crash-only: a start after a kill is the normal start. A file that is no socket is left alone."""
    path = tmp_path / "signer.sock"
    with socket.socket(socket.AF_UNIX) as left, short_name(path) as name:
        left.bind(name)
    Service(path, desk.signer, SystemClock()).close()
    path.unlink()
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is no socket"):
        Service(path, desk.signer, SystemClock())
