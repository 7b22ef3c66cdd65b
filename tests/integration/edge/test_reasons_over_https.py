"""Every reason through the real HTTPS listener: the item's status and reason, or the status of the whole request."""

from __future__ import annotations

import msgspec
import pytest
from tests.gate import Car, Gate, now_ms, until
from tests.http_peer import JSON, MSGPACK, HttpPeer, told
from tests.integration.edge.test_reasons_over_mqtt import MINUTE_MS, OTHER_BODY, WEEK_MS, WRONG, Wrong
from tests.units import BODY

MIB = 1024 * 1024


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.reason)
def test_a_wrong_item_is_rejected_by_its_reason(client: HttpPeer, car: Car, wrong: Wrong) -> None:
    """202 with the reason in the item."""
    assert told(client.ask(car.sign(1, 0, **wrong.given))) == ("rejected", wrong.reason)


@pytest.mark.parametrize(("reason", "ahead_ms"), [("clock_ahead", 2 * MINUTE_MS), ("too_old", -WEEK_MS - MINUTE_MS)])
def test_an_item_outside_the_gates_time_is_rejected(client: HttpPeer, car: Car, reason: str, ahead_ms: int) -> None:
    """The vehicle reads the gate's time in the header Date, and sends again under a new number."""
    answer = client.post(car.sign(1, 0, sent_at=now_ms() + ahead_ms))
    assert (told(answer.items[0]), "date" in answer.headers) == (("rejected", reason), True)


def test_sequence_faults_are_told_apart(client: HttpPeer, car: Car) -> None:
    """behind_window, equivocation, stale_epoch with the current epoch, and duplicate, in one batch."""
    first = car.sign(7, 2000)
    answer = client.batch(first, first, car.sign(7, 2000, body=OTHER_BODY), car.sign(7, 5), car.sign(6, 0))
    assert answer.items == [
        {"epoch": 7, "seq": 2000, "status": "accepted", "reason": None},
        {"epoch": 7, "seq": 2000, "status": "duplicate", "reason": None},
        {"epoch": 7, "seq": 2000, "status": "rejected", "reason": "equivocation", "current_epoch": 7},
        {"epoch": 7, "seq": 5, "status": "rejected", "reason": "behind_window"},
        {"epoch": 6, "seq": 0, "status": "rejected", "reason": "stale_epoch", "current_epoch": 7},
    ]


def test_another_cars_envelope_does_not_verify_under_ones_own_certificate(client: HttpPeer, other_car: Car) -> None:
    """There is no address over HTTPS but the certificate: the other's tag is a bad one."""
    assert told(client.ask(other_car.sign(1, 0))) == ("rejected", "bad_mac")


def test_an_unknown_device_gets_every_item_rejected(shared_gate: Gate, stranger: Car) -> None:
    """202, one result for each item."""
    with HttpPeer(shared_gate, stranger) as peer:
        answer = peer.batch(stranger.sign(1, 0), stranger.sign(1, 1))
        assert (answer.status, [told(item) for item in answer.items]) == (202, [("rejected", "unknown_device")] * 2)


@pytest.mark.parametrize(("deed", "reason"), [("suspend", "suspended"), ("revoke", "revoked"), ("ban", "banned")])
def test_whom_the_records_refuse_gets_every_item_rejected(
    shared_gate: Gate, client: HttpPeer, car: Car, deed: str, reason: str
) -> None:
    """202, one result for each item."""
    getattr(shared_gate.home, deed)(car)
    answer = client.batch(car.sign(1, 0), car.sign(1, 1))
    assert (answer.status, [told(item) for item in answer.items]) == (202, [("rejected", reason)] * 2)


def test_a_request_above_1_mib_is_413_and_recorded_as_oversized(shared_gate: Gate, client: HttpPeer, car: Car) -> None:
    """The announced length is enough; the answer comes although nobody read the body, each time."""
    assert [client.post(bytes(8 * MIB)).status for _ in range(5)] == [413] * 5
    until(lambda: shared_gate.refused(car, "oversized") == 5, "the spool has the refusals")


@pytest.mark.parametrize("form", [MSGPACK, JSON])
def test_a_batch_of_501_is_413_and_claims_nothing(client: HttpPeer, car: Car, form: str) -> None:
    """The whole request is answered, and each of its items may be sent again."""
    if form == MSGPACK:
        batch = msgspec.msgpack.encode([car.sign(1, seq) for seq in range(501)])
        again = car.sign(1, 0)
    else:
        batch = b"[" + b",".join([car.sign_json(1, seq) for seq in range(501)]) + b"]"
        again = car.sign_json(1, 0)
    assert (client.post(batch, form).status, told(client.ask(again, form))) == (413, ("accepted", None))


def test_a_body_of_64_kib_is_taken_and_one_byte_more_is_malformed(client: HttpPeer, car: Car) -> None:
    """The envelope's own limit costs the item, not the request; 64 KiB of no body at all reach step 6."""
    longest, too_long = bytes(64 * 1024), bytes(64 * 1024 + 1)
    answer = client.batch(car.sign(1, 0, body=longest), car.sign(1, 1, body=too_long), car.sign(1, 2, body=BODY))
    assert [item["reason"] for item in answer.items] == ["malformed_body", "malformed_envelope", None]
