"""Decides what a swarm sends: bodies of a chosen shape, made once, and envelopes signed ahead of their sending.

Real bytes: every envelope has its own number and tag under its device's own key, by the same encoder as the agents'.
Only the bodies repeat, unless `swarm_drive` makes them. When they go out is `swarm_lane`'s; the shape is the caller's
choice.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from fleetsim import encode
from fleetsim.bundle import Device
from fleetsim.encode import Body, Event, Name
from fleetsim.gate import RunError
from fleetsim.signals import CATALOGUE

# Different bodies in a swarm: enough that no column compresses to nothing, few enough to make at start.
VARIANTS = 32

_SIGNALS = tuple(signal for signal in CATALOGUE if signal.low is not None)
_EVENT_GAP_MS = 100


# Of a body's events only their number is read: what is in them may be of another gate.
_decode_rows = msgspec.msgpack.Decoder(tuple[str, str, list[msgspec.Raw]]).decode
_decode_columns = msgspec.msgpack.Decoder(tuple[str, str, str, int, bytes, msgspec.Raw]).decode

Content = Callable[[int, int], bytes]
"""The body of the message with this number and `sent_at`."""


class Shape(NamedTuple):
    """What a message holds. `events` is rows where `form` is columns; columns name signals by number."""

    events: int = 1
    signals: int = 8
    names: Literal["number", "path"] = "number"
    form: Literal["rows", "columns"] = "rows"

    @property
    def enc(self) -> int:
        """The body's encoding on the wire."""
        return encode.COLUMNS if self.form == "columns" else encode.ROWS_MSGPACK


def bodies(shape: Shape, rng: random.Random) -> list[bytes]:
    """Encoded bodies of this shape. Raises ValueError for one that the wire format cannot express."""
    if not 1 <= shape.signals <= len(_SIGNALS):
        raise ValueError(f"--signals: the catalogue has 1 to {len(_SIGNALS)} numeric signals")
    made = [encode.encode_body(shape.enc, _body(shape, rng)) for _ in range(VARIANTS)]
    if max(map(len, made)) > encode.MAX_BODY_BYTES:
        raise ValueError(f"--events and --signals: a body has at most {encode.MAX_BODY_BYTES} bytes")
    return made


def read_bodies(file: Path) -> tuple[bytes, ...]:
    """Bodies that somebody else encoded. Raises RunError."""
    try:
        found = msgspec.msgpack.decode(file.read_bytes(), type=tuple[bytes, ...])
    except (OSError, msgspec.MsgspecError) as error:
        raise RunError(f"--bodies: {file} is no file with a MessagePack array of binaries ({error})") from None
    if not found:
        raise RunError(f"--bodies: {file} holds none")
    return found


def events_in(enc: int, bodies: Sequence[bytes]) -> float | None:
    """Events of a body on average; None where one of them is not of the wire format's outer shape."""
    try:
        return sum(_count(enc, body) for body in bodies) / len(bodies)
    except msgspec.MsgspecError:
        return None


def _count(enc: int, body: bytes) -> int:
    if enc == encode.COLUMNS:
        return _decode_columns(body)[3]
    return len(_decode_rows(body)[2])


def _body(shape: Shape, rng: random.Random) -> Body:
    """Events 100 ms apart, the last one now; each signal walks slowly inside its bounds, in steps of 1/4."""
    chosen = _SIGNALS[: shape.signals]
    names: list[Name] = [signal.path if shape.names == "path" else signal.number for signal in chosen]
    bounds = [(signal.low or 0.0, signal.high or 0.0) for signal in chosen]
    values = [round(low + (high - low) * rng.uniform(0.4, 0.6)) for low, high in bounds]
    events = []
    for index in range(shape.events):
        # Quarters are exact in f32, so that columns are as narrow as those of a real unit.
        row = {name: value + rng.randrange(4) / 4 for name, value in zip(names, values, strict=True)}
        events.append(Event((index + 1 - shape.events) * _EVENT_GAP_MS, "sample", row, {}))
    return Body("2026.44.1", "cfg-7f3a", events)


def repeated(bodies: Sequence[bytes]) -> Content:
    """These bodies over and over."""
    return lambda seq, sent_at: bodies[seq % len(bodies)]


class Work:
    """The messages of one device in their order. `offset_ms` is the gate's clock minus this machine's."""

    def __init__(self, bundle: Device, enc: int, content: Content, epoch: int, now_ms: Callable[[], float]) -> None:
        self.bundle = bundle
        self.epoch = epoch
        self.offset_ms = 0.0
        self.next_seq = 0
        self._enc, self._content, self._now_ms = enc, content, now_ms

    def above(self, gate_epoch: int) -> None:
        """Begin an epoch above the gate's and above every one of this run."""
        self.epoch = max(self.epoch, gate_epoch) + 1 if self.next_seq else max(self.epoch, gate_epoch + 1)
        self.next_seq = 0

    def sign(self, count: int) -> list[bytes]:
        """The next `count` envelopes, `sent_at` now: they go out within the minutes of a run."""
        bundle, enc, content = self.bundle, self._enc, self._content
        sent_at = int(self._now_ms() + self.offset_ms)
        first, self.next_seq = self.next_seq, self.next_seq + count
        return [
            encode.sign(
                bundle.mac_key,
                kid=bundle.kid,
                epoch=self.epoch,
                seq=seq,
                sent_at=sent_at,
                enc=enc,
                body=content(seq, sent_at),
            )
            for seq in range(first, first + count)
        ]
