"""What holds of an MQTT session for every stream of bytes: it never raises, and how they are cut changes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.gates import Gate, feed, packets_in, publish
from tests.units import sign
from tests.wires import DISCONNECT, PINGREQ, connect, connect_3, field, filters, packet, section
from tests.wires import publish as raw_publish

from fleetgate.accept.brake import Brake
from fleetgate.accept.mqtt import Phase, Session
from fleetgate.config import DeviceLimit, Limits

UNLIMITED = Limits(device=DeviceLimit(messages=""))
FORGED = sign(key=b"\x00" * 32)
VALID = [
    connect(),
    connect(client_id=b""),
    connect_3(),
    publish(sign(), 1),
    publish(FORGED, 2, user_properties=[("k", "v")]),
    publish(FORGED, qos=0),
    raw_publish(properties=b"\x03" + field("é".encode()) + b"\x26" + field(b"k") + field(b"v"), payload=FORGED),
    filters(0x82, b"a/#", b"b"),
    filters(0xA2, b"a", options=b""),
    PINGREQ,
    packet(0xE0, b"\x04" + section(b"\x1f" + field(b"bye"))),
    DISCONNECT,
]

strings = st.binary(max_size=12) | st.sampled_from([b"", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\x00", b"tcu-0001"])
names = st.integers(0, 0x2B)
properties = st.lists(
    st.tuples(names, strings).map(lambda pair: bytes((pair[0],)) + field(pair[1]))
    | st.tuples(names, st.binary(max_size=6)).map(lambda pair: bytes((pair[0],)) + pair[1])
    | st.tuples(strings, strings).map(lambda pair: b"\x26" + field(pair[0]) + field(pair[1])),
    max_size=4,
).map(b"".join)
structured = st.one_of(
    st.builds(lambda flags, p, c, r: connect(flags=flags, properties=p, client_id=c, rest=r),
              st.integers(0, 255), properties, strings, st.lists(strings.map(field), max_size=3).map(b"".join)),
    st.builds(lambda w, t, p, u: connect(flags=0xC6, rest=section(w) + field(t) + field(p) + field(u) * 2),
              properties, strings, strings, strings),
    st.builds(lambda first, t, p, b: raw_publish(first=first, topic=t, properties=p, payload=b),
              st.integers(0x30, 0x3F), strings, properties, strings),
    st.builds(lambda first, p, f: filters(first, *f, properties=p),
              st.sampled_from([0x82, 0xA2]), properties, st.lists(strings, max_size=3)),
    st.builds(lambda first, content: packet(first, content), st.integers(0, 255), st.binary(max_size=60)),
    st.binary(max_size=60),
)  # fmt: skip
changes = st.lists(
    st.tuples(st.sampled_from(["flip", "insert", "delete", "repeat"]), st.integers(0, 10_000), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


def mutate(data: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    for how, where, value in edits:
        at = where % (len(data) or 1)
        if how == "flip":
            data = data[:at] + bytes(byte ^ (1 << value % 8) for byte in data[at : at + 1]) + data[at + 1 :]
        elif how == "insert":
            data = data[:at] + bytes((value,)) + data[at:]
        elif how == "delete":
            data = data[:at] + data[at + 1 + value % 4 :]
        else:
            data = data[:at] + data
    return data


mutated = st.builds(mutate, st.lists(st.sampled_from(VALID), min_size=1, max_size=4).map(b"".join), changes)
streams = st.lists(st.sampled_from(VALID) | structured | mutated, min_size=1, max_size=6).map(b"".join)


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    with tempfile.TemporaryDirectory() as directory:
        opened = Gate(Path(directory), limits=UNLIMITED)
        yield opened
        opened.close()


def check(session: Session) -> None:
    """What is to be sent is packets that a client can read, and an ended session keeps nothing."""
    data = bytes(session.out) + b"".join(session.acks) + session.farewell
    if data != b"\x20\x02\x00\x01":  # the CONNACK of 3.1.1
        packets_in(data)
    assert session.phase is not Phase.ENDED or not session._buffer


@given(data=streams)
@example(data=connect(client_id=b"\xff"))
@example(data=connect(flags=0x82, rest=field(b"\xc0\x80")))
def test_no_first_bytes_raise(gate: Gate, data: bytes) -> None:
    """From the first byte of a connection on, whatever comes, the session answers or ends."""
    session = gate.session()
    feed(session, gate.clock, data)
    check(session)
    gate.intake.commit()


@given(data=streams)
@example(data=raw_publish(topic=b"\xff"))
@example(data=raw_publish(properties=b"\x03" + field(b"\xed\xa0\x80")))
def test_no_bytes_in_a_session_raise(gate: Gate, data: bytes) -> None:
    """The same behind a right CONNECT."""
    session = gate.live()
    feed(session, gate.clock, data)
    check(session)
    gate.intake.commit()


@given(data=streams, cuts=st.lists(st.integers(1, 40), max_size=30))
def test_how_the_bytes_are_cut_changes_nothing(gate: Gate, data: bytes, cuts: list[int]) -> None:
    """Whole or in any pieces, the same bytes get the same answers and the same end."""
    data = data.replace(sign(), FORGED)  # nothing is claimed, so the second reading meets what the first met
    whole, pieces = gate.live(), gate.live()
    for session in (whole, pieces):
        session.phase = Phase.LIVE  # the second session took the first one over
        session.farewell, session.ended_because = b"", ""
    assert whole.caller is not None
    device = whole.caller.known
    device.brake = Brake()  # nor does either meet a device that was refused too often before
    feed(whole, gate.clock, data)
    device.brake = Brake()
    at = 0
    for size in cuts:
        feed(pieces, gate.clock, data[at : at + size])
        at += size
    feed(pieces, gate.clock, data[at:])
    gate.intake.commit()
    assert (whole.out, whole.acks, whole.farewell, whole.phase, whole.ended_because) == (
        pieces.out, pieces.acks, pieces.farewell, pieces.phase, pieces.ended_because,
    )  # fmt: skip
