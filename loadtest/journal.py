"""What a load test knows it sent and what the gate said to it: one journal for each process of the generator.

Decides what is remembered of a message, 48 bytes each, in the order of answers: who sent it, under which number, how
many events it had, the answer, and three times. Whether it is in ClickHouse is asked later, by `reconcile`; this file
only makes that question possible, and costs the generator 1 us a message. `messages` reads it.

A journal is two files in the directory of the run: `acks-NAME.bin`, appended to while the test runs, and
`acks-NAME.json` (devices, labels, how many records), written by `close`. Without the second one, or with another number
in it, the process did not come to its end, and nobody can say what it sent last: such a run is judged invalid.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

RECORD = struct.Struct("<IIQHHxxxxddd")
"""Device by its index in the second file, epoch, seq, events, label by its index; then when it was due, sent and
answered, in Unix seconds (0: no answer)."""

UNANSWERED = "unanswered"
"""The label of a message that was sent and never got an answer: stored or not, but never twice."""

LATER = frozenset({"rate_limited", "later"})
"""Answers that are none: the same bytes are sent again, and the message stays open. `later` is for 429 and 503."""

_Key = tuple[int, int, int]


class Journal:
    """Used by one thread or by greenlets of one; nothing in it yields.

    `name` tells the processes of one generator apart. The order for each message: `sent`, again for each repetition,
    then `answered`.
    """

    def __init__(self, run_directory: Path, name: str, now_s: Callable[[], float] = time.time) -> None:
        """Raises FileExistsError where a process of this name has written into this run already."""
        self._devices: list[tuple[str, str, str, bool]] = []
        self._labels: dict[str, int] = {}
        self._open: dict[_Key, tuple[int, float, float]] = {}
        self._records = 0
        self._now_s = now_s
        self._about = run_directory / f"acks-{name}.json"
        self._file = (run_directory / f"acks-{name}.bin").open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def device(self, tenant: str, device_id: str, kind: str, *, hostile: bool = False) -> int:
        """What names this device in the other calls. `kind` is what it is called in the reports, such as `mqtt` or
        `https-batch`; a `hostile` one counts neither for throughput nor for latency, and may be quarantined."""
        self._devices.append((tenant, device_id, kind, hostile))
        return len(self._devices) - 1

    def sent(self, device: int, epoch: int, seq: int, events: int, due_s: float) -> None:
        """It is about to be written to a socket. `due_s` is when the plan wanted it sent (Unix seconds), however late
        the generator or its connection is now: latency counts from there. A repetition keeps the first times.

        For several envelopes in one request call it for each."""
        self._open.setdefault((device, epoch, seq), (events, due_s, self._now_s()))

    def answered(self, device: int, epoch: int, seq: int, answer: str) -> None:
        """The durable acknowledgement, or a refusal: `accepted`, `duplicate`, a reason of the gate, or one of LATER."""
        key = (device, epoch, seq)
        if answer in LATER:
            self._write(key, answer, self._open[key])
        else:
            self._write(key, answer, self._open.pop(key))

    def close(self) -> None:
        """Writes what is still without an answer, and the second file. Once more does nothing."""
        if self._file.closed:
            return
        for key, message in self._open.items():
            self._write(key, UNANSWERED, message)
        self._file.close()
        about = {"devices": self._devices, "labels": list(self._labels), "records": self._records}
        self._about.write_text(json.dumps(about))

    def _write(self, key: _Key, label: str, message: tuple[int, float, float]) -> None:
        device, epoch, seq = key
        events, due_s, sent_s = message
        number = self._labels.setdefault(label, len(self._labels))
        answered_s = 0.0 if label == UNANSWERED else self._now_s()
        self._file.write(RECORD.pack(device, epoch, seq, events, number, due_s, sent_s, answered_s))
        self._records += 1
