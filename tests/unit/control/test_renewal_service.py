"""The signer's second socket: who is served, how often, and what a client that hangs does to others."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from tests.gate import until
from tests.renewing import new_key, request
from tests.rootkeys import ends_before_transaction
from tests.unit.control.conftest import Gate, SetClock

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.control import renewalservice
from fleetgate.control.devices import Enrolment
from fleetgate.control.keyring import Root, RootState, encode_roots, read_roots
from fleetgate.control.localsocket import short_name
from fleetgate.control.pki import Authority
from fleetgate.control.renewalform import Answer, AskRenewal, NotRenewed, Refusal, Renewed
from fleetgate.control.renewalservice import MAX_CONNECTIONS, Limits, RenewalService
from fleetgate.control.secretfile import replace_secret


class Asker:
    """Somebody in the signer's group."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        with short_name(self.path) as name:
            client.connect(name)
        return client

    def send(self, data: bytes) -> bytes:
        """What comes back until the signer closes."""
        with self.connect() as client, client.makefile("rb") as answers:
            with suppress(BrokenPipeError):  # who finds no place is told so before it asks
                client.sendall(data)
            return answers.read()

    def ask(self, enrolled: Enrolment, csr: bytes) -> Answer:
        leaf = x509.load_pem_x509_certificate(enrolled.certificate)
        asked = AskRenewal(enrolled.tenant, enrolled.device_id, leaf.fingerprint(SHA256()).hex(), csr)
        answer: Answer = msgspec.json.decode(self.send(msgspec.json.encode(asked) + b"\n"), type=Answer)
        return answer


@pytest.fixture
def enrolled(gate: Gate, authority_files: Path) -> Enrolment:
    """By the authority that the service loads."""
    gate.authority = Authority.load(authority_files, gate.clock)
    return gate.enrol()


@pytest.fixture
def authority_files(config: Config) -> Path:
    directory = config.path(config.signer.authority)
    Authority.create(directory, "fleet.example", SystemClock())
    return directory


@pytest.fixture
def service(config: Config, gate: Gate) -> Iterator[RenewalService]:
    started = RenewalService(config, SystemClock())
    started.start()
    yield started
    started.close()


@pytest.fixture
def asker(config: Config, service: RenewalService) -> Asker:
    return Asker(config.path(config.signer.renewal_socket))


def test_a_renewal_over_the_socket(asker: Asker, enrolled: Enrolment) -> None:
    """One question, one answer; then the connection is over."""
    assert isinstance(asker.ask(enrolled, request(new_key())), Renewed)


@pytest.mark.parametrize("hangs", ["renew", "_send"], ids=["a decision", "the loop"])
def test_a_service_that_hangs_says_that_it_does_not_work(
    asker: Asker, enrolled: Enrolment, service: RenewalService, monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    """So that the signer's pings stop. What hangs stands for a disk that does: there is none to be had."""
    go_on = threading.Event()
    does = getattr(renewalservice, hangs)

    def hang(*arguments: object) -> object:
        go_on.wait(20)
        return does(*arguments)

    monkeypatch.setattr(renewalservice, hangs, hang)
    if hangs == "_send":  # which the loop does itself where there is no place
        monkeypatch.setattr(service, "_places", threading.BoundedSemaphore(1))
        service._places.acquire()
    assert service.works()
    monkeypatch.setattr(renewalservice, "HANGS_SECONDS", 2.0)  # more than a turn of the loop takes on a busy machine
    csr = request(new_key())

    def ask() -> None:
        with suppress(ConnectionError):  # who finds no place is told so before its question is read
            asker.ask(enrolled, csr)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        until(lambda: not service.works(), "the service is found to hang", 15)
    finally:
        go_on.set()
        asking.join()
    until(service.works, "it works again", 15)


def test_the_socket_is_open_to_the_group_and_nobody_else(asker: Asker) -> None:
    """The edge may be another user of it."""
    assert stat.S_IMODE(asker.path.stat().st_mode) == 0o660


@pytest.mark.parametrize("absent", ["issuing.key", "keyring.json", "control.db"])
def test_what_cannot_be_used_now_is_asked_for_again_later(
    asker: Asker, enrolled: Enrolment, config: Config, authority_files: Path, absent: str
) -> None:
    """Nothing is read at the start only: what comes back is in force with the next question."""
    path = authority_files / absent if absent.endswith(".key") else config.path(absent)
    away = path.rename(path.with_suffix(".away"))
    csr = request(new_key())
    answer = asker.ask(enrolled, csr)
    assert isinstance(answer, NotRenewed)
    assert (answer.refused, answer.retry_after_s > 0) == (Refusal.AWAY, True)
    assert str(path) not in answer.why
    away.rename(path)
    assert isinstance(asker.ask(enrolled, csr), Renewed)


def test_a_root_key_is_used_when_the_edges_have_it(
    asker: Asker, enrolled: Enrolment, config: Config, gate: Gate
) -> None:
    """A device that was renewed at once would sign with a key that no edge can verify."""
    keyring = config.path(config.edge.keyring)
    later = Root(os.urandom(32), SystemClock().now_ms() + 60_000, RootState.ACTIVE)  # however long the test takes
    replace_secret(keyring, encode_roots(read_roots(keyring) | {2: later}))
    answer = asker.ask(enrolled, request(new_key()))
    assert isinstance(answer, Renewed)
    assert answer.kid == 1


def test_a_root_key_that_ends_before_the_transaction_is_not_used(
    asker: Asker, enrolled: Enrolment, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ended it counted the credentials under it before this one was made."""
    ends_before_transaction(monkeypatch, config.path(config.edge.keyring))
    answer = asker.ask(enrolled, request(new_key()))
    assert isinstance(answer, Renewed)
    assert answer.kid == 2


HOSTILE = {
    "nothing of ours": b"GET / HTTP/1.1\n",
    "not UTF-8": b'{"tenant":"\xff\xfe"}\n',
    "deep": b"[" * 20_000 + b"\n",
    "no fingerprint": b'{"tenant":"acme","device_id":"car-tcu","fingerprint":"zz","csr":""}\n',
    "unknown field": b'{"tenant":"a","device_id":"b","fingerprint":"' + b"ab" * 32 + b'","csr":"","x":1}\n',
    "no base64": b'{"tenant":"a","device_id":"b","fingerprint":"' + b"ab" * 32 + b'","csr":"?"}\n',
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_get_a_reason_and_the_next_is_served(asker: Asker, enrolled: Enrolment, data: bytes) -> None:
    """Nothing that is sent ends the process."""
    answer: Answer = msgspec.json.decode(asker.send(data), type=Answer)
    assert isinstance(answer, NotRenewed)
    assert answer.refused is Refusal.MALFORMED
    assert isinstance(asker.ask(enrolled, request(new_key())), Renewed)


def test_an_endless_question_is_cut_off(asker: Asker) -> None:
    """Without an answer: whoever wrote it does not read one."""
    with asker.connect() as client, pytest.raises(ConnectionError):
        client.sendall(b" " * 64 * 1024**2)


def test_clients_that_hang_hold_nobody_up(asker: Asker, enrolled: Enrolment, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have places of their own; one too many is told so at once."""
    monkeypatch.setattr(renewalservice, "ASK_SECONDS", 60.0)  # or those places are free again on a slow machine
    hanging = [asker.connect() for _ in range(MAX_CONNECTIONS - 1)]
    try:
        assert isinstance(asker.ask(enrolled, request(new_key())), Renewed)
        hanging.append(asker.connect())
        answer: Answer = msgspec.json.decode(asker.send(b""), type=Answer)
        assert isinstance(answer, NotRenewed)
        assert answer.refused is Refusal.BUSY
    finally:
        for client in hanging:
            client.close()


def test_a_client_that_says_nothing_is_let_go(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its deadline."""
    monkeypatch.setattr(renewalservice, "ASK_SECONDS", 0.2)
    with asker.connect() as client:
        client.sendall(b'{"tenant"')
        assert client.recv(100) == b""


def test_two_at_once_from_one_parent(asker: Asker, enrolled: Enrolment) -> None:
    """One renewal at a time: the other one is a clone sign, whichever comes first."""
    answers: list[Answer] = []
    both = threading.Barrier(2)

    def renew() -> None:
        csr = request(new_key())
        both.wait()
        answers.append(asker.ask(enrolled, csr))

    threads = [threading.Thread(target=renew) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(answer).__name__ for answer in answers) == ["NotRenewed", "Renewed"]


def limited(**settings: int) -> tuple[Limits, SetClock]:
    clock = SetClock()
    signer = msgspec.structs.replace(Config().signer, **settings)
    return Limits(msgspec.structs.replace(Config(), signer=signer), clock), clock


def asked(tenant: str, device_id: str, certificate: int = 0) -> AskRenewal:
    return AskRenewal(tenant, device_id, f"{certificate:064x}", b"")


def test_one_certificate_may_not_ask_without_end() -> None:
    """Its own excess slows down nobody else, and ends with time."""
    limits, clock = limited(device_renewals_per_day=3)
    assert [limits.check(asked("acme", "a")) for _ in range(3)] == [None] * 3
    refused = limits.check(asked("acme", "a"))
    assert refused is not None
    assert (refused.refused, refused.retry_after_s) == (
        Refusal.TOO_OFTEN,
        28_801,
    )  # eight hours, and a millisecond rounded up
    assert limits.check(asked("rival", "a")) is None, "of another tenant it is another device"
    clock.ms += 28_800_000
    assert limits.check(asked("acme", "a")) is None


def test_a_thief_with_the_former_key_does_not_lock_the_device_out_of_renewal() -> None:
    """What he asks with it, rubbish or not, the device's own certificate does not pay for."""
    limits, _ = limited(device_renewals_per_day=3)
    former, own = asked("acme", "a", 1), asked("acme", "a", 2)
    assert [limits.check(former) for _ in range(3)] == [None] * 3
    assert limits.check(former) is not None
    assert limits.check(own) is None


def test_renewing_what_was_renewed_ends_too(asker: Asker, enrolled: Enrolment) -> None:
    """A new certificate begins with what the one before had left."""
    for _ in range(Config().signer.device_renewals_per_day):
        answer = asker.ask(enrolled, request(new_key()))
        assert isinstance(answer, Renewed)
        enrolled = msgspec.structs.replace(enrolled, certificate=answer.certificate.encode())
    refused = asker.ask(enrolled, request(new_key()))
    assert isinstance(refused, NotRenewed)
    assert refused.refused is Refusal.TOO_OFTEN


def test_all_devices_together_may_not_ask_without_end() -> None:
    """Whoever has taken over an edge gets no more than this, whatever names it takes."""
    limits, clock = limited(renewals_per_minute=5)
    assert [limits.check(asked("acme", f"d-{number}")) for number in range(5)] == [None] * 5
    for number in range(100):
        refused = limits.check(asked("acme", f"e-{number}"))
        assert refused is not None
        assert refused.refused is Refusal.BUSY
    clock.ms += 12_000
    assert limits.check(asked("acme", "f")) is None


def test_buckets_that_are_full_again_are_forgotten() -> None:
    """So that memory is bounded by the limits themselves."""
    limits, clock = limited(device_renewals_per_day=24, renewals_per_minute=1000)
    for number in range(500):
        limits.check(asked("acme", f"d-{number}"))
    clock.ms += 3_700_000
    limits.check(asked("acme", "d-0"))
    assert len(limits._of_certificate) == 1
