"""The first packet of whoever answers: read whole, in pieces, altered, and from somebody hostile."""

from __future__ import annotations

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.doctor.connack import Connack, NotConnackError, read_connack

GOOD = mqtt5.ConnAckPacket(
    reason_code=mqtt5.ConnAckReasonCode.NOT_AUTHORIZED,
    session_expiry_interval=0,
    assigned_client_id="car-7-tcu",
    server_keep_alive=300,
    receive_max=128,
    reason_str="revoked",
    user_properties=[("now", "1767225600000"), ("epoch", "7")],
).write()


def test_what_the_codec_writes_is_read() -> None:
    """Every property of our own CONNACK."""
    told = {"now": "1767225600000", "epoch": "7"}
    assert read_connack(GOOD) == Connack(5, 0x87, "revoked", told)


def test_it_is_waited_for_byte_by_byte() -> None:
    """Never an answer before the last byte, never an error."""
    assert [read_connack(GOOD[:end]) for end in range(len(GOOD))] == [None] * len(GOOD)


@pytest.mark.parametrize("code", [0, 1, 5])
def test_that_of_3_1_1_is_told_apart(code: int) -> None:
    """It has no properties."""
    assert read_connack(bytes((0x20, 2, 0, code))) == Connack(3, code)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x30\x02\x00\x00",
        b"\x20\x01\x00",
        b"\x20\xff\xff\xff\xff\x01",
        b"\x20\x05\x00\x00\x02\x1f\x00",
        b"\x20\x05\x00\x00\x02\xee\x00",
        b"\x20\x04\x00\x00\x05\x1f",
    ],
    ids=["HTTP", "PUBLISH", "too short", "endless length", "cut property", "unknown property", "properties too long"],
)
def test_anything_else_is_refused(data: bytes) -> None:
    """With one error, whatever it is."""
    with pytest.raises(NotConnackError):
        read_connack(data)


def test_a_string_that_is_not_utf_8_ends_nothing() -> None:
    """The codec would end the process on it."""
    hostile = b"\x20\x08\x00\x87\x05\x1f\x00\x02\xff\xfe"
    assert read_connack(hostile) == Connack(5, 0x87, "\ufffd\ufffd")


@given(st.binary(max_size=64).map(lambda tail: b"\x20" + tail))
def test_any_bytes_are_answered(data: bytes) -> None:
    """A CONNACK, a wait or the one error."""
    try:
        read_connack(data)
    except NotConnackError:
        return
