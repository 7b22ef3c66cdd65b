"""A device's life at a real edge: what people decide about it reaches its connections, and those of no other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.gate import Car, Gate, NewGate, now_ms, until
from tests.http_peer import HttpPeer
from tests.http_peer import told as told_item
from tests.mqtt_peer import MqttPeer, told

from fleetgate.control.devices import enrol, renew, revoke
from fleetgate.control.retirement import decommission, replace, resume, suspend
from fleetgate.control.vehicles import transfer

NOT_AUTHORIZED = 0x87
ACCEPTED = (0, None)


def greeted(gate: Gate, car: Car) -> tuple[int, str | None]:
    """Code and Reason String of a CONNACK."""
    with MqttPeer(gate, car) as peer:
        welcome = peer.greet()
        return int(welcome.reason_code), welcome.reason_str


def over_https(gate: Gate, car: Car, raw: bytes) -> tuple[str, str | None]:
    with HttpPeer(gate, car) as client:
        return told_item(client.ask(raw))


@contextmanager
def live(gate: Gate, car: Car) -> Iterator[MqttPeer]:
    """A session with one message accepted in it."""
    with MqttPeer(gate, car) as peer:
        peer.hello()
        assert told(peer.ask(car.sign(peer.epoch, 0)))[0] == 0
        peer.sock.settimeout(2)
        yield peer


def test_replaced_tcu_old_unit(shared_gate: Gate, session: MqttPeer, car: Car, bystander: MqttPeer) -> None:
    """Its live session ends within 2 s, and it is kept out with its certificate over both transports."""
    shared_gate.home.given(replace, car.tenant, car.device_id, f"{car.device_id}-2", "broken")
    session.sock.settimeout(2)
    assert session.farewell().reason_code == NOT_AUTHORIZED
    assert greeted(shared_gate, car)[0] == NOT_AUTHORIZED
    assert over_https(shared_gate, car, car.sign(1, 1))[0] == "rejected"
    assert told(bystander.ask(bystander.car.sign(1, 0))) == ACCEPTED


def test_replaced_tcu_new_unit(shared_gate: Gate, car: Car) -> None:
    """It is in, with keys of its own, and its messages are of the same vehicle."""
    new = shared_gate.home.given(replace, car.tenant, car.device_id, f"{car.device_id}-2", "broken")
    with live(shared_gate, new):
        pass
    assert (new.vehicle_id, new.key != car.key) == (car.vehicle_id, True)
    assert [message.outcome for message in shared_gate.stored(new)] == [1]
    peers = [peer for segment in shared_gate.segments() for peer in segment.peers.values()]
    assert {peer.vehicle_id for peer in peers if peer.device_id == new.device_id} == {car.vehicle_id}


def test_replaced_tcu_both_at_once(shared_gate: Gate, car: Car) -> None:
    """The old unit goes on trying, with its own keys and with its certificate; the new one does not notice."""
    new = shared_gate.home.given(replace, car.tenant, car.device_id, f"{car.device_id}-2", "broken")
    with live(shared_gate, new) as session:
        for seq in range(1, 4):
            assert greeted(shared_gate, car)[0] == NOT_AUTHORIZED
            assert over_https(shared_gate, car, car.sign(1, seq))[0] == "rejected"
            assert told(session.ask(new.sign(session.epoch, seq))) == ACCEPTED
    assert shared_gate.stored(car) == []


def test_re_enrolment(shared_gate: Gate, car: Car) -> None:
    """After decommissioning the device comes back with a new certificate; with the old one it does not."""
    with shared_gate.home.write() as write:
        decommission(write, car.tenant, car.device_id, "taken out")
    again = shared_gate.home.given(enrol, car.tenant, f"{car.vehicle_id}-b", car.device_id)
    with live(shared_gate, again):
        assert greeted(shared_gate, car) == (NOT_AUTHORIZED, "revoked")
    assert over_https(shared_gate, car, car.sign(9, 0)) == ("rejected", "revoked")


def test_renewed_by_a_person(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """The session under the former certificate goes on, what it signed is taken under the new one, and so is new."""
    waiting = car.sign(1, 0)
    renewed = shared_gate.home.given(renew, car.tenant, car.device_id)
    assert told(session.ask(car.sign(1, 1))) == ACCEPTED
    with MqttPeer(shared_gate, renewed) as peer:
        peer.hello()
        assert told(peer.ask(waiting)) == ACCEPTED
        assert told(peer.ask(renewed.sign(1, 2))) == ACCEPTED


def test_revoked_with_a_time_to_come_on_a_live_session(shared_gate: Gate, car: Car) -> None:
    """Until then it is accepted; then the session ends by itself, and new ones and HTTPS are refused."""
    with live(shared_gate, car) as session:
        at_ms = now_ms() + 3_000
        with shared_gate.home.write() as write:
            revoke(write, car.tenant, car.device_id, "sold", effective_ms=at_ms)
        time.sleep(1)  # three polls: the edge knows of it
        assert told(session.ask(car.sign(session.epoch, 1))) == ACCEPTED
        session.sock.settimeout(2 + (at_ms - now_ms()) / 1000)
        assert session.farewell().reason_str == "revoked"
        assert now_ms() >= at_ms
    assert greeted(shared_gate, car) == (NOT_AUTHORIZED, "revoked")
    assert over_https(shared_gate, car, car.sign(1, 9)) == ("rejected", "revoked")


def test_revoked_with_a_time_to_come_across_a_restart(new_gate: NewGate) -> None:
    """The edge was killed meanwhile: it takes effect at its time all the same, and not before."""
    gate = new_gate()
    car = gate.home.enrol("car-restart")
    with live(gate, car):
        at_ms = now_ms() + 6_000
        with gate.home.write() as write:
            revoke(write, car.tenant, car.device_id, "sold", effective_ms=at_ms)
        time.sleep(1)  # three polls: the edge knows of it
    gate.kill()
    gate.start()
    until(lambda: greeted(gate, car) == (NOT_AUTHORIZED, "revoked"), "it is revoked", 15)
    assert now_ms() >= at_ms


def test_descendants_of_a_revoked_certificate(shared_gate: Gate, car: Car) -> None:
    """Two renewals on, the live session under the last certificate ends with the first one's revocation."""
    shared_gate.home.given(renew, car.tenant, car.device_id)
    last = shared_gate.home.given(renew, car.tenant, car.device_id)
    with live(shared_gate, last) as session:
        with shared_gate.home.write() as write:
            assert revoke(write, car.tenant, car.device_id, "leaked", car.identity.fingerprint.hex()) == 3
        assert session.farewell().reason_str == "revoked"
    assert greeted(shared_gate, last) == (NOT_AUTHORIZED, "revoked")


def test_suspended_and_resumed(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """The live session ends, it is kept out on both transports, and comes back with the same certificate."""
    with shared_gate.home.write() as write:
        suspend(write, car.tenant, car.device_id, "in the workshop")
    session.sock.settimeout(2)
    assert session.farewell().reason_str == "suspended"
    assert greeted(shared_gate, car) == (NOT_AUTHORIZED, "suspended")
    assert over_https(shared_gate, car, car.sign(1, 0)) == ("rejected", "suspended")
    with shared_gate.home.write() as write:
        resume(write, car.tenant, car.device_id, "back")
    until(lambda: greeted(shared_gate, car) == ACCEPTED, "it is resumed", 2)


def test_transferred_to_another_tenant(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """What was sent before is the old tenant's, what comes after the new one's; the old device is out."""
    assert told(session.ask(car.sign(1, 0))) == ACCEPTED
    new_vehicle = f"u-{car.vehicle_id}"
    new = shared_gate.home.given(transfer, car.tenant, car.vehicle_id, "umbra", new_vehicle, "sold")
    session.sock.settimeout(2)
    assert session.farewell().reason_code == NOT_AUTHORIZED
    with live(shared_gate, new):
        pass
    assert (len(shared_gate.stored(car)), len(shared_gate.stored(new))) == (1, 1)
    assert greeted(shared_gate, car)[0] == NOT_AUTHORIZED


def test_credential_of_the_former_tenant_after_a_transfer(shared_gate: Gate, car: Car) -> None:
    """The old unit cannot speak for the new tenant, with the new device's MAC key either."""
    new = shared_gate.home.given(transfer, car.tenant, car.vehicle_id, "umbra", f"v-{car.vehicle_id}", "sold")
    assert greeted(shared_gate, car)[0] == NOT_AUTHORIZED
    assert over_https(shared_gate, car, new.sign(1, 0))[0] == "rejected"
    assert shared_gate.stored(new) == []
