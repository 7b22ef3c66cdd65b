"""What a vehicle is told: the table is whole, and its codes are those of the documents."""

from __future__ import annotations

import mqtt5
import pytest
from mqtt5 import ConnAckReasonCode as Connack
from tests.gates import packets_in

from fleetgate.accept.answers import ACCEPTED_PUBACK, PUBACK_CODE, connack_code, duplicate_puback, refusing_puback
from fleetgate.judge import Reason

DOCUMENTED = {
    0x99: {"malformed_envelope", "unsupported_version", "malformed_body", "oversized"},
    0x87: {"identity_mismatch", "bad_mac", "unknown_key", "unknown_device", "suspended", "revoked", "banned",
           "equivocation"},
    0x83: {"clock_ahead", "too_old", "behind_window", "stale_epoch"},
    0x97: {"rate_limited"},
}  # fmt: skip


def test_every_reason_has_the_code_of_the_documents() -> None:
    """None is missing: a refusal without an answer would be sent again for ever."""
    table = {code: {reason.value for reason in Reason if PUBACK_CODE[reason] == code} for code in DOCUMENTED}
    assert (table, len(PUBACK_CODE)) == (DOCUMENTED, len(Reason))


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_carries_its_reason(reason: Reason) -> None:
    """As Reason String, with the packet's id; only `stale_epoch` and `equivocation` add the current epoch."""
    (answer,) = packets_in(refusing_puback(513, reason, 12, True))
    expected = [("current_epoch", "12")] if reason in (Reason.STALE_EPOCH, Reason.EQUIVOCATION) else []
    assert (answer.packet_id, answer.reason_str, answer.user_properties) == (513, reason.value, expected)


@pytest.mark.parametrize("reason", Reason)
def test_without_problem_information_the_code_is_all(reason: Reason) -> None:
    """No Reason String and no user property (3.1.2.11.7)."""
    (answer,) = packets_in(refusing_puback(1, reason, 12, False))
    assert (answer.reason_code, answer.reason_str, answer.user_properties) == (PUBACK_CODE[reason], None, [])


def test_every_packet_id_has_its_answer() -> None:
    """Those made in advance are the codec's own."""
    ids = (1, 2, 255, 256, 65_535)
    assert [ACCEPTED_PUBACK[number] for number in ids] == [mqtt5.PubAckPacket(number).write() for number in ids]


def test_a_duplicate_is_a_success() -> None:
    """With the word for it, where the client wants words."""
    (told,) = packets_in(duplicate_puback(7, True))
    (untold,) = packets_in(duplicate_puback(7, False))
    assert [(a.packet_id, int(a.reason_code), a.reason_str) for a in (told, untold)] == [
        (7, 0, "duplicate"),
        (7, 0, None),
    ]


@pytest.mark.parametrize(
    ("reason", "code"),
    [(Reason.BANNED, Connack.BANNED), (Reason.REVOKED, Connack.NOT_AUTHORIZED),
     (Reason.SUSPENDED, Connack.NOT_AUTHORIZED), (Reason.UNKNOWN_DEVICE, Connack.NOT_AUTHORIZED)],
)  # fmt: skip
def test_a_connect_is_refused_by_the_records(reason: Reason, code: Connack) -> None:
    """Banned devices are told so, all others that they are not authorized."""
    assert connack_code(reason) == code
