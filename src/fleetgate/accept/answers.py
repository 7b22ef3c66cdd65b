"""What a vehicle is told: one table from reasons to MQTT and HTTP codes (docs/reference/reasons.md says the same).

Decides nothing; the reason was found by the judge or by admission.
"""

from __future__ import annotations

from mqtt5 import ConnAckReasonCode, PubAckPacket, PubAckReasonCode

from fleetgate.judge.verdict import Reason

_DROP = PubAckReasonCode.PAYLOAD_FORMAT_INVALID  # 0x99: drop it, log it
_STOP = PubAckReasonCode.NOT_AUTHORIZED  # 0x87: send nothing, come back after 10 minutes, doubling to a day
_AGAIN = PubAckReasonCode.IMPLEMENTATION_SPECIFIC_ERROR  # 0x83: the events again under a new number
_LATER = PubAckReasonCode.QUOTA_EXCEEDED  # 0x97: the same bytes later

PUBACK_CODE: dict[Reason, PubAckReasonCode] = {
    Reason.MALFORMED_ENVELOPE: _DROP,
    Reason.UNSUPPORTED_VERSION: _DROP,
    Reason.MALFORMED_BODY: _DROP,
    Reason.OVERSIZED: _DROP,
    Reason.IDENTITY_MISMATCH: _STOP,
    Reason.BAD_MAC: _STOP,
    Reason.UNKNOWN_KEY: _STOP,
    Reason.UNKNOWN_DEVICE: _STOP,
    Reason.SUSPENDED: _STOP,
    Reason.REVOKED: _STOP,
    Reason.BANNED: _STOP,
    Reason.CLOCK_AHEAD: _AGAIN,
    Reason.TOO_OLD: _AGAIN,
    Reason.BEHIND_WINDOW: _AGAIN,
    Reason.STALE_EPOCH: _AGAIN,
    Reason.EQUIVOCATION: _STOP,
    Reason.RATE_LIMITED: _LATER,
}

TOLD_THE_EPOCH = frozenset({Reason.STALE_EPOCH, Reason.EQUIVOCATION})
"""Whose numbers are not its own any more learns the device's current epoch, above which it may go on."""

ACCEPTED_PUBACK = [PubAckPacket(packet_id).write() if packet_id else b"" for packet_id in range(65536)]
"""A PUBACK of success for each packet id, made once: 4 MB instead of 0.4 us for each message."""


def connack_code(refusal: Reason) -> ConnAckReasonCode:
    """How a CONNECT is refused that the records of control keep out."""
    return ConnAckReasonCode.BANNED if refusal is Reason.BANNED else ConnAckReasonCode.NOT_AUTHORIZED


def refusing_puback(packet_id: int, reason: Reason, current_epoch: int, problem_info: bool) -> bytes:
    """A PUBACK with the reason as Reason String, unless the client asked for no problem information (3.1.2.11.7)."""
    if not problem_info:
        return PubAckPacket(packet_id, reason_code=PUBACK_CODE[reason]).write()
    properties = [("current_epoch", str(current_epoch))] if reason in TOLD_THE_EPOCH else []
    return PubAckPacket(
        packet_id, reason_code=PUBACK_CODE[reason], reason_str=reason.value, user_properties=properties
    ).write()


def duplicate_puback(packet_id: int, problem_info: bool) -> bytes:
    """Success, and that it was there already."""
    if not problem_info:
        return ACCEPTED_PUBACK[packet_id]
    return PubAckPacket(packet_id, reason_str="duplicate").write()
