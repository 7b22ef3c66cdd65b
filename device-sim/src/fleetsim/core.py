"""Decides everything a device does, without touching a socket, a disk or a clock.

The rules of schemas/envelope.md, section 1, and the reactions of `answers`: epochs, numbers, signatures, the outbox
and its order, the 512 limit, when to be silent and when to come back. A driver (an agent, a swarm) asks `take()`
what to send, reports what happened, and waits as long as `pace` says. The journal makes things durable; the
book is told of everything and decides nothing.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush

from fleetsim import encode
from fleetsim.answers import (
    CONNACK_STOPS,
    DISCONNECT_STOPS,
    DISCONNECT_TOO_LARGE,
    Answer,
    Reaction,
)
from fleetsim.bundle import Device
from fleetsim.encode import Event, Form
from fleetsim.outbox import Book, Draft, Entry, Key, Store
from fleetsim.pace import Pace

# "A device keeps at most 512 messages unacknowledged": half of the gate's ring of 1,024.
OUTBOX_LIMIT = 512
# The gate's Receive Maximum. MQTT 5 says 65,535 where CONNACK is silent; a device has no use for more than this.
MAX_IN_FLIGHT = 128
MAX_PACKET_BYTES = 68 * 1024
MAX_BATCH_ITEMS = 500
# A clock nearer to the gate's than this is left alone: the difference is mostly the road the answer took.
CLOCK_TOLERANCE_MS = 500


class DeviceCore:
    """One device. Times are Unix milliseconds; `now_ms` is the device's own clock, right or wrong."""

    def __init__(
        self,
        bundle: Device,
        store: Store,
        book: Book,
        now_ms: Callable[[], float],
        rng: random.Random,
        *,
        form: Form = "msgpack",
        packet_overhead: int = 0,
    ) -> None:
        self.bundle = bundle
        self.epoch = 0  # 0: none opened in this process
        self.max_in_flight = MAX_IN_FLIGHT
        self.max_packet_bytes = MAX_PACKET_BYTES
        self.batch_items = MAX_BATCH_ITEMS
        self.pace = Pace(now_ms, rng)
        self.wants_renewal = False  # the gate does not know this device's certificate or key
        self._store, self._book, self._now_ms = store, book, now_ms
        self._form: Form = form
        self._overhead = packet_overhead
        # The gate's time minus ours, None while the clock is not set. Whole milliseconds, so that the distances of
        # events survive it exactly.
        self._offset_ms: int | None = None
        self._next_seq = 0
        self._epoch_ticket = 0
        self._again: deque[Draft] = deque()  # from the outbox, so never more than it held
        self._in_flight: set[Key] = set()
        self._last_epoch, kept = store.load(bundle.name)
        # A recovered message may have been sent before: until it is answered, the gate may have it.
        self.outbox: dict[Key, Entry] = {}
        for epoch, seq, raw in kept:
            sent_at, enc = _described(raw)
            entry = Entry(epoch, seq, sent_at, enc, raw, ticket=0, doubtful=True)
            entry.ref = book.recovered(bundle, entry)
            self.outbox[entry.key] = entry
        self._ready: list[Key] = list(self.outbox)  # a heap; ascending is one already

    # -- what the driver asks -----------------------------------------------------------------------------------

    @property
    def needs_clock(self) -> bool:
        """True until the gate has told the time (and again after a message was refused as from the future)."""
        return self._offset_ms is None

    def gate_ms(self) -> float | None:
        """What time it is for the gate; None while the clock is not set."""
        return None if self._offset_ms is None else self._now_ms() + self._offset_ms

    @property
    def in_flight(self) -> int:
        """Messages sent on this connection and not answered."""
        return len(self._in_flight)

    @property
    def open_messages(self) -> int:
        """Messages without an answer, and events that wait for a second number."""
        return len(self.outbox) + len(self._again)

    @property
    def awaits_disk(self) -> bool:
        """True while the epoch or a message that could be sent is not durable yet."""
        if self._epoch_ticket > self._store.durable:
            return True
        return bool(self._ready) and self.outbox[self._ready[0]].ticket > self._store.durable

    @property
    def can_sign(self) -> bool:
        """True when a number may be given out: clock set, epoch durable, oldest message less than 512 behind."""
        if self._offset_ms is None or not self.epoch or self._epoch_ticket > self._store.durable:
            return False
        if not self.outbox:
            return True
        oldest_epoch, oldest_seq = next(iter(self.outbox))
        behind = self._next_seq - oldest_seq if oldest_epoch == self.epoch else 0
        return behind < OUTBOX_LIMIT and len(self.outbox) < OUTBOX_LIMIT

    def submit(self, draft: Draft) -> bool:
        """Sign a draft into the outbox; False (and nothing done) if no number may be given out now.

        Events that are older than 30 days (24 in columns) cannot be said any more and are left out.
        """
        if self._again and draft is not self._again[0]:
            return False  # what waits for a second number goes first
        if not self.can_sign:
            return False
        assert self._offset_ms is not None
        now = int(self._now_ms())
        body = _body_at(draft, now)
        if not body.events:
            return True
        raw_body = encode.encode_body(draft.enc, body)
        sent_at = now + self._offset_ms
        epoch, seq = self.epoch, self._next_seq
        raw = encode.sign(
            self.bundle.mac_key,
            kid=self.bundle.kid,
            epoch=epoch,
            seq=seq,
            sent_at=sent_at,
            enc=draft.enc,
            body=raw_body,
            form=self._form,
        )
        self._next_seq += 1
        ticket = self._store.keep(self.bundle.name, epoch, seq, raw)
        entry = Entry(epoch, seq, sent_at, draft.enc, raw, ticket, signed_ms=now, offset_ms=self._offset_ms)
        entry.ref = self._book.signed(self.bundle, entry, raw_body, len(body.events))
        self.outbox[entry.key] = entry
        heappush(self._ready, entry.key)
        return True

    def take(self) -> Entry | None:
        """The next message to put on the wire, in the order of (epoch, seq), or None for now."""
        while self._again and self.submit(self._again[0]):
            self._again.popleft()
        if self._offset_ms is None or self._now_ms() < self.pace.quiet_until_ms:
            return None
        while self._ready and len(self._in_flight) < self.max_in_flight:
            entry = self.outbox[self._ready[0]]
            if entry.ticket > self._store.durable:
                return None
            heappop(self._ready)
            if len(entry.raw) + self._overhead > self.max_packet_bytes:
                self._forget(entry, "oversized", "dropped")
                continue
            self._in_flight.add(entry.key)
            self._book.sent(entry)
            return entry
        return None

    # -- what the driver reports --------------------------------------------------------------------------------

    def connected(
        self, gate_epoch: int = 0, receive_maximum: int | None = None, max_packet_bytes: int | None = None
    ) -> None:
        """A connection is up; the arguments are CONNACK's. The first one of a process opens the epoch."""
        self.max_in_flight = min(receive_maximum or MAX_IN_FLIGHT, MAX_IN_FLIGHT)
        self.max_packet_bytes = max_packet_bytes or MAX_PACKET_BYTES
        if not self.epoch:
            self._open_epoch(max(self._last_epoch, gate_epoch) + 1)

    def told_time(self, gate_now_ms: float, tolerance_ms: float = CLOCK_TOLERANCE_MS) -> None:
        """The gate's time, from CONNACK `now` or HTTP `Date`."""
        offset = round(gate_now_ms - self._now_ms())
        if self._offset_ms is None or abs(offset - self._offset_ms) > tolerance_ms:
            self._offset_ms = offset

    def renewed(self, bundle: Device) -> None:
        """Between two connections: signs with another key from now on. What is signed already goes out as it is."""
        self.bundle = bundle
        self.wants_renewal = False
        self.pace.resume()

    def twin(self, store: Store, book: Book, now_ms: Callable[[], float], rng: random.Random) -> "DeviceCore":
        """This device, copied while it runs: the same key, epoch and next number, and a disk and a clock of its own."""
        twin = DeviceCore(self.bundle, store, book, now_ms, rng, form=self._form, packet_overhead=self._overhead)
        twin.epoch, twin._next_seq = self.epoch, self._next_seq
        return twin

    def answered(self, key: Key, answer: Answer) -> None:
        """One message has its answer. An answer to nothing in flight is ignored."""
        if key not in self._in_flight:
            return
        self._in_flight.discard(key)
        entry = self.outbox[key]
        self._book.answered(entry, answer.label)
        self._reactions[answer.reaction](self, entry, answer)

    def refused_connection(self, code: int) -> None:
        """CONNACK with a refusing code."""
        if code in CONNACK_STOPS:
            self.pace.stop()
            self.wants_renewal = True  # whatever it was refused for: who has nothing to renew is told so
        self.disconnected()

    def disconnected(self, code: int | None = None) -> None:
        """The connection ended or never came up, with the gate's DISCONNECT code if it sent one.

        What was in flight goes out again, the same bytes.
        """
        for key in self._in_flight:
            self.outbox[key].doubtful = True
            self._ready.append(key)
        self._in_flight.clear()
        heapify(self._ready)
        if code == DISCONNECT_TOO_LARGE:
            self._drop_too_large()
        if code in DISCONNECT_STOPS:
            self.pace.stop()
        self.pace.lost()

    def not_now(self, keys: Iterable[Key], retry_after_s: float | None = None) -> None:
        """The gate took none of these (HTTP 429 or 503): the same bytes later."""
        for key in keys:
            self._in_flight.discard(key)
            heappush(self._ready, key)
        self.pace.later(retry_after_s)

    def too_large(self, keys: list[Key]) -> None:
        """HTTP 413: split the batch; a single message is dropped."""
        for key in keys:
            self._in_flight.discard(key)
            heappush(self._ready, key)
        if len(keys) > 1:
            self.batch_items = max(1, len(keys) // 2)
            return
        entry = self.outbox[keys[0]]
        self._ready.remove(entry.key)
        heapify(self._ready)
        self._book.answered(entry, "oversized")
        self._forget(entry, "oversized", "dropped")

    # -- reactions ----------------------------------------------------------------------------------------------

    def _done(self, entry: Entry, answer: Answer) -> None:
        self.pace.went_well()
        self._forget(entry, answer.label, "stored")

    def _drop(self, entry: Entry, answer: Answer) -> None:
        self._forget(entry, answer.label, "dropped")

    def _refused_for_good(self, entry: Entry, answer: Answer) -> None:
        self._forget(entry, answer.label, "dropped")
        self.pace.stop()

    def _unknown(self, entry: Entry, answer: Answer) -> None:
        if encode.decode_envelope(entry.raw).kid != self.bundle.kid:
            self._number_again(entry, answer)  # signed before the renewal, under a root that is gone
            return
        self.wants_renewal = True
        self._refused_for_good(entry, answer)

    def _set_clock(self, entry: Entry, answer: Answer) -> None:
        # A message signed under an earlier setting says nothing about the present one.
        if entry.offset_ms == self._offset_ms:
            self._offset_ms = None
        since_signed = self._now_ms() - entry.signed_ms if entry.signed_ms else 0.0
        self._renumber(entry, answer, self._now_ms() - since_signed)

    def _number_again(self, entry: Entry, answer: Answer) -> None:
        if entry.doubtful:
            self._forget(entry, answer.label, "unknown")
            return
        assert self._offset_ms is not None  # it was sent on this connection, so the clock is set
        self._renumber(entry, answer, entry.sent_at - self._offset_ms)

    def _above_epoch(self, entry: Entry, answer: Answer) -> None:
        if answer.current_epoch is not None and answer.current_epoch >= self.epoch:
            self._open_epoch(answer.current_epoch + 1)
        elif entry.epoch == self.epoch:
            self._open_epoch(self.epoch + 1)
        self._number_again(entry, answer)

    def _stop_and_go_above(self, entry: Entry, answer: Answer) -> None:
        """Another message has this number, so ours was never stored: the counter is lost, or a backup was restored. The
        numbers behind it that were not sent yet are used as well."""
        if answer.current_epoch is None or self._offset_ms is None:
            self._refused_for_good(entry, answer)
            return
        self.pace.stop()
        if answer.current_epoch >= self.epoch:
            self._open_epoch(answer.current_epoch + 1)
        unsent = [self.outbox[key] for key in sorted(self._ready) if key[0] == entry.epoch and key > entry.key]
        again = [entry, *(other for other in unsent if not other.doubtful)]
        self._ready = [key for key in self._ready if all(key != other.key for other in again)]
        heapify(self._ready)
        for each in again:
            self._renumber(each, answer, each.sent_at - self._offset_ms)

    def _later(self, entry: Entry, answer: Answer) -> None:
        heappush(self._ready, entry.key)
        self.pace.later()

    _reactions = {  # noqa: RUF012 - a table, never written to
        Reaction.DONE: _done,
        Reaction.DROP: _drop,
        Reaction.STOP: _refused_for_good,
        Reaction.STOP_ABOVE: _stop_and_go_above,
        Reaction.RENEW: _unknown,
        Reaction.SET_CLOCK: _set_clock,
        Reaction.RENUMBER: _number_again,
        Reaction.ABOVE_EPOCH: _above_epoch,
        Reaction.LATER: _later,
    }

    # -- the small steps they are made of -----------------------------------------------------------------------

    def _renumber(self, entry: Entry, answer: Answer, base_ms: float) -> None:
        body = encode.decode_body(entry.enc, encode.decode_envelope(entry.raw).body)
        events = tuple(Event(int(base_ms) + e.at, e.kind, e.signals, e.texts) for e in body.events)
        self._again.append(Draft(body.software, body.config, entry.enc, events))
        self._forget(entry, answer.label, "renumbered")

    def _forget(self, entry: Entry, label: str, fate: str) -> None:
        del self.outbox[entry.key]
        self._store.forget(self.bundle.name, entry.epoch, entry.seq)
        self._book.closed(entry, label, fate)

    def _open_epoch(self, epoch: int) -> None:
        self.epoch, self._next_seq = epoch, 0
        self._epoch_ticket = self._store.open_epoch(self.bundle.name, epoch)

    def _drop_too_large(self) -> None:
        for entry in list(self.outbox.values()):
            if len(entry.raw) + self._overhead > self.max_packet_bytes:
                self._ready.remove(entry.key)
                self._book.answered(entry, "oversized")
                self._forget(entry, "oversized", "dropped")
        heapify(self._ready)


def _described(raw: bytes) -> tuple[int, int]:
    envelope = encode.decode_envelope(raw)
    return envelope.sent_at, envelope.enc


def _body_at(draft: Draft, now_ms: int) -> encode.Body:
    events = [Event(min(0, e.at - now_ms), e.kind, e.signals, e.texts) for e in draft.events]
    oldest_ms = encode.OLDEST_AT_IN_COLUMNS_MS if draft.enc == encode.COLUMNS else encode.OLDEST_AT_MS
    return encode.Body(draft.software, draft.config, [e for e in events if e.at >= oldest_ms])
