"""What the cars wrote down, by message, and the rows that it must have become.

Decoded with the simulator's decoder, which shares no code with the gate. What is right or wrong is the oracle's to say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from fleetsim import encode
from fleetsim.signals import BY_NUMBER
from tests.faults.journal import Answer, Entry, Message, Send
from tests.faults.stored import Row

STORED = ("accepted", "duplicate")
_NUMBERS = {signal.path: signal.number for signal in BY_NUMBER.values()}


class Told:
    """The journal, by message: its sends in their order, and the answer of each that got one."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.messages: dict[int, Message] = {}
        self.sends: dict[int, list[Send]] = defaultdict(list)
        self.answers: dict[int, str] = {}
        self.answered_ms: dict[int, int] = {}
        for entry in entries:
            match entry:
                case Message():
                    self.messages[entry.number] = entry
                case Send():
                    self.sends[entry.message].append(entry)
                case Answer():
                    self.answers[entry.send] = entry.label
                    self.answered_ms[entry.send] = entry.at_ms
        self.by_bytes = {(m.tenant, m.device_id, m.raw): m for m in self.messages.values()}

    def labels(self, message: Message) -> list[str]:
        return [self.answers[send.number] for send in self.sends[message.number] if send.number in self.answers]

    def acknowledged(self, message: Message) -> bool:
        return any(label in STORED for label in self.labels(message))


def signed_ms(message: Message) -> int:
    """By the clock of its car; 0 where the envelope cannot be read."""
    try:
        return encode.decode_envelope(message.raw).sent_at
    except (msgspec.MsgspecError, TypeError):
        return 0


def events_of(message: Message) -> int:
    return len(expected(message))


def expected(message: Message) -> list[Row]:
    """The rows that a stored message must have become."""
    envelope = encode.decode_envelope(message.raw)
    body = encode.decode_body(envelope.enc, envelope.body)
    rows = []
    for index, event in enumerate(body.events):
        known = {_NUMBERS.get(str(name), name): value for name, value in event.signals.items()}
        rows.append(
            Row(
                key=(*message.key, index),
                vehicle_id=message.vehicle_id,
                event_time_ms=envelope.sent_at + event.at,
                sent_at_ms=envelope.sent_at,
                kind=event.kind,
                signals={number: value for number, value in known.items() if isinstance(number, int)},
                unknown={name: value for name, value in known.items() if isinstance(name, str)},
                texts={_path(name): text for name, text in event.texts.items()},
                software=body.software,
                config=body.config,
                key_id=envelope.kid,
            )
        )
    return rows


def _path(name: int | str) -> str:
    return BY_NUMBER[name].path if isinstance(name, int) else name
