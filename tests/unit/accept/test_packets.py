"""One table of MQTT packets, right and wrong, each fed whole, cut at every byte and with trailing bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mqtt5 import DisconnectReasonCode as Code
from tests.units import TOPIC
from tests.wires import DISCONNECT, PINGREQ, connect, connect_3, field, filters, packet, publish, section, varint

from fleetgate.accept import packets
from fleetgate.accept.packets import MAX_CONNECT_BYTES, MAX_PACKET_BYTES, ProtocolError

BAD, WRONG = Code.MALFORMED_PACKET, Code.PROTOCOL_ERROR
OPENERS: dict[int, Callable[[bytes, int, int, int], object]] = {
    packets.CONNECT: packets.check_connect,
    packets.PUBLISH: packets.open_publish,
    packets.SUBSCRIBE: packets.check_subscribe,
    packets.UNSUBSCRIBE: packets.check_unsubscribe,
    packets.DISCONNECT: packets.check_disconnect,
}
NOT_UTF8 = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xc3", b"\x00")
USER = b"\x26" + field(b"k") + field(b"v")
WILL = section(b"") + field(b"topic") + field(b"payload")


def read(data: bytes) -> object:
    """What the packet at the start of `data` is: opened, a code, or None while it is incomplete."""
    try:
        found = packets.next_packet(data, 0)
        if found is None:
            return None
        first, start, end = found
        opener = OPENERS.get(first >> 4)
        return "other" if opener is None else opener(data, first & 15, start, end)
    except ProtocolError as error:
        return error.code


RIGHT: dict[str, tuple[bytes, object]] = {
    "CONNECT": (connect(), 5),
    "CONNECT without a client id": (connect(client_id=b""), 5),
    "CONNECT with every property": (
        connect(
            properties=b"\x11\x00\x00\x00\x01" + b"\x21\x00\x01" + b"\x27\x00\x00\x00\x01" + b"\x22\x00\x00"
            + b"\x19\x01" + b"\x17\x00" + USER + USER + b"\x15" + field(b"m") + b"\x16" + field(b"\xff\x00")
        ),
        5,
    ),
    "CONNECT with a will": (connect(flags=0x0E, rest=WILL), 5),
    "CONNECT with user and password": (connect(flags=0xC2, rest=field(b"u") + field(b"\xff")), 5),
    "CONNECT of 3.1.1": (connect_3(), 4),
    "CONNECT of 3.1": (connect_3(3, b"MQIsdp"), 3),
    "CONNECT of version 6": (connect(level=6), 6),
    "PUBLISH of QoS 1": (publish(), (TOPIC, 1, 1, b"payload")),
    "PUBLISH of QoS 0": (publish(first=0x30, packet_id=None), (TOPIC, 0, 0, b"payload")),
    "PUBLISH with DUP and retain": (publish(first=0x3B, packet_id=65_535), (TOPIC, 1, 65_535, b"payload")),
    "PUBLISH of nothing": (publish(payload=b""), (TOPIC, 1, 1, b"")),
    "PUBLISH with properties": (
        publish(properties=b"\x01\x00" + b"\x02\x00\x00\x00\x09" + b"\x03" + field("é".encode()) + USER + USER
                + b"\x08" + field(b"answer") + b"\x09" + field(b"\xff")),
        (TOPIC, 1, 1, b"payload"),
    ),
    "PUBLISH to a topic that is not UTF-8": (publish(topic=b"\xff"), (b"\xff", 1, 1, b"payload")),
    "SUBSCRIBE": (filters(0x82, b"a/#", b"b"), (1, 2)),
    "SUBSCRIBE with an identifier": (filters(0x82, b"a", properties=b"\x0b\x01"), (1, 1)),
    "UNSUBSCRIBE": (filters(0xA2, b"a", options=b""), (1, 1)),
    "PINGREQ": (PINGREQ, "other"),
    "DISCONNECT": (DISCONNECT, None),
    "DISCONNECT with a reason": (packet(0xE0, b"\x04"), None),
    "DISCONNECT with properties": (packet(0xE0, b"\x00" + section(b"\x11\x00\x00\x00\x00" + USER)), None),
}  # fmt: skip

WRONG_ONES: dict[str, tuple[bytes, Code]] = {
    "a length of five bytes": (b"\x30\x80\x80\x80\x80\x01", BAD),
    "a length without end": (b"\x30\xff\xff\xff\xff\xff", BAD),
    "a packet over the maximum": (b"\x30" + varint(MAX_PACKET_BYTES), Code.PACKET_TOO_LARGE),
    "the longest packet that can be announced": (b"\x32\xff\xff\xff\x7f", Code.PACKET_TOO_LARGE),
    "CONNECT with reserved bits": (connect(first=0x11), BAD),
    "CONNECT of nothing": (b"\x10\x00", BAD),
    "CONNECT of another protocol": (connect(name=b"HTTP"), BAD),
    "CONNECT of version 5 under the name of 3.1": (connect(name=b"MQIsdp", client_id=b"\xff"), BAD),
    "CONNECT without a level": (packet(0x10, field(b"MQTT")), BAD),
    "CONNECT without flags": (packet(0x10, field(b"MQTT") + b"\x05"), BAD),
    "CONNECT without properties": (packet(0x10, field(b"MQTT") + b"\x05\x02\x00\x3c"), BAD),
    "CONNECT without a client id": (packet(0x10, field(b"MQTT") + b"\x05\x02\x00\x3c\x00"), BAD),
    "CONNECT with the reserved flag": (connect(flags=0x03), BAD),
    "CONNECT with a will of QoS 3": (connect(flags=0x1E, rest=WILL), BAD),
    "CONNECT with a QoS and no will": (connect(flags=0x0A), BAD),
    "CONNECT with retain and no will": (connect(flags=0x22), BAD),
    "CONNECT without its will": (connect(flags=0x06), BAD),
    "CONNECT without its user": (connect(flags=0x82), BAD),
    "CONNECT without its password": (connect(flags=0x42), BAD),
    "CONNECT with bytes behind its end": (connect(rest=b"\x00"), BAD),
    "CONNECT over 8 KiB": (connect(client_id=b"a" * MAX_CONNECT_BYTES), Code.PACKET_TOO_LARGE),
    "CONNECT with a property of PUBLISH": (connect(properties=b"\x01\x00"), BAD),
    "CONNECT with an unknown property": (connect(properties=b"\x7f\x00"), BAD),
    "CONNECT with a property twice": (connect(properties=b"\x21\x00\x01" * 2), WRONG),
    "CONNECT with receive maximum 0": (connect(properties=b"\x21\x00\x00"), WRONG),
    "CONNECT with maximum packet size 0": (connect(properties=b"\x27\x00\x00\x00\x00"), WRONG),
    "CONNECT with a boolean of 2": (connect(properties=b"\x17\x02"), WRONG),
    "CONNECT with a property cut off": (connect(properties=b"\x11\x00\x00"), BAD),
    "CONNECT with properties longer than itself": (
        packet(0x10, field(b"MQTT") + b"\x05\x02\x00\x3c" + varint(200) + field(b"a")), BAD),
    "CONNECT with a property length without end": (
        packet(0x10, field(b"MQTT") + b"\x05\x02\x00\x3c" + b"\xff\xff\xff\xff\x01" + field(b"a")), BAD),
    "CONNECT with a user property cut off": (connect(properties=b"\x26" + field(b"k")), BAD),
    "CONNECT with a will property of CONNECT": (
        connect(flags=0x06, rest=section(b"\x21\x00\x01") + field(b"t") + field(b"p")), BAD),
    "PUBLISH of QoS 2": (publish(first=0x34), Code.QOS_NOT_SUPPORTED),
    "PUBLISH of QoS 3": (publish(first=0x36), BAD),
    "PUBLISH of QoS 0 with DUP": (publish(first=0x38, packet_id=None), BAD),
    "PUBLISH with packet id 0": (publish(packet_id=0), BAD),
    "PUBLISH of nothing at all": (b"\x32\x00", BAD),
    "PUBLISH of one byte": (packet(0x32, b"\x00"), BAD),
    "PUBLISH with a topic longer than itself": (packet(0x32, b"\xff\xff" + TOPIC), BAD),
    "PUBLISH without a packet id": (packet(0x32, field(TOPIC)), BAD),
    "PUBLISH without properties": (packet(0x32, field(TOPIC) + b"\x00\x01"), BAD),
    "PUBLISH of QoS 0 without properties": (packet(0x30, field(TOPIC)), BAD),
    "PUBLISH with properties longer than itself": (packet(0x32, field(TOPIC) + b"\x00\x01\x7f"), BAD),
    "PUBLISH with a topic alias": (publish(properties=b"\x23\x00\x01"), Code.TOPIC_ALIAS_INVALID),
    "PUBLISH with an alias and no topic": (publish(topic=b"", properties=b"\x23\x00\x01"), Code.TOPIC_ALIAS_INVALID),
    "PUBLISH to no topic": (publish(topic=b""), WRONG),
    "PUBLISH with a subscription identifier": (publish(properties=b"\x0b\x01"), BAD),
    "PUBLISH with a property of CONNECT": (publish(properties=b"\x11\x00\x00\x00\x00"), BAD),
    "PUBLISH with a format of 2": (publish(properties=b"\x01\x02"), WRONG),
    "PUBLISH with a format twice": (publish(properties=b"\x01\x00\x01\x00"), WRONG),
    "SUBSCRIBE without reserved bits": (filters(0x80, b"a"), BAD),
    "SUBSCRIBE with packet id 0": (filters(0x82, b"a", packet_id=0), BAD),
    "SUBSCRIBE to nothing": (filters(0x82), BAD),
    "SUBSCRIBE of one byte": (packet(0x82, b"\x00"), BAD),
    "SUBSCRIBE without options": (filters(0x82, b"a", options=b""), BAD),
    "SUBSCRIBE with identifier 0": (filters(0x82, b"a", properties=b"\x0b\x00"), WRONG),
    "UNSUBSCRIBE from nothing": (filters(0xA2, options=b""), BAD),
    "DISCONNECT with reserved bits": (b"\xe1\x00", BAD),
    "DISCONNECT with bytes behind its end": (packet(0xE0, b"\x00\x00\x00"), BAD),
    "DISCONNECT with a property of PUBLISH": (packet(0xE0, b"\x00" + section(b"\x01\x00")), BAD),
}  # fmt: skip

STRINGS: dict[str, Callable[[bytes], bytes]] = {
    "client id": lambda text: connect(client_id=text),
    "authentication method": lambda text: connect(properties=b"\x15" + field(text)),
    "key of a user property": lambda text: connect(properties=b"\x26" + field(text) + field(b"v")),
    "value of a user property": lambda text: connect(properties=b"\x26" + field(b"k") + field(text)),
    "will topic": lambda text: connect(flags=0x06, rest=section(b"") + field(text) + field(b"p")),
    "content type of a will": lambda text: connect(
        flags=0x06, rest=section(b"\x03" + field(text)) + field(b"t") + field(b"p")
    ),
    "user name": lambda text: connect(flags=0x82, rest=field(text)),
    "content type": lambda text: publish(properties=b"\x03" + field(text)),
    "response topic": lambda text: publish(properties=b"\x08" + field(text)),
    "user property of a PUBLISH": lambda text: publish(properties=b"\x26" + field(text) + field(text)),
    "topic filter": lambda text: filters(0x82, text),
    "filter of an UNSUBSCRIBE": lambda text: filters(0xA2, text, options=b""),
    "reason of a DISCONNECT": lambda text: packet(0xE0, b"\x00" + section(b"\x1f" + field(text))),
}

CASES = [pytest.param(data, expected, id=name) for name, (data, expected) in (RIGHT | WRONG_ONES).items()]


@pytest.mark.parametrize(("data", "expected"), CASES)
def test_a_packet_is_read_whole(data: bytes, expected: object) -> None:
    """Right ones give their parts, wrong ones the code that ends the connection."""
    assert read(data) == expected


@pytest.mark.parametrize(("data", "expected"), CASES)
def test_what_follows_a_packet_changes_nothing_about_it(data: bytes, expected: object) -> None:
    """No check looks beyond the packet's own end, whatever stands there."""
    assert [read(data + trailing) for trailing in (b"\x00", b"\xff" * 9, PINGREQ, data)] == [expected] * 4


@pytest.mark.parametrize(("data", "expected"), CASES)
def test_a_packet_that_is_not_all_there_is_waited_for(data: bytes, expected: object) -> None:
    """Every cut gives None, until the announced length alone is reason to end."""
    by_length = expected if isinstance(expected, Code) else None
    assert all(read(data[:size]) in (None, by_length) for size in range(len(data)))


@pytest.mark.parametrize("text", NOT_UTF8, ids=[text.hex() for text in NOT_UTF8])
@pytest.mark.parametrize("name", STRINGS)
def test_a_string_that_is_not_utf8_is_malformed(name: str, text: bytes) -> None:
    """In every string field: what the codec would end the process on never reaches it (1.5.4)."""
    assert read(STRINGS[name](text)) is BAD


@pytest.mark.parametrize("name", STRINGS)
def test_a_string_of_utf8_passes(name: str) -> None:
    """The same fields take any well-formed text."""
    assert not isinstance(read(STRINGS[name]("Größe 🚗".encode())), Code)


def test_the_largest_packet_is_taken() -> None:
    """68 KiB with its header is allowed, one byte more is too large."""
    room = MAX_PACKET_BYTES - len(publish(payload=b"")) - 2  # the length takes two bytes more
    at_limit, beyond = publish(payload=bytes(room)), publish(payload=bytes(room + 1))
    assert (len(at_limit), isinstance(read(at_limit), tuple)) == (MAX_PACKET_BYTES, True)
    assert read(beyond) is Code.PACKET_TOO_LARGE
