"""Decides how an attack reaches the gate: identity, numbers, pace, and that every message ends in the ledger.

A gate that goes away is waited for, and what got no answer is sent again; an attack ends when it is through or when
its time is up. What is hostile is each attack's own.
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from fleetsim import encode
from fleetsim.answers import HTTP_ITEMS
from fleetsim.attackers import wire
from fleetsim.bundle import Bundle, tls_context
from fleetsim.clock import Clock
from fleetsim.encode import Event
from fleetsim.gate import Gate
from fleetsim.https_agent import CONTENT_TYPES, read_items
from fleetsim.ledger import HONEST, Ledger

RETRY_S = 0.3
# The share of its time that an attack takes for its messages, so that a gate killed in between is met by most kinds.
SPREAD = 0.4

GONE = (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError)


@dataclass
class Shot:
    """One message of an attacker, and what the gate said."""

    raw: bytes
    kind: str
    expect: str
    topic: str
    epoch: int | None = None
    seq: int | None = None
    enc: int | None = None
    sent_at: int | None = None
    events: int = 0
    body: bytes | None = None
    ref: int | None = None
    answer: str | None = None


class Stage:
    """What an attack has to work with. `other` is another vehicle's bundle, for the kinds that need one."""

    def __init__(
        self,
        kind: str,
        bundle: Bundle,
        other: Bundle | None,
        gate: Gate,
        ledger: Ledger,
        clock: Clock,
        rng: random.Random,
        seconds: float,
    ) -> None:
        self.kind, self.bundle, self.other = kind, bundle, other
        self.mqtt, self.https = gate.mqtt, gate.https
        self.ledger, self.clock, self.rng, self.seconds = ledger, clock, rng, seconds
        self.context = tls_context(bundle, gate.server_name)
        self.epoch = 0
        self._next_seq = 0
        self._offset_ms = 0.0
        self._deadline_ms = clock.now_ms() + seconds * 1000

    @property
    def time_left(self) -> bool:
        """False when the attack must end."""
        return self.clock.now_ms() < self._deadline_ms

    def now_ms(self) -> int:
        """The gate's time, as it said when we last connected."""
        return int(self.clock.now_ms() + self._offset_ms)

    def pace_s(self, count: int) -> float:
        """The pause between `count` messages that spreads them over the attack's time."""
        return self.seconds * SPREAD / max(1, count)

    def seq(self) -> int:
        """A number of the present epoch that was not used yet."""
        self._next_seq += 1
        return self._next_seq - 1

    async def begin(self, above: int = 1) -> None:
        """Connect once, set the clock, and open an epoch `above` the gate's."""
        session = await self.connect()
        if session is not None:
            self.epoch, self._next_seq = max(self.epoch, session.epoch) + above, 0
            await session.close()

    async def connect(self) -> wire.Session | None:
        """A session, waiting for a gate that is away; None when time is up. Raises RefusedError."""
        while self.time_left:
            try:
                session = await wire.open_session(self.mqtt, self.context, self.bundle.device_id)
            except wire.RefusedError as refused:
                if refused.code != 0x88:  # 0x88: the gate cannot say yet who we are
                    raise
            except GONE as gone:
                if wire.turned_away(gone):
                    raise wire.RefusedError(wire.TLS_ALERT) from None
            else:
                self._offset_ms = session.now_ms - self.clock.now_ms()
                return session
            await self.clock.sleep(RETRY_S)
        return None

    def honest(self) -> Shot:
        """A valid message under the next number."""
        return self.shot(kind=HONEST, expect="accepted", config="cfg-0001")

    def shot(
        self,
        *,
        kind: str | None = None,
        expect: str,
        key: bytes | None = None,
        epoch: int | None = None,
        seq: int | None = None,
        sent_at: int | None = None,
        enc: int = 1,
        body: bytes | None = None,
        config: str | None = None,
        topic: str | None = None,
    ) -> Shot:
        """A message that is signed properly but for what is given; hostile ones say so in `config`."""
        kind = kind or self.kind
        if body is None:
            speed = round(self.rng.uniform(0, 120), 2)
            event = Event(0, "sample", {1: speed, 13: 55.5}, {})
            body = encode.encode_body(enc, encode.Body("2026.44.1", config or f"attack:{kind}", [event]))
        epoch = self.epoch if epoch is None else epoch
        seq = self.seq() if seq is None else seq
        sent_at = self.now_ms() if sent_at is None else sent_at
        raw = encode.sign(
            key or self.bundle.mac_key, kid=self.bundle.kid, epoch=epoch, seq=seq, sent_at=sent_at, enc=enc, body=body
        )
        return Shot(raw, kind, expect, topic or self.bundle.topic, epoch, seq, enc, sent_at, 1, body)

    async def deliver(self, shots: Sequence[Shot], *, pause_s: float = 0.0, repeat_limited: bool = True) -> None:
        """Send until each has an answer or time is up, over as many connections as it takes.

        With a pause one at a time, without as many as the gate's Receive Maximum allows. Raises RefusedError.
        """
        pending = deque(shots)
        while pending and (session := await self.connect()) is not None:
            try:
                await self._exchange(session, pending, pause_s, repeat_limited)
            except GONE:
                await self.clock.sleep(RETRY_S)
            finally:
                await session.close()
                pending = deque(shot for shot in shots if shot.answer is None)

    async def _exchange(
        self, session: wire.Session, pending: deque[Shot], pause_s: float, repeat_limited: bool
    ) -> None:
        window = 1 if pause_s else session.receive_maximum
        free = deque(range(1, window + 1))
        in_flight: dict[int, Shot] = {}
        while (pending or in_flight) and self.time_left:
            while pending and free:
                packet_id, shot = free.popleft(), pending.popleft()
                in_flight[packet_id] = shot
                self.record_sent(shot, "mqtt")
                session.publish(shot.topic, shot.raw, packet_id)
            packet_id, label = await session.puback()
            if packet_id not in in_flight:
                raise ConnectionError(f"PUBACK for {packet_id}, which was not sent")
            shot = in_flight.pop(packet_id)
            free.append(packet_id)
            if label == "rate_limited" and repeat_limited:
                pending.append(shot)
                await self.clock.sleep(RETRY_S)
                continue
            self.record_answer(shot, label)
            if pause_s:
                await self.clock.sleep(pause_s)

    async def post(self, shots: Sequence[Shot]) -> int | None:
        """Send as one HTTPS batch until the gate answers; returns the status, or None when time is up.

        Raises RefusedError.
        """
        body = encode.batch([shot.raw for shot in shots], "msgpack")
        while self.time_left:
            for shot in shots:
                self.record_sent(shot, "https")
            try:
                status, answer = await wire.post(self.https, self.context, body, CONTENT_TYPES["msgpack"])
            except GONE as gone:
                if wire.turned_away(gone):
                    raise wire.RefusedError(wire.TLS_ALERT) from None
                status, answer = 503, b""
            if status == HTTP_ITEMS:
                with contextlib.suppress(ValueError):
                    for shot, item in zip(shots, read_items(answer, "msgpack"), strict=True):
                        self.record_answer(shot, item.label)
                return status
            if status not in (429, 503):
                for shot in shots:
                    self.record_answer(shot, f"http_{status}")
                return status
            await self.clock.sleep(RETRY_S)
        return None

    def record_sent(self, shot: Shot, transport: str) -> None:
        """Write the shot into the ledger when it first goes out, and count every time."""
        if shot.ref is None:
            shot.ref = self.ledger.message(
                self.bundle,
                shot.raw,
                kind=shot.kind,
                transport=transport,
                expect=shot.expect,
                epoch=shot.epoch,
                seq=shot.seq,
                enc=shot.enc,
                sent_at=shot.sent_at,
                events=shot.events,
                body=shot.body,
            )
        self.ledger.sent(shot.ref)

    def record_answer(self, shot: Shot, label: str) -> None:
        """The gate's answer to a shot."""
        shot.answer = label
        if shot.ref is not None:
            self.ledger.answered(shot.ref, label)

    def record_attempt(self, answer: str) -> None:
        """A hostile connection and how it ended."""
        self.ledger.attempt(self.bundle, self.kind, answer)
