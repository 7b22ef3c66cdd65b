"""What the cars of the fault suite say: bodies in all three encodings, drawn from a seed.

Values are multiples of 2^-10 and small enough that sums of them are exact in any order: so a rollup can be compared
with a recount to the last bit. Encoded by the simulator's encoder, which shares no code with the gate.
"""

from __future__ import annotations

import random

from fleetsim import encode
from fleetsim.encode import COLUMNS, ROWS_JSON, ROWS_MSGPACK, Body, Event, Name
from fleetsim.signals import BY_NUMBER

NUMBERS = (1, 2, 3, 4, 5, 6, 15, 16, 23, 24)
"""Signals with wide bounds; 1, 2 and 15 have a greatest rate of change, so some readings are implausible."""

FAULT_TEXT = 44
UNKNOWN = ("Vehicle.Custom.Alpha", "Vehicle.Custom.Beta")
_STEP = 1 / 1024


def body(rng: random.Random) -> tuple[int, bytes]:
    """(encoding, bytes) of one to four events."""
    enc = rng.choice((ROWS_MSGPACK, ROWS_MSGPACK, ROWS_JSON, COLUMNS))
    count = rng.randint(1, 4)
    ages = sorted((rng.randint(0, 5_000) for _ in range(count)), reverse=True)
    events = [Event(-age, *_content(rng, enc)) for age in ages]
    said = Body(f"2026.{rng.randint(40, 44)}.1", f"cfg-{rng.randint(1, 3)}", events)
    return enc, encode.encode_body(enc, said)


def _content(rng: random.Random, enc: int) -> tuple[str, dict[Name, float], dict[Name, str]]:
    """(kind, signals, texts) of an event."""
    signals: dict[Name, float] = {}
    for number in rng.sample(NUMBERS, rng.randint(1, 6)):
        # An object of JSON has its keys once; a path names the same signal as its number.
        name = BY_NUMBER[number].path if enc == ROWS_JSON or (enc == ROWS_MSGPACK and rng.random() < 0.3) else number
        signals[name] = round(rng.uniform(0, 200) / _STEP) * _STEP + (100_000 if number == 2 else 0)
    if enc == COLUMNS:
        return "sample", signals, {}
    if rng.random() < 0.2:
        signals[rng.choice(UNKNOWN)] = rng.randint(0, 1000) / 8
    if rng.random() < 0.1:
        return "fault", signals, {BY_NUMBER[FAULT_TEXT].path: f"P{rng.randint(0, 999):04d}"}
    return "sample", signals, {}
