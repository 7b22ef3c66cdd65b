"""A fleet's mistake at a real edge: a release that cannot encode, one that sends its queue again, an expired CA.

The devices are enrolled, connect and sign as real ones do; who ends in quarantine, and what is told, is read from the
spool and the records.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from mqtt5 import PubAckPacket
from tests.authorities import CA, pem
from tests.gate import Car, Gate, Installation, started, until
from tests.mqtt_peer import Ended, MqttPeer, told
from tests.units import EVENT

from fleetgate.accept.breaker import Wish
from fleetgate.accept.edge import Edge
from fleetgate.accept.material import Replacement
from fleetgate.accept.recovery import Recovery
from fleetgate.clock import SystemClock
from fleetgate.control.breaker import set_mode
from fleetgate.control.bundle import write_bundle
from fleetgate.control.cohorts import Cohort, CohortKind, Mode
from fleetgate.control.devices import enrol
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.store import Store
from fleetgate.spool.format import DamagedError
from fleetgate.spool.reader import Segment

FLEET = 54
BURST = 11  # of 10 points each: what the first have lost by then is little, but some
REPEATS = 7  # of three messages, 5 points each
LIMIT = 20  # of a cohort of that size
UPDATED = "2026.45.0"
GOOD, BAD = (msgspec.msgpack.encode([UPDATED, "cfg-7f3a", events]) for events in ([EVENT], [[0, "sample", {}, {}]]))


def spki(key: EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def enrol_fleet(home: Installation, tenant: str) -> list[Car]:
    """In one transaction."""
    authority = Authority.load(home.directory / "pki", SystemClock())
    keyring = Keyring.load(home.config.path(home.config.edge.keyring))
    cars = []
    with home.write() as write:
        for number in range(FLEET):
            out = home.directory / "devices" / f"{tenant}-{number}"
            write_bundle(out, enrol(write, authority, keyring, tenant, f"car-{number}"))
            cars.append(Car(out))
    home.cars += cars
    return cars


class Fleet:
    """Cars of a tenant with a live session each, all of which have sent one good message under the new software."""

    def __init__(self, gate: Gate, tenant: str) -> None:
        self.gate = gate
        self.tenant = tenant
        self.cars = enrol_fleet(gate.home, tenant)
        self._connections = ExitStack()

    def connect(self, *numbers: int) -> None:
        """All of them, or these."""
        self._connections.close()
        self.peers = {
            number: self._connections.enter_context(MqttPeer(self.gate, self.cars[number])).hello()
            for number in numbers or range(FLEET)
        }
        self.sent = dict.fromkeys(self.peers, 0)

    def close(self) -> None:
        self._connections.close()

    def ask(self, number: int, raws: Sequence[bytes]) -> list[tuple[int, str | None]]:
        """The answers to messages that are sent at once."""
        peer = self.peers[number]
        for raw in raws:
            peer.publish(raw)
        return [told(peer.packet(PubAckPacket)) for _ in raws]

    def send(self, number: int, body: bytes = GOOD, times: int = 1, **given: Any) -> tuple[int, str | None]:
        """The answer to the last one."""
        first, car, epoch = self.sent[number], self.cars[number], self.peers[number].epoch
        self.sent[number] += times
        return self.ask(number, [car.sign(epoch, first + place, body=body, **given) for place in range(times)])[-1]

    def segments(self) -> list[Segment]:
        while True:
            with contextlib.suppress(DamagedError):  # the live one, before its header is written
                return self.gate.segments()

    def states(self) -> dict[str, str]:
        """The latest transition in the spool of each of its devices."""
        records = [record for segment in self.segments() for _, record in segment.transitions]
        return {record.device_id: record.after for record in records if record.tenant == self.tenant}

    def alerts(self) -> list[tuple[str, str, str]]:
        """Those about it, and about CAs."""
        records = [record for segment in self.segments() for _, record in segment.alerts]
        return [(each.kind, each.state, each.cohort) for each in records if each.tenant in (self.tenant, "")]

    def held(self, count: int) -> list[str]:
        """The states of so many devices that were in trouble one after the other."""
        return ["quarantined"] * (LIMIT - 1) + ["watched"] * (count - LIMIT + 1)


@pytest.fixture(scope="module")
def vendor() -> CA:
    return CA.root("a vendor's root")


@pytest.fixture(scope="module")
def fleets(authority: Installation, vendor: CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Fleet]]:
    """Seen by an edge that was then started again: it knows its cohorts by the checkpoint."""
    home = authority.copy(tmp_path_factory.mktemp("fleet") / "gate")
    bundle = home.directory / "pki" / "trust.pem"
    bundle.write_bytes(bundle.read_bytes() + pem(vendor.certificate))
    home.configure(spool={"checkpoint_seconds": 0.5})
    with started(home) as gate:
        fleets = [Fleet(gate, tenant) for tenant in ("acme", "globex")]
        for fleet in fleets:
            fleet.connect()
            assert {fleet.send(number) for number in range(FLEET)} == {(0, None)}
        gate.terminate()
        gate.start()
        yield fleets
        for fleet in fleets:
            fleet.close()


def test_a_release_that_sends_its_queue_again_is_held_out_of_quarantine(fleets: list[Fleet]) -> None:
    """What had no answer before the update is repeated once, and scores nobody; a release that goes on repeating what
    was answered is watched, but for the first."""
    fleet, queues = fleets[1], []
    fleet.connect()
    for number, car in enumerate(fleet.cars):
        queues.append([car.sign(fleet.peers[number].epoch, place, body=GOOD) for place in range(3)])
        assert fleet.ask(number, queues[number]) == [(0, None)] * 3
    fleet.connect()
    for number, queue in enumerate(queues):
        assert fleet.ask(number, queue) == [(0, "duplicate")] * 3
    assert (fleet.states(), fleet.alerts()) == ({}, [])
    for number, queue in enumerate(queues):
        assert fleet.ask(number, queue * REPEATS)[-1] == (0, "duplicate")
    assert sorted(fleet.states().values()) == fleet.held(FLEET)
    assert fleet.alerts() == [("breaker", "open", f"software {UPDATED}")]


def test_a_ca_that_has_expired_is_an_alert_and_nobodys_score(fleets: list[Fleet], vendor: CA) -> None:
    """Its devices fail in TLS, which says nothing of them; the edge knows whose they are. A renewed one ends it."""
    fleet = fleets[0]
    car = fleet.gate.home.enrol("of-the-vendor")
    key = load_pem_private_key(car.key_file.read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    short = vendor.below("a CA that ends soon", end_s=4)
    name = hashlib.sha256(spki(short.key)).hexdigest()[:16]

    def connect(ca: CA) -> tuple[int, str | None]:
        leaf = ca.leaf("acme", car.device_id, key=key)
        context = car.context(*leaf.write(car.directory / f"below-{ca.certificate.serial_number}"))
        with MqttPeer(fleet.gate, car, context) as peer:
            peer.hello()
            return told(peer.ask(car.sign(peer.epoch, 0)))

    assert connect(short) == (0, None)
    until(lambda: ("issuer_expired", "open", f"issuer {name}") in fleet.alerts(), "the alert", 90)
    with pytest.raises((ssl.SSLError, OSError, Ended)):
        connect(short)
    assert connect(vendor.cross(short)) == (0, None)
    until(lambda: fleet.alerts()[-1] == ("issuer_expired", "closed", f"issuer {name}"), "its end")
    assert fleet.states() == {}


def test_a_persons_hold_is_in_force_before_the_first_poll(authority: Installation, tmp_path: Path) -> None:
    """An edge starts in the middle of the night that somebody wanted to sleep through."""
    home = authority.copy(tmp_path / "gate")
    home.enrol("car-1")
    cohort = Cohort(CohortKind.SOFTWARE, "acme", UPDATED)
    with Store.open(home.config, SystemClock(), write=True) as store:
        set_mode(store, cohort, Mode.HOLD, "test", "a test")
    with Store.open(home.config, SystemClock()) as store:
        edge = Edge(home.config, Replacement(home.config, None), store, SystemClock(), os.urandom)
        edge._recover(Recovery(edge.spool, edge.registry, edge.fleet, home.config.policy))
    edge.spool.close()
    assert edge.breaker.holds(Wish(("acme", "car-1-tcu"), (cohort,), {"malformed_body": 200.0}, 2**53), 0)


def test_a_release_that_cannot_encode_is_held_out_of_quarantine(fleets: list[Fleet]) -> None:
    """Those before the surge are in quarantine, the rest is watched; a forger among them is not excused; a kill ends
    no hold; a person does."""
    fleet = fleets[0]
    fleet.connect()
    for number in range(FLEET - 2):
        assert fleet.send(number, BAD, times=BURST)[1] == "malformed_body"
    assert sorted(fleet.states().values()) == fleet.held(FLEET - 2)
    assert fleet.alerts()[-1] == ("breaker", "open", f"software {UPDATED}")
    assert fleet.gate.metric('fleetgate_breaker_alerts{kind="breaker"}') == 2

    fleet.send(FLEET - 2, times=3, key=bytes(32))
    assert fleet.states()[fleet.cars[FLEET - 2].device_id] == "quarantined"

    fleet.gate.kill()
    fleet.gate.start()
    fleet.connect(FLEET - 1)
    fleet.send(FLEET - 1, BAD, times=BURST)
    held = fleet.cars[FLEET - 1].device_id
    assert fleet.states()[held] == "watched"

    fleet.gate.home.command(
        *("breaker", "off", "--tenant", "acme", "--software", UPDATED, "--reason", "it is an attack")
    )
    until(lambda: fleet.states()[held] == "quarantined", "who was held goes where it belongs")
    assert fleet.alerts()[-1] == ("breaker", "closed", f"software {UPDATED}")
