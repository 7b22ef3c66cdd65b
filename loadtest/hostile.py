"""Decides what the attackers of a load test send: eight kinds, each a way to spoil a message that was valid.

Bytes only; when they are sent, and over what, is `users.attacker`'s. The mutations are those of `fleetsim.attackers`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from fleetsim import encode
from fleetsim.attackers.content import BODIES, ENVELOPES
from fleetsim.bundle import Device
from fleetsim.encode import Body, Event

HOUR_MS = 3_600_000


class Shot(NamedTuple):
    """One message: its bytes, its topic, and the number it claims."""

    raw: bytes
    topic: str
    epoch: int
    seq: int


class Arms:
    """A hostile device between two messages: its credential, its numbers, and what it sent last."""

    def __init__(self, device: Device, rng: random.Random, now_s: Callable[[], float]) -> None:
        self.device, self.rng = device, rng
        self.epoch = self.sent = 0
        self.last: Shot | None = None
        self._now_s = now_s

    def begin(self, gate_epoch: int) -> None:
        """A session: an epoch above the gate's, and numbers from 0."""
        self.epoch, self.sent, self.last = max(self.epoch, gate_epoch) + 1, 0, None

    def honest(self) -> Shot:
        """A valid message, which some kinds need before they can do harm."""
        self.last = self.signed()
        return self.last

    def signed(
        self,
        *,
        key: bytes | None = None,
        seq: int | None = None,
        ahead_ms: int = 0,
        topic: str | None = None,
        content: tuple[int, bytes] | None = None,
    ) -> Shot:
        """Properly signed, but for what is given. It says in `config` that it is an attack."""
        if seq is None:
            seq, self.sent = self.sent, self.sent + 1
        event = Event(0, "sample", {13: round(self.rng.uniform(20, 80), 3)}, {})
        enc, body = content or (encode.ROWS_MSGPACK, encode.pack(Body("2026.44.1", "attack:loadtest", [event])))
        raw = encode.sign(
            key or self.device.mac_key,
            kid=self.device.kid,
            epoch=self.epoch,
            seq=seq,
            sent_at=int(self._now_s() * 1000) + ahead_ms,
            enc=enc,
            body=body,
        )
        return Shot(raw, topic or self.device.topic, self.epoch, seq)


class Kind(NamedTuple):
    """`make` gives the next hostile message; `caught` are the answers that stop it. `burst` go out at once, every
    `pause_s`. One that `needs_honest` wants a valid message accepted before it."""

    name: str
    make: Callable[[Arms], Shot]
    caught: frozenset[str]
    burst: int = 1
    pause_s: float = 0.5
    needs_honest: bool = False


def _forged_mac(arms: Arms) -> Shot:
    return arms.signed(key=arms.rng.randbytes(32))


def _other_tenant(arms: Arms) -> Shot:
    return arms.signed(topic=f"fleet/v1/not-{arms.device.tenant}/{arms.device.device_id}/telemetry")


def _malformed_envelope(arms: Arms) -> Shot:
    shot = arms.signed()
    envelope = encode.decode_envelope(shot.raw)
    parts: list[object] = [getattr(envelope, name) for name in envelope.__struct_fields__]
    return shot._replace(raw=ENVELOPES[shot.seq % len(ENVELOPES)](parts, shot.raw))


def _malformed_body(arms: Arms) -> Shot:
    return arms.signed(content=BODIES[arms.sent % len(BODIES)])


def _future_clock(arms: Arms) -> Shot:
    return arms.signed(ahead_ms=HOUR_MS)


def _replay(arms: Arms) -> Shot:
    assert arms.last is not None
    return arms.last


def _equivocation(arms: Arms) -> Shot:
    assert arms.last is not None
    return arms.signed(seq=arms.last.seq)


KINDS = (
    Kind("forged_mac", _forged_mac, frozenset({"bad_mac"})),
    Kind("other_tenant", _other_tenant, frozenset({"identity_mismatch"})),
    Kind("malformed_envelope", _malformed_envelope, frozenset({"malformed_envelope"})),
    Kind("malformed_body", _malformed_body, frozenset({"malformed_body"})),
    Kind("future_clock", _future_clock, frozenset({"clock_ahead"})),
    Kind("replay", _replay, frozenset({"duplicate"}), needs_honest=True),
    Kind("equivocation", _equivocation, frozenset({"equivocation"}), needs_honest=True),
    # What a flood sends is valid: the gate may take it, up to its limits. Whether others suffer is in their latency.
    Kind("flood", Arms.signed, frozenset({"accepted", "rate_limited"}), burst=100, pause_s=0.2),
)
