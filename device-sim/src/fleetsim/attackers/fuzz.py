"""Decides the fuzz: seeded garbage at four levels, TLS, MQTT, HTTP and the envelope.

Every base is invalid for good before it is bent, so that no bent copy of it can ever be accepted. What is counted is
connections; the envelopes also stand in the ledger one by one.
"""

import asyncio
import random
from collections.abc import Callable

from fleetsim.attackers import wire
from fleetsim.attackers.stage import GONE, RETRY_S, Shot, Stage

# The first round has as many as a quarantine needs, so that a short run is no weaker.
ENVELOPES = (32, 8, 8)
# How long an answer is waited for at most; in a short run less, or the rounds would not fit.
LISTEN_S, LISTEN_SHARE = 0.25, 1 / 150

_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(32) + b"\x20" + bytes(32)
_REQUEST = (
    b"POST /v1/telemetry HTTP/1.1\r\nHost: gate\r\nContent-Type: application/vnd.fleetgate.v1+msgpack\r\n"
    b"Content-Length: 9\r\n\r\n\x98\x01\x01\x01\x00\x00\x01\xc4\x00"
)


async def fuzz(stage: Stage) -> None:
    """All levels, several rounds."""
    await stage.begin()
    for count in ENVELOPES:
        await _envelopes(stage, count)
        for level in (_tls, _mqtt, _http):
            await level(stage)
            await stage.clock.sleep(stage.pace_s(len(ENVELOPES) * 3))


def bend(rng: random.Random, raw: bytes) -> bytes:
    """A few bytes changed, cut out, put in, or repeated."""
    out = bytearray(raw)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0 if at < len(out):
                out[at] = rng.randrange(256)
            case 1:
                del out[at : at + rng.randint(1, 8)]
            case 2:
                out[at:at] = rng.randbytes(rng.randint(1, 16))
            case _:
                out[at:at] = out[at : at + rng.randint(1, 64)]
    return bytes(out)


async def _tls(stage: Stage) -> None:
    """Bytes where a ClientHello belongs."""
    rng = stage.rng
    for raw in (rng.randbytes(300), bend(rng, _HELLO), b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff"):
        await _throw(stage, stage.mqtt if rng.random() < 0.5 else stage.https, raw, encrypted=False)


async def _mqtt(stage: Stage) -> None:
    """Packets that are none, before and after a proper CONNECT."""
    rng, hello = stage.rng, wire.connect_packet(stage.bundle.device_id)
    hopeless = wire.publish_packet(stage.bundle.topic, bytes(60), 1)
    bad_text = wire.connect_packet("x").replace(b"\x00\x01x", b"\x00\x02\xff\xfe")
    garbage = (
        rng.randbytes(rng.randint(1, 500)),
        bend(rng, hello),
        bad_text,
        hello + bend(rng, hopeless),
        hello + hello,
        hello + b"\x30\xff\xff\xff\xff\x7f",
        hello + wire.publish_packet("a" * 300, b"", 0),
        hello + bytes([rng.randrange(256)]) + b"\x02" + rng.randbytes(2),
    )
    for raw in garbage:
        await _throw(stage, stage.mqtt, raw)


async def _http(stage: Stage) -> None:
    """Requests that are none, and requests that say two things at once."""
    rng = stage.rng
    garbage = (
        rng.randbytes(rng.randint(1, 500)),
        bend(rng, _REQUEST),
        _REQUEST.replace(b"Content-Length: 9", b"Content-Length: -1"),
        _REQUEST.replace(b"Content-Length: 9", b"Content-Length: 9\r\nTransfer-Encoding: chunked"),
        _REQUEST.replace(b"HTTP/1.1", b"HTTP/9.9"),
        b"POST /v1/telemetry HTTP/1.1\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
    )
    for raw in garbage:
        await _throw(stage, stage.https, raw)


async def _envelopes(stage: Stage, count: int) -> None:
    """Garbage where an envelope belongs, over an ordinary session."""
    base = stage.shot(expect="malformed_envelope").raw
    # An array of seven: whatever is bent besides, no array of eight begins with these bytes.
    make: tuple[Callable[[], bytes], ...] = (
        lambda: b"\x97" + bend(stage.rng, base[1:]),
        lambda: b"\xc1" + stage.rng.randbytes(stage.rng.randint(0, 400)),
        lambda: b"\x98" * stage.rng.randint(2, 2_000),
        lambda: b"{" + stage.rng.randbytes(stage.rng.randint(0, 400)),
    )
    shots = [Shot(make[i % len(make)](), stage.kind, "malformed_envelope", stage.bundle.topic) for i in range(count)]
    try:
        await stage.deliver(shots)
    except wire.RefusedError as refused:
        stage.record_attempt(refused.label)
    else:
        stage.record_attempt("refused" if all(s.answer != "accepted" for s in shots) else "accepted")


async def _throw(stage: Stage, address: tuple[str, int], raw: bytes, *, encrypted: bool = True) -> None:
    """One connection, waiting for the gate if it is away; what it answers is read and not understood."""
    while stage.time_left:
        try:
            streams = await wire.open_tls(address, stage.context if encrypted else None)
        except GONE:
            await stage.clock.sleep(RETRY_S)
            continue
        try:
            streams.writer.write(raw)
            async with asyncio.timeout(min(LISTEN_S, stage.seconds * LISTEN_SHARE)):
                await streams.drained()
            answer = "closed"
        except TimeoutError:
            answer = "left"  # the gate waits for more: its own deadline would end it, ours comes first
        except GONE:
            answer = "closed"
        finally:
            await streams.close()
        stage.record_attempt(answer)
        return
