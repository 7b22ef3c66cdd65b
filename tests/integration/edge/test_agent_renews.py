"""The reference agent renews itself against a real edge and a real signer, on both transports; no message is lost.

Its device was enrolled 300 days ago: two thirds of the certificate's lifetime are over, and it is valid still.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.faults.processes import Process
from tests.gate import Car, Gate, Installation, now_ms, running
from tests.renewal_peer import post, signing

from fleetgate.clock import ScaledClock
from fleetgate.control.records import DeviceRecord, DeviceState
from fleetgate.judge import Flag
from fleetsim import gate as simulated
from fleetsim.agent import Agent
from fleetsim.bundle import read_bundle
from fleetsim.clock import Clock
from fleetsim.encode import Event
from fleetsim.fleet import Devices, committing
from fleetsim.ledger import Ledger
from fleetsim.outbox import Draft
from fleetsim.renewal import Renewal

DAY_MS = 24 * 3600 * 1000
DEADLINE_S = 20.0
TRANSPORTS = ("mqtt", "https")


@pytest.fixture(scope="module")
def gate(authority: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with running(authority, tmp_path_factory.mktemp("agents")) as started:
        yield started


@pytest.fixture
def signer(gate: Gate) -> Iterator[Process]:
    with signing(gate.home) as started:
        yield started


def enrolled_long_ago(gate: Gate, private: Ed25519PrivateKey | None = None) -> Car:
    clock = ScaledClock(now_ms() - 300 * DAY_MS, 1)
    return gate.home.enrol(f"car-{len(gate.home.cars)}", clock=clock, private=private)


class Drive:
    """A device that sends a message now and then until `until` says that it is enough; then it is finished."""

    def __init__(self, gate: Gate, car: Car, transport: str, state: Path) -> None:
        self.gate, self.car, self.state = gate, car, state
        self.transport = transport
        self.sent = 0

    def run(self, until: Callable[[Agent], bool]) -> Agent:
        return asyncio.run(self._run(until))

    async def _run(self, until: Callable[[Agent], bool]) -> Agent:
        clock = Clock()
        where = simulated.Gate(("127.0.0.1", self.gate.mqtt_port), ("127.0.0.1", self.gate.https_port), "localhost")
        ledger = Ledger(self.state / "ledger.db", clock)
        devices = Devices(where, self.state, ledger, clock, seed=1)
        bundle = read_bundle(self.car.directory)
        agent: Agent = (
            devices.mqtt(bundle) if self.transport == "mqtt" else devices.https(bundle, "msgpack", linger_s=0.0)
        )
        async with committing(devices) as group:
            task = group.create_task(agent.run())
            async with asyncio.timeout(DEADLINE_S):
                while not until(agent):  # the condition is the test's, nobody could set an event
                    self._offer(agent, clock)
                    await asyncio.sleep(0.05)
                self._offer(agent, clock)
                agent.finish()
                await task
        ledger.close()
        return agent

    def _offer(self, agent: Agent, clock: Clock) -> None:
        self.sent += 1
        agent.offer(Draft("1", "1", 1, (Event(int(clock.now_ms()) - 10, "sample", {1: float(self.sent)}, {}),)))


def records(gate: Gate, car: Car) -> DeviceRecord:
    with gate.home.control() as store:
        return store.devices([(car.tenant, car.device_id)])[car.tenant, car.device_id]


def verified_with(gate: Gate, car: Car) -> list[bytes]:
    """The key digest of the credential that each stored message was verified with, in their order."""
    return [
        segment.peers[message.peer].key_digest
        for segment in gate.segments()
        for message in segment.messages
        if segment.peers[message.peer].device_id == car.device_id
    ]


@pytest.mark.parametrize("kind", ["P-256", "Ed25519"])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.usefixtures("signer")
def test_the_agent_renews_itself_while_it_sends(gate: Gate, tmp_path: Path, transport: str, kind: str) -> None:
    """Every message is stored once, the last one under the new credential; the bundle on the disk is the new one."""
    car = enrolled_long_ago(gate, Ed25519PrivateKey.generate() if kind == "Ed25519" else None)
    drive = Drive(gate, car, transport, tmp_path)
    agent = drive.run(lambda agent: Car(car.directory).key != car.key and not agent.over)
    after = Car(car.directory)
    assert (agent.open_messages, agent.lost_drafts, len(gate.stored(car))) == (0, 0, drive.sent)
    assert verified_with(gate, car)[-1] == after.identity.key_digest
    assert len(records(gate, car).credentials) == 2


@pytest.mark.usefixtures("signer")
def test_the_agent_asks_again_with_the_same_key_after_a_lost_answer(gate: Gate, tmp_path: Path) -> None:
    """Its process ended between question and answer: no clone, one credential more."""
    car = enrolled_long_ago(gate)
    assert post(gate, car, Renewal(car.directory).request()).status == 200
    Drive(gate, car, "mqtt", tmp_path).run(lambda _: Car(car.directory).key != car.key)
    assert (len(records(gate, car).credentials), records(gate, car).state) == (2, DeviceState.TRUSTED)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_without_a_signer_the_agent_goes_on_sending(gate: Gate, tmp_path: Path, transport: str) -> None:
    """It is told to come back, keeps its key for then, and every message is acknowledged."""
    car = enrolled_long_ago(gate)
    drive = Drive(gate, car, transport, tmp_path)
    pending = car.directory / "renewal" / "private.pem"
    drive.run(lambda _: pending.exists() and drive.sent > 10)
    assert len(gate.stored(car)) == drive.sent
    kept = pending.read_bytes()
    with signing(gate.home):
        drive.run(lambda _: Car(car.directory).key != car.key)
    assert (car.directory / "private.pem").read_bytes() == kept


@pytest.mark.usefixtures("signer")
def test_what_the_agent_signed_before_the_renewal_it_sends_after_it(gate: Gate, tmp_path: Path) -> None:
    """The gate was away meanwhile: accepted under the former credential, and flagged."""
    car = enrolled_long_ago(gate)
    drive = Drive(gate, car, "mqtt", tmp_path)

    async def sign_without_sending() -> None:
        clock = Clock()
        nowhere = simulated.Gate(("127.0.0.1", 9), ("127.0.0.1", 9), "localhost")
        ledger = Ledger(tmp_path / "ledger.db", clock)
        devices = Devices(nowhere, tmp_path, ledger, clock, seed=1)
        core = devices.mqtt(read_bundle(car.directory)).core
        core.told_time(clock.now_ms())
        core.connected()
        devices.journal.commit()
        for number in range(3):
            assert core.submit(Draft("1", "1", 1, (Event(int(clock.now_ms()), "sample", {1: float(number)}, {}),)))
        devices.journal.close()
        ledger.close()

    asyncio.run(sign_without_sending())
    renewal = Renewal(car.directory)
    renewal.accept(json.dumps(post(gate, car, renewal.request()).items).encode())
    drive.run(lambda _: drive.sent > 3)
    flags = [message.flags & Flag.FORMER_CREDENTIAL for message in gate.stored(car)]
    assert flags == [Flag.FORMER_CREDENTIAL.value] * 3 + [0] * drive.sent
