"""Case judge: `judge()` alone, in process, beside its floor.

The floor is what nobody can leave out: the bare decode of the envelope, the HMAC over header and body, the validated
decode of the body, of the same bytes in the same run. One event of 8 signals in each message, by number. Garbage is a
third each of random bytes, of real messages cut off, and of envelopes with a wrong type in one place. What is measured
is what it is taken for: before the clock starts every good message is accepted, every other one refused.
"""

from __future__ import annotations

import gc
import hmac
import os
import random
import struct
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
from loadtest.bench.processes import BenchError

from fleetgate.catalogue import catalogue
from fleetgate.judge import Credential, Device, Outcome, Peer, Policy, Reason, claim, judge
from fleetgate.judge.body import NumberedRows
from fleetgate.judge.envelope import Envelope
from fleetgate.judge.keys import MacKeys, derive_mac_key

MESSAGES = 2_000
ROUNDS = 9
_NOW = 1_800_000_000_000
_CONTEXT = b"fleetgate/v1 mac\x00"
_header = struct.Struct(">BBIIQq").pack
_encode = msgspec.msgpack.encode


def rounds(count: int) -> list[dict[str, float]]:
    """The figures of each round by name: accepted, floor, forged and garbage right after one another."""
    root, digest = os.urandom(32), os.urandom(32)
    key = derive_mac_key(root, "acme", "bench-tcu", digest)
    policy = Policy("bench", catalogue().bodies)
    body = _encode(["2026.44.1", "cfg-7f3a", [[-250, "sample", {n: 50.25 + n for n in range(1, 9)}, {}]]])
    good = [_envelope(key, seq, body) for seq in range(MESSAGES)]
    forged = [_envelope(b"x" * 32, seq, body) for seq in range(MESSAGES)]
    garbage = [_garbage(index, raw) for index, raw in enumerate(good)]
    check({"accepted": good, "forged": forged, "garbage": garbage}, lambda: _peer(root, digest), policy)

    def accepted() -> float:
        peer = _peer(root, digest)

        def one(raw: bytes) -> None:
            verdict = judge(raw, peer, _NOW, policy, peer.topic)
            claim(verdict, peer.device, _NOW)

        return _each(one, good)

    peer = _peer(root, digest)

    def one_round() -> dict[str, float]:
        accepted_us, floor_us = accepted(), _each(_floor(key), good)
        return {
            "accepted_us": accepted_us,
            "floor_us": floor_us,
            "ratio_to_floor": accepted_us / floor_us,
            "forged_us": _each(lambda raw: judge(raw, peer, _NOW, policy, peer.topic), forged),
            "garbage_us": _each(lambda raw: judge(raw, peer, _NOW, policy, peer.topic), garbage),
        }

    return [one_round() for _ in range(count)]


_EXPECTED = {
    "accepted": (Outcome.ACCEPTED, None),
    "forged": (Outcome.REJECTED, Reason.BAD_MAC),
    "garbage": (Outcome.REJECTED, Reason.MALFORMED_ENVELOPE),
}


def check(messages: Mapping[str, Sequence[bytes]], new_peer: Callable[[], Peer], policy: Policy) -> None:
    """Raises BenchError unless the judge says of each message what is expected of its kind."""
    for kind, raws in messages.items():
        peer = new_peer()
        for raw in raws:
            verdict = judge(raw, peer, _NOW, policy, peer.topic)
            if (verdict.outcome, verdict.reason) != _EXPECTED[kind]:
                raise BenchError(f"a message meant as {kind} is {verdict.outcome.name}, {verdict.reason}")
            if verdict.outcome is Outcome.ACCEPTED:
                claim(verdict, peer.device, _NOW)


_random = random.Random(1)  # noqa: S311  the same garbage at every run


def _garbage(index: int, good: bytes) -> bytes:
    if index % 3 == 0:
        return _random.randbytes(len(good))
    if index % 3 == 1:
        return good[: _random.randrange(1, len(good))]
    elements = msgspec.msgpack.decode(good)
    elements[_random.randrange(len(elements))] = "no"
    return _encode(elements)


def _floor(key: bytes) -> Callable[[bytes], object]:
    decode = msgspec.msgpack.Decoder(Envelope).decode
    decode_body = msgspec.msgpack.Decoder(NumberedRows).decode
    keyed = hmac.new(key, _CONTEXT, "sha256")

    def floor(raw: bytes) -> object:
        e = decode(raw)
        mac = keyed.copy()
        mac.update(_header(e.v, e.enc, e.kid, e.epoch, e.seq, e.sent_at) + e.body)
        return hmac.compare_digest(mac.digest()[:16], e.tag) and decode_body(e.body)

    return floor


def _each(call: Callable[[bytes], object], messages: list[bytes]) -> float:
    """Microseconds of CPU for each message."""
    gc.collect()
    started = time.process_time()
    for raw in messages:
        call(raw)
    return (time.process_time() - started) / len(messages) * 1e6


def _peer(root: bytes, digest: bytes) -> Peer:
    credential = Credential(digest, b"f" * 32, MacKeys({1: root}, "acme", "bench-tcu", digest))
    return Peer(Device("acme", "bench-tcu", "bench"), credential, json_allowed=False)


def _envelope(key: bytes, seq: int, body: bytes) -> bytes:
    tag = hmac.digest(key, _CONTEXT + _header(1, 1, 1, 1, seq, _NOW) + body, "sha256")[:16]
    return _encode([1, 1, 1, seq, _NOW, 1, body, tag])
