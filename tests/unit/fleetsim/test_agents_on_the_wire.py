"""The two agents against a gate that answers as told, over real TLS: what is read from the wire, and what follows."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.fleetsim.gate_double import GateDouble, Http, Puback, make_pki, serving

from fleetsim import encode
from fleetsim.agent import Agent
from fleetsim.bundle import read_bundle
from fleetsim.clock import Clock
from fleetsim.encode import Event, Form
from fleetsim.fleet import Devices, committing
from fleetsim.gate import Gate
from fleetsim.ledger import Ledger
from fleetsim.outbox import Draft
from fleetsim.pace import STOP_MS

DEADLINE_S = 10.0
ACCEPTED = {"epoch": 1, "seq": 0, "status": "accepted", "reason": None}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One CA for the module."""
    directory = tmp_path_factory.mktemp("pki")
    make_pki(directory)
    return directory


class Run:
    """What a test sees after an agent has run."""

    def __init__(self, agent: Agent, double: GateDouble) -> None:
        self.agent, self.double = agent, double

    @property
    def stopped(self) -> bool:
        """True while the device stays away for the long time."""
        return self.agent.core.pace.away_until_ms - self.agent.clock.now_ms() > STOP_MS / 2

    def keys(self) -> list[tuple[int, int]]:
        """(epoch, seq) of every message that reached the gate over MQTT, in order."""
        envelopes = [encode.decode_envelope(raw) for raw in self.double.received]
        return [(envelope.epoch, envelope.seq) for envelope in envelopes]


def play(
    double: GateDouble,
    pki: Path,
    tmp_path: Path,
    until: Callable[[Run], bool],
    *,
    messages: int = 1,
    form: Form | None = None,
    server_name: str = "localhost",
) -> Run:
    """Let a device (over HTTPS if `form` is given) send messages until a condition holds."""

    async def main() -> Run:
        clock = Clock()
        ledger = Ledger(tmp_path / "ledger.db", clock)
        async with serving(double, pki) as (mqtt, https):
            devices = Devices(Gate(mqtt, https, server_name), tmp_path / "state", ledger, clock, seed=1)
            bundle = read_bundle(shutil.copytree(pki / "device", tmp_path / "device", dirs_exist_ok=True))
            agent: Agent = devices.https(bundle, form, linger_s=0.0) if form else devices.mqtt(bundle)
            run = Run(agent, double)
            for i in range(messages):
                agent.offer(_draft(clock, i))
            async with committing(devices) as group:
                task = group.create_task(agent.run())
                async with asyncio.timeout(DEADLINE_S):
                    while not until(run):  # noqa: ASYNC110 - the condition is the test's, nobody could set an event
                        await asyncio.sleep(0.005)
                agent.finish()
                if not agent.done:
                    task.cancel()
            await asyncio.sleep(0.05)  # the listener's side of the closed connections
        ledger.close()
        return run

    return asyncio.run(main())


def _draft(clock: Clock, value: int) -> Draft:
    event = Event(int(clock.now_ms()) - 100, "sample", {1: float(value)}, {})
    return Draft("2026.44.1", "cfg-7f3a", 1, (event,))


def _settled(run: Run) -> bool:
    return bool(run.double.received or run.double.requests) and run.agent.open_messages == 0


def test_an_accepted_message_is_forgotten(pki: Path, tmp_path: Path) -> None:
    """The epoch is one above what CONNACK says, and a PUBACK of success ends the matter."""
    run = play(GateDouble(epoch=6), pki, tmp_path, _settled)
    assert run.keys() == [(7, 0)]


@pytest.mark.parametrize("reason", ["malformed_envelope", "unsupported_version", "malformed_body", "oversized"])
def test_a_malformed_message_is_dropped(pki: Path, tmp_path: Path, reason: str) -> None:
    """0x99: dropped, and the device goes on."""
    double = GateDouble(puback=lambda n: Puback(0x99, reason) if n == 0 else Puback())
    run = play(double, pki, tmp_path, _settled, messages=2)
    assert (sorted(run.keys()), run.stopped) == ([(1, 0), (1, 1)], False)


@pytest.mark.parametrize("reason", ["bad_mac", "identity_mismatch", "unknown_key", "equivocation", "revoked"])
def test_a_refused_identity_stops_the_device(pki: Path, tmp_path: Path, reason: str) -> None:
    """0x87: the device leaves and stays away."""
    run = play(GateDouble(puback=lambda _: Puback(0x87, reason)), pki, tmp_path, lambda run: run.stopped)
    assert (run.keys(), run.double.connects) == ([(1, 0)], 1)


def test_a_key_that_the_gate_does_not_know_is_renewed_while_the_device_stays_away(pki: Path, tmp_path: Path) -> None:
    """The table's "renew, then stop": one question for another credential, over HTTPS."""
    double = GateDouble(puback=lambda _: Puback(0x87, "unknown_key"))
    run = play(double, pki, tmp_path, lambda run: bool(run.double.renewals))
    assert (run.stopped, len(double.renewals), double.renewals[0][:10]) == (True, 1, b"-----BEGIN")


def test_clock_ahead_reconnects_for_the_time(pki: Path, tmp_path: Path) -> None:
    """0x83 clock_ahead: a new connection tells the time, and the events go out under a new number by it."""
    double = GateDouble(
        puback=lambda n: Puback(0x83, "clock_ahead") if n == 0 else Puback(),
        ahead_ms=lambda n: 3_600_000 if n == 0 else 0,
    )
    run = play(double, pki, tmp_path, _settled)
    sent_at = [encode.decode_envelope(raw).sent_at for raw in double.received]
    assert (run.keys(), double.connects, 3_590_000 < sent_at[0] - sent_at[1] < 3_610_000) == ([(1, 0), (1, 1)], 2, True)


def test_stale_epoch_goes_above_the_named_one(pki: Path, tmp_path: Path) -> None:
    """0x83 stale_epoch: the user property `current_epoch` is read."""
    double = GateDouble(puback=lambda n: Puback(0x83, "stale_epoch", 30) if n == 0 else Puback())
    assert play(double, pki, tmp_path, _settled).keys() == [(1, 0), (31, 0)]


@pytest.mark.parametrize("reason", ["too_old", "behind_window"])
def test_refused_for_its_number_is_numbered_again(pki: Path, tmp_path: Path, reason: str) -> None:
    """0x83: the events again under a new number, on the same connection."""
    double = GateDouble(puback=lambda n: Puback(0x83, reason) if n == 0 else Puback())
    run = play(double, pki, tmp_path, _settled)
    assert (run.keys(), double.connects) == ([(1, 0), (1, 1)], 1)


def test_rate_limited_repeats_the_same_bytes(pki: Path, tmp_path: Path) -> None:
    """0x97: the same bytes, later, on the same connection."""
    double = GateDouble(puback=lambda n: Puback(0x97, "rate_limited") if n == 0 else Puback())
    play(double, pki, tmp_path, _settled)
    assert (len(double.received), len(set(double.received)), double.connects) == (2, 1, 1)


def test_a_lost_connection_repeats_the_same_bytes(pki: Path, tmp_path: Path) -> None:
    """No PUBACK: the device comes back and sends the same bytes."""
    double = GateDouble(puback=lambda n: None if n == 0 else Puback())
    play(double, pki, tmp_path, _settled)
    assert (len(double.received), len(set(double.received)), double.connects) == (2, 1, 2)


def test_doubtful_and_too_old_is_given_up(pki: Path, tmp_path: Path) -> None:
    """If the first send stayed unanswered, `too_old` ends the matter: the gate may have the events."""
    double = GateDouble(puback=lambda n: None if n == 0 else Puback(0x83, "too_old"))
    assert play(double, pki, tmp_path, _settled).keys() == [(1, 0), (1, 0)]


@pytest.mark.parametrize("code", [0x87, 0x8A])
def test_a_refused_connect_stops_the_device(pki: Path, tmp_path: Path, code: int) -> None:
    """CONNACK not authorized or banned: nothing is sent, and the device stays away."""
    run = play(GateDouble(connack=lambda _: code), pki, tmp_path, lambda run: run.stopped)
    assert (run.double.received, run.double.connects) == ([], 1)


def test_an_unavailable_gate_is_tried_again(pki: Path, tmp_path: Path) -> None:
    """CONNACK 0x88: the device comes back soon."""
    double = GateDouble(connack=lambda n: 0x88 if n == 0 else 0)
    assert play(double, pki, tmp_path, _settled).keys() == [(1, 0)]


def test_a_disconnect_that_forbids_stops_the_device(pki: Path, tmp_path: Path) -> None:
    """DISCONNECT 0x87 on a live session: the device stays away."""
    run = play(GateDouble(goodbye=0x87), pki, tmp_path, lambda run: run.stopped)
    assert run.double.connects == 1


# paho leaves the socket of a failed handshake to the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_gate_with_another_name_hears_nothing(pki: Path, tmp_path: Path) -> None:
    """The server's certificate must have the name that the device was told."""
    run = play(
        GateDouble(), pki, tmp_path, lambda run: run.agent.core.pace.away_until_ms > 0, server_name="gate.example"
    )
    gc.collect()
    assert run.double.connects == 0


@pytest.mark.parametrize("form", ["msgpack", "json"])
def test_https_posts_and_reads_results(pki: Path, tmp_path: Path, form: Form) -> None:
    """A batch goes out in the device's form, and each item's result is read in the same."""
    codec = msgspec.json.encode if form == "json" else msgspec.msgpack.encode
    double = GateDouble(http=lambda n, _: Http(202, codec([ACCEPTED, ACCEPTED])))
    play(double, pki, tmp_path, _settled, messages=2, form=form)
    assert [body[:1] for body in double.requests] == [b"[" if form == "json" else b"\x92"]


def test_https_items_are_apart(pki: Path, tmp_path: Path) -> None:
    """One bad item is dropped, one is numbered again, and the third is done."""
    rejected = [
        {**ACCEPTED, "status": "rejected", "reason": "malformed_body"},
        {**ACCEPTED, "status": "rejected", "reason": "too_old"},
        ACCEPTED,
    ]
    double = GateDouble(http=lambda n, _: Http(202, msgspec.msgpack.encode(rejected if n == 0 else [ACCEPTED])))
    play(double, pki, tmp_path, _settled, messages=3, form="msgpack")
    assert encode.decode_envelope(double.requests[1]).seq == 3


@pytest.mark.parametrize("status", [429, 503])
def test_https_later_repeats_the_same_bytes(pki: Path, tmp_path: Path, status: int) -> None:
    """429 and 503 with Retry-After: the same request after that."""
    done = Http(202, msgspec.msgpack.encode([ACCEPTED]))
    double = GateDouble(http=lambda n, _: Http(status, headers=("Retry-After: 1",)) if n == 0 else done)
    play(double, pki, tmp_path, _settled, form="msgpack")
    assert (len(double.requests), len(set(double.requests))) == (2, 1)


def test_https_413_splits_the_batch(pki: Path, tmp_path: Path) -> None:
    """A batch that is too large goes out in halves."""

    def answer(n: int, body: bytes) -> Http:
        if n == 0:
            return Http(413)
        return Http(202, msgspec.msgpack.encode([ACCEPTED, ACCEPTED]))

    double = GateDouble(http=answer)
    play(double, pki, tmp_path, _settled, messages=4, form="msgpack")
    assert [len(msgspec.msgpack.decode(body)) for body in double.requests] == [4, 2, 2]


@pytest.mark.parametrize("broken", [None, Http(500), Http(202, b"\xc1"), Http(202, msgspec.msgpack.encode([]))])
def test_https_without_a_clear_answer_repeats_the_same_bytes(pki: Path, tmp_path: Path, broken: Http | None) -> None:
    """A connection that ends, a 500, garbage or too few results leave everything open."""
    done = Http(202, msgspec.msgpack.encode([ACCEPTED]))
    double = GateDouble(http=lambda n, _: broken if n == 0 else done)
    play(double, pki, tmp_path, _settled, form="msgpack")
    assert (len(double.requests), len(set(double.requests))) == (2, 1)


def test_https_revoked_stops_the_device(pki: Path, tmp_path: Path) -> None:
    """202 with every item rejected as revoked: the device stays away."""
    item = {**ACCEPTED, "status": "rejected", "reason": "revoked"}
    double = GateDouble(http=lambda n, _: Http(202, msgspec.msgpack.encode([item])))
    run = play(double, pki, tmp_path, lambda run: run.stopped, form="msgpack")
    assert len(run.double.requests) == 1
