"""`fleetgate judge`: captured messages before the real judge, on the records and windows of an edge that runs."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update
from tests.gate import Car, Gate, Installation, NewGate, now_ms
from tests.mqtt_peer import MqttPeer
from tests.units import pack

from fleetgate.clock import SystemClock
from fleetgate.control.records import DeviceStatus
from fleetgate.control.roster import device_is
from fleetgate.control.schema import credentials, devices
from fleetgate.doctor.capture import read_capture
from fleetgate.doctor.message import Hearing, Result, hear

E = msgspec.msgpack.encode


class Court:
    """Has messages of a car judged on the gate's machine, as the command does."""

    def __init__(self, home: Installation, car: Car) -> None:
        self._home = home
        self._key = (car.tenant, car.device_id)

    def hear(self, content: bytes, topic: str | None = None, at_ms: int | None = None) -> Hearing:
        capture = read_capture(io.BytesIO(content), "message")
        return hear(
            self._home.config, SystemClock(), self._key, capture, topic.encode() if topic is not None else None, at_ms
        )

    def step(
        self, raw: bytes, topic: str | None = None, at_ms: int | None = None
    ) -> tuple[int | None, str | None, str]:
        """The step that refuses it, the reason, and what is said there."""
        told = self.hear(raw, topic, at_ms)
        what = next((step.what for step in told.steps if step.result is Result.REFUSED), "")
        return told.step, told.reason, what


@pytest.fixture
def court(shared_gate: Gate, car: Car) -> Court:
    return Court(shared_gate.home, car)


def test_a_good_message_passes_all_steps_and_is_not_claimed(shared_gate: Gate, car: Car, court: Court) -> None:
    """Six times ok, however often; and the gate takes it afterwards as new."""
    raw = car.sign(1, 0)
    for _ in range(2):
        told = court.hear(raw)
        assert (told.outcome, [step.result for step in told.steps]) == ("accepted", ["ok"] * 6)
    with MqttPeer(shared_gate, car) as peer:
        peer.hello()
        ack = peer.ask(raw)
    assert (ack.reason_code, ack.reason_str) == (0, None)


def test_what_the_edge_holds_is_known_before_its_checkpoint(
    shared_gate: Gate, car: Car, session: MqttPeer, court: Court
) -> None:
    """Duplicate, equivocation, disorder and an old epoch, by the segments of the last second."""
    epoch = session.epoch
    first, later = car.sign(epoch, 0), car.sign(epoch + 1, 7)
    for raw in (first, later):
        assert session.ask(raw).reason_code == 0
    again = court.hear(first)
    assert (again.outcome, again.steps[4].what.split(": ")[1].split(";")[0]) == ("duplicate", "duplicate")
    assert [step.result for step in again.steps] == ["ok"] * 5 + ["not reached"]
    assert "no bound" not in again.steps[3].what
    assert "no bound for this very message" in court.hear(first, at_ms=now_ms() + 9 * 24 * 3600 * 1000).steps[3].what
    number, reason, what = court.step(car.sign(epoch, 0, sent_at=now_ms() - 1))
    assert (number, reason) == (5, "equivocation")
    tags = [msgspec.msgpack.decode(raw)[7][:8].hex() for raw in (first,)]
    assert tags[0] in what
    assert court.hear(car.sign(epoch + 1, 5)).flags == ["out_of_order"]
    number, reason, what = court.step(car.sign(0, 0))
    assert (number, reason, f"the device is in epoch {epoch + 1}" in what) == (5, "stale_epoch", True)
    number, reason, what = court.step(car.sign(epoch + 1, 0)) if session.ask(car.sign(epoch + 1, 2000)) else (0, "", "")
    assert (number, reason, "2000 below the highest seen, 2000" in what) == (5, "behind_window", True)


REFUSED_BODIES: dict[str, tuple[int, bytes, str]] = {
    "wrong type": (1, E(["s", "c", [[0, "sample", {1: "x"}, {}]]]), "events[0].signals"),
    "wrong kind": (1, E(["s", "c", [[0, "sample", {1: 1.0}, {}], [0, "dance", {}, {}]]]), "events[1].kind"),
    "empty sample": (1, E(["s", "c", [[0, "sample", {1: 1.0}, {}], [0, "sample", {}, {}]]]), "event 1: a sample"),
    "JSON": (2, b'{"software":"s","config":"c","events":[{"at":1,"kind":"sample"}]}', "events[0].at"),
    "no JSON": (2, b'{"software":', "Input data was truncated"),
    "columns": (3, E(["s", "c", "sample", 2, bytes(8), {5: [1, bytes(4)]}]), "column 5 has 4 bytes"),
    "later": (3, E(["s", "c", "sample", 1, b"\x01\x00\x00\x00", {5: [1, bytes(4)]}]), "behind sent_at"),
}


@pytest.mark.parametrize("case", REFUSED_BODIES)
def test_a_malformed_body_is_located(car: Car, court: Court, case: str) -> None:
    """As precisely as the decoder can say, by the names of the format."""
    enc, body, where = REFUSED_BODIES[case]
    number, reason, what = court.step(car.sign(1, 0, enc=enc, body=body))
    assert (number, reason) == (6, "malformed_body")
    assert where in what


def with_element(car: Car, number: int, value: object) -> bytes:
    elements = msgspec.msgpack.decode(car.sign(1, 0))
    elements[number] = value
    return pack(elements)


def test_a_malformed_envelope_is_located(car: Car, court: Court) -> None:
    """Element, batch, JSON over MQTT, garbage."""
    assert "tag" in court.step(with_element(car, 7, b"short"))[2]
    assert "kid" in court.step(with_element(car, 1, -1))[2]
    assert "as a batch is" in court.step(pack([car.sign(1, 0)]))[2]
    assert "as a batch is" in court.step(b"[" + car.sign_json(1, 0) + b"]")[2]
    assert "over MQTT" in court.step(car.sign_json(1, 0), car.topic)[2]
    assert court.step(b"\x00garbage")[:2] == (1, "malformed_envelope")
    assert court.step(with_element(car, 0, 2))[:2] == (1, "unsupported_version")


def test_who_is_refused_at_step_2(shared_gate: Gate, car: Car, other_car: Car, court: Court) -> None:
    """Another topic; then the records, with what they say."""
    raw = car.sign(1, 0)
    number, reason, what = court.step(raw, other_car.topic)
    assert (number, reason, other_car.topic in what, car.topic in what) == (2, "identity_mismatch", True, True)
    shared_gate.home.revoke(car)
    number, reason, what = court.step(raw)
    assert (number, reason, "a test" in what) == (2, "revoked", True)


@pytest.mark.parametrize(
    ("decide", "reason"),
    [(Installation.suspend, "suspended"), (Installation.ban, "banned")],
    ids=["suspended", "banned"],
)
def test_a_device_that_people_keep_out(
    shared_gate: Gate, car: Car, court: Court, decide: Callable[[Installation, Car], None], reason: str
) -> None:
    """By its status, and by security's decision."""
    decide(shared_gate.home, car)
    step, why, told = court.step(car.sign(1, 0))
    assert (step, why) == (2, reason)
    assert told.startswith(f"{car.device_id} of acme is {reason} since ")


def test_a_refusal_that_only_the_edge_remembers(shared_gate: Gate, car: Car, session: MqttPeer, court: Court) -> None:
    """The records were restored from an older day: the edge goes on refusing, and so does this."""
    shared_gate.home.suspend(car)
    assert session.farewell().reason_code == 0x87
    with shared_gate.home.write() as write:  # no change is recorded: nobody decided that
        of_car = device_is(devices, car.tenant, car.device_id)
        write.execute(update(devices).where(of_car).values(status=DeviceStatus.ACTIVE))
    number, reason, what = court.step(car.sign(1, 0))
    assert (number, reason, "restored from an older day" in what) == (2, "suspended", True)


def test_a_message_signed_before_a_renewal(shared_gate: Gate, car: Car, court: Court) -> None:
    """The former certificate's key verifies it, and is named."""
    with shared_gate.home.write() as write:
        of_car = device_is(credentials, car.tenant, car.device_id)
        write.execute(update(credentials).where(of_car).values(status="former", ended_at_ms=write.now_ms))
        write.record("renew", car.tenant, car.device_id, {})
    shared_gate.home.enrol(car.vehicle_id)
    told = court.hear(car.sign(1, 0))
    assert (told.outcome, told.flags) == ("accepted", ["former_credential"])
    assert f"former certificate {car.identity.fingerprint.hex()[:12]}" in told.steps[2].what


def test_a_device_in_quarantine(shared_gate: Gate, car: Car, court: Court) -> None:
    """It is not refused, and an operator sees what the device is not told."""
    shared_gate.home.quarantine(car)
    told = court.hear(car.sign(1, 0))
    assert (told.outcome, "in quarantine" in told.steps[1].what) == ("held", True)


def test_an_unknown_device(shared_gate: Gate, stranger: Car) -> None:
    """Its envelope is opened all the same."""
    court = Court(shared_gate.home, stranger)
    assert court.step(stranger.sign(1, 0))[:2] == (2, "unknown_device")
    assert court.step(b"\x00garbage")[:2] == (1, "malformed_envelope")


def test_a_wrong_mac_and_who_else_may_have_made_it(shared_gate: Gate, car: Car, other_car: Car, court: Court) -> None:
    """Another device's key, an altered body, and the device's own key of an earlier enrolment."""
    number, reason, what = court.step(car.sign(1, 0, key=other_car.key))
    assert (number, reason, "No key that this device ever had" in what) == (3, "bad_mac", True)
    old = car.sign(1, 0)
    shared_gate.home.revoke(car)
    shared_gate.home.enrol(car.vehicle_id)
    number, reason, what = court.step(old)
    assert (number, reason, "The device did sign it" in what, "revoked since" in what) == (3, "bad_mac", True, True)


def test_a_key_id_that_is_not_the_keys(car: Car, court: Court) -> None:
    """Unknown to the keyring; whose key it is, is found out all the same."""
    number, reason, what = court.step(car.sign(1, 0, kid=9))
    assert (number, reason) == (3, "unknown_key")
    assert "root key 9 is unknown; those that verify are 1" in what
    assert "with the key of root 1" in what


def test_a_retired_root_key_is_refused_by_the_live_gate(shared_gate: Gate, car: Car, tmp_path: Path) -> None:
    """It proves who signed, and says that nothing is accepted under it."""
    home = shared_gate.home.copy(tmp_path / "copy")
    path = home.directory / "keyring.json"
    ring = json.loads(path.read_text())
    ring["roots"]["1"]["state"] = "retired"
    ring["roots"]["2"] = {"root": base64.b64encode(bytes(32)).decode(), "created_at": 0, "state": "active"}
    path.write_text(json.dumps(ring))
    number, reason, what = Court(home, car).step(car.sign(1, 0))
    assert (number, reason) == (3, "unknown_key")
    assert "root key 1 has ended: the live gate refuses it" in what
    assert "The device did sign it" in what


def test_the_clock_and_the_time_of_receipt(car: Car, court: Court) -> None:
    """`--at` puts the judge back to when the message came."""
    sent_at = 1_767_225_600_000
    raw = car.sign(1, 0, sent_at=sent_at)
    assert court.step(raw)[:2] == (4, "too_old")
    told = court.hear(raw, at_ms=sent_at + 360_000)
    assert (told.outcome, told.flags) == ("accepted", ["late"])
    assert "those of now" in told.notes[0]
    number, reason, what = court.step(raw, at_ms=sent_at - 120_000)
    assert (number, reason, "the device's clock is ahead" in what) == (4, "clock_ahead", True)


@pytest.mark.parametrize("encode", [lambda raw: raw.hex().encode() + b"\n", lambda raw: base64.b64encode(raw) + b"\n"])
def test_hex_and_base64_are_opened(car: Car, court: Court, encode: Any) -> None:
    """As mosquitto_sub and editors write them."""
    assert court.hear(encode(car.sign(1, 0))).outcome == "accepted"


def test_without_a_spool_the_windows_are_empty_and_it_says_so(shared_gate: Gate, car: Car, tmp_path: Path) -> None:
    """Everything but step 5 is judged as ever."""
    home = shared_gate.home.copy(tmp_path / "copy")
    for path in sorted((home.directory / "spool").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    told = Court(home, car).hear(car.sign(1, 0))
    assert (told.outcome, "no spool in use" in told.notes[0]) == ("accepted", True)


def test_it_changes_no_byte_of_a_spool(new_gate: NewGate) -> None:
    """Of an edge that was killed: what SQLite has in its logs stays there."""
    gate = new_gate()
    car = gate.home.enrol("car")
    with MqttPeer(gate, car) as peer:
        peer.hello().ask(car.sign(1, 0))
    gate.kill()

    def files() -> dict[str, bytes]:
        found = (path for path in gate.spool.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
        return {str(path): path.read_bytes() for path in found}

    before = files()
    assert Court(gate.home, car).hear(car.sign(1, 1)).outcome == "accepted"
    assert files() == before
