"""Decides the attacks by content: malformed_envelope, malformed_body and oversized.

The gate's side of it is its limits and steps 1 and 6 of the judge. Each mutation leaves everything else valid.
"""

import struct
from collections.abc import Callable

from fleetsim import encode
from fleetsim.attackers import wire
from fleetsim.attackers.stage import GONE, RETRY_S, Shot, Stage
from fleetsim.encode import Event

MESSAGES = 36
AFTERWARDS = 6
ATTEMPTS = 6
_INF, _NAN = float("inf"), float("nan")


def _element(index: int, value: object) -> Callable[[list[object], bytes], bytes]:
    return lambda parts, raw: encode.pack([*parts[:index], value, *parts[index + 1 :]])


# From (the eight elements, the valid bytes) to bytes that are no envelope.
ENVELOPES: tuple[Callable[[list[object], bytes], bytes], ...] = (
    lambda parts, raw: encode.pack(parts[:7]),
    lambda parts, raw: encode.pack([*parts, 0]),
    lambda parts, raw: b"\xdc\x00\x08" + raw[1:],
    lambda parts, raw: raw + b"\x00",
    lambda parts, raw: raw[:-1],
    lambda parts, raw: raw[: len(raw) // 2],
    lambda parts, raw: b"",
    lambda parts, raw: encode.pack(dict(enumerate(parts))),
    lambda parts, raw: encode.encode_envelope(encode.decode_envelope(raw), "json"),  # not over MQTT
    _element(1, 2**32),
    _element(1, 1.0),
    _element(2, True),
    _element(3, 2**63),
    _element(3, -1),
    _element(4, 2**63),
    _element(5, 0),
    _element(5, 4),
    _element(6, "text"),
    _element(6, b""),
    _element(6, [[[]]]),
    _element(7, bytes(15)),
    _element(7, bytes(17)),
    _element(7, None),
)


async def malformed_envelope(stage: Stage) -> None:
    """Every way to be no envelope, each around content that is properly signed."""
    await stage.begin()
    shots = []
    for i in range(MESSAGES):
        shot = stage.shot(expect="malformed_envelope")
        envelope = encode.decode_envelope(shot.raw)
        parts: list[object] = [getattr(envelope, name) for name in envelope.__struct_fields__]
        shot.raw = ENVELOPES[i % len(ENVELOPES)](parts, shot.raw)
        shots.append(shot)
    await stage.deliver(shots, pause_s=stage.pace_s(MESSAGES))


def _rows(*events: object) -> bytes:
    return encode.pack(["2026.44.1", "attack:malformed_body", list(events)])


def _json(event: str) -> bytes:
    return b'{"software":"2026.44.1","config":"attack:malformed_body","events":[%s]}' % event.encode()


def _columns(n: object, at: bytes, columns: object) -> bytes:
    return encode.pack(["2026.44.1", "attack:malformed_body", "sample", n, at, columns])


_TWO = struct.pack("<2i", -1, 0)
# (enc, body): each breaks one rule of sections 4 and 5.
BODIES: tuple[tuple[int, bytes], ...] = (
    (1, b"\xc1"),
    (1, _rows()),
    (1, _rows([0, "sample", {}, {}])),
    (1, _rows([1, "sample", {1: 1.0}, {}])),
    (1, _rows([encode.OLDEST_AT_MS - 1, "sample", {1: 1.0}, {}])),
    (1, _rows([0, "teleport", {1: 1.0}, {}])),
    (1, _rows([0, "sample", {1: _NAN}, {}])),
    (1, _rows([0, "sample", {1: _INF}, {}])),
    (1, _rows([0, "sample", {1: "fast"}, {}])),
    (1, _rows([0, "sample", {1: 1.0, "Vehicle.Speed": 2.0}, {}])),
    (1, _rows([0, "sample", {1: {1: {1: 1.0}}}, {}])),
    (1, _rows([0, "sample", dict.fromkeys(range(1, 300), 1.0), {}])),
    (1, _rows([0, "sample", {1: 1.0}, {44: "x" * 300}])),
    (1, _rows([0, "sample", {1: 1.0}])),
    (1, _rows(*[[0, "sample", {1: 1.0}, {}]] * 1_001)),
    (1, _rows([0, "sample", {1: 1.0}, {}]) + b"\x00"),
    (1, b"\x91" * 10_000),
    (2, b"{"),
    (2, _json('{"at":0,"kind":"sample","signals":{"Vehicle.Speed":NaN}}')),
    (2, _json('{"at":0,"kind":"sample","signals":{"Vehicle.Speed":1e999}}')),
    (2, _json('{"at":0,"kind":"sample","signals":{"Vehicle.Speed":1},"more":1}')),
    (2, _json('{"at":0.5,"kind":"sample","signals":{"Vehicle.Speed":1}}')),
    (2, _json('{"at":5,"kind":"sample","signals":{"Vehicle.Speed":1}}')),
    (2, b"[" * 10_000),
    (3, _columns(2, _TWO, {1: [1, bytes(4)]})),
    (3, _columns(3, _TWO, {1: [1, bytes(8)]})),
    (3, _columns(2, _TWO, {1: [3, bytes(8)]})),
    (3, _columns(2, _TWO, {1: [1, struct.pack("<2f", 1, _INF)]})),
    (3, _columns(2, struct.pack("<2i", 0, 9), {1: [1, bytes(8)]})),
    (3, _columns(0, b"", {})),
    (3, _columns(2**31, _TWO, {1: [1, bytes(8)]})),
)


async def malformed_body(stage: Stage) -> None:
    """Every way to be no body, each properly signed."""
    await stage.begin()
    shots = []
    for i in range(MESSAGES):
        enc, body = BODIES[i % len(BODIES)]
        shots.append(stage.shot(expect="malformed_body", enc=enc, body=body))
    await stage.deliver(shots, pause_s=stage.pace_s(MESSAGES + AFTERWARDS))
    # In quarantine by now, and not told: what it sends properly is acknowledged and held.
    await stage.deliver([stage.honest() for _ in range(AFTERWARDS)], pause_s=stage.pace_s(MESSAGES + AFTERWARDS))


async def oversized(stage: Stage) -> None:
    """Packets over 68 KiB and requests over 1 MiB or 500 envelopes; the connection is what is counted."""
    await stage.begin()
    doors = (_packet, _request, _batch)
    done = 0
    while done < ATTEMPTS and stage.time_left:
        answer = await doors[done % len(doors)](stage)
        if answer is None:
            await stage.clock.sleep(RETRY_S)
            continue
        stage.record_attempt(answer)
        done += 1
        await stage.clock.sleep(stage.pace_s(ATTEMPTS))


def _large(stage: Stage, size: int) -> Shot:
    event = Event(0, "heartbeat", {}, {f"T{i}": "x" * 256 for i in range(size // 256)})
    body = encode.encode_body(1, encode.Body("2026.44.1", "attack:oversized", [event]))
    return stage.shot(expect="refused", body=body)


async def _packet(stage: Stage) -> str | None:
    session = await stage.connect()
    if session is None:
        return None
    shot = _large(stage, 72 * 1024)
    stage.record_sent(shot, "mqtt")
    try:
        session.publish(shot.topic, shot.raw, 1)
        _, label = await session.puback()
    except wire.EndedError as ended:
        label = "oversized" if ended.code == 0x95 else f"disconnect_{ended.code:#04x}"
    except GONE:
        label = "closed"
    finally:
        await session.close()
    stage.record_answer(shot, label)
    return label


async def _request(stage: Stage) -> str | None:
    status = await stage.post([_large(stage, 1_100_000)])
    return None if status is None else f"http_{status}"


async def _batch(stage: Stage) -> str | None:
    status = await stage.post([stage.shot(expect="refused") for _ in range(501)])
    return None if status is None else f"http_{status}"
