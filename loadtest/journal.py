"""What a load test knows it sent and what the gate said to it: one journal for each process of the generator.

Decides what is remembered of a message, 48 bytes each, in the order of answers: who sent it, under which number, how
many events it had, the answer, and three times. Whether it is in ClickHouse is asked later, by `reconcile`; this file
only makes that question possible, and costs the generator 1 us a message. `messages` reads it.

A journal is two files in the directory of the run: `acks-NAME.bin`, and `acks-NAME.jsonl` with what its numbers mean: a
line for each device and each label before it is first used, and the number of records as the last line, by `close`.
Without that line, or with another number in it, the process did not come to its end, and nobody can say what it sent
last: what is there is compared all the same, and the run is judged invalid.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loadtest.clock import now_s

RECORD = struct.Struct("<IIQHHxxxxddd")
"""Device by its index in the second file, epoch, seq, events, label by its index; then when it was due, sent and
answered, in Unix seconds (0: it was not)."""

UNANSWERED = "unanswered"
"""The label of a message that was sent and never got an answer: stored or not, but never twice."""

NEVER_SENT = "never_sent"
"""The label of a message that was due and never left; it has no number."""

LATER = frozenset({"rate_limited", "later"})
"""Answers that are none: the same bytes are sent again, and the message stays open. `later` is for 429 and 503."""

_Key = tuple[int, int, int]


class RunError(Exception):
    """What a run left cannot be read; the text says what is missing."""


class Journal:
    """Used by one thread or by greenlets of one; nothing in it yields.

    `name` tells the processes of one generator apart. The order for each message: `sent`, again for each repetition,
    then `answered`.
    """

    def __init__(self, run_directory: Path, name: str, now_s: Callable[[], float] = now_s) -> None:
        """Raises FileExistsError where a process of this name has written into this run already."""
        self._devices = 0
        self._labels: dict[str, int] = {}
        self._open: dict[_Key, tuple[int, float, float]] = {}
        self._records = 0
        self._ended = False
        self._now_s = now_s
        self._file = (run_directory / f"acks-{name}.bin").open("xb")
        self._about = (run_directory / f"acks-{name}.jsonl").open("x", buffering=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def device(self, tenant: str, device_id: str, kind: str, *, hostile: bool = False) -> int:
        """What names this device in the other calls. `kind` is what it is called in the reports, such as `mqtt` or
        `https-batch`; a `hostile` one counts neither for throughput nor for latency, and may be quarantined."""
        self._explain(device=(tenant, device_id, kind, hostile))
        self._devices += 1
        return self._devices - 1

    def sent(self, device: int, epoch: int, seq: int, events: int, due_s: float) -> None:
        """It is about to be written to a socket. `due_s` is when the plan wanted it sent (Unix seconds), however late
        the generator or its connection is now: latency counts from there. A repetition keeps the first times.

        For several envelopes in one request call it for each."""
        self._open.setdefault((device, epoch, seq), (events, due_s, self._now_s()))

    def answered(self, device: int, epoch: int, seq: int, answer: str) -> None:
        """The durable acknowledgement, or a refusal: `accepted`, `duplicate`, a reason of the gate, or one of LATER."""
        key = (device, epoch, seq)
        self._write(key, answer, self._open[key], self._now_s())
        if answer not in LATER:
            del self._open[key]

    def never_sent(self, device: int, events: int, due_s: float) -> None:
        """It was due and never left: the device had no connection, or the gate took nothing more from it."""
        self._write((device, 0, 0), NEVER_SENT, (events, due_s, 0.0), 0.0)

    def close(self) -> None:
        """Writes what is still without an answer, and that this is all. Once more, or after a failure, does nothing."""
        if self._ended:
            return
        self._ended = True
        try:
            for key, message in self._open.items():
                self._write(key, UNANSWERED, message, 0.0)
            self._file.close()
        except OSError as error:
            raise self._lost(error) from None
        self._explain(records=self._records)
        self._about.close()

    def _write(self, key: _Key, label: str, message: tuple[int, float, float], answered_s: float) -> None:
        device, epoch, seq = key
        events, due_s, sent_s = message
        if label not in self._labels:
            self._labels[label] = len(self._labels)
            self._explain(label=label)
        try:
            self._file.write(RECORD.pack(device, epoch, seq, events, self._labels[label], due_s, sent_s, answered_s))
        except OSError as error:
            raise self._lost(error) from None
        self._records += 1

    def _explain(self, **what: Any) -> None:
        try:
            self._about.write(json.dumps(what) + "\n")
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> SystemExit:
        """The end of this process: what stood in the buffer is gone, and no later line may say that this was all."""
        self._ended = True
        for file in (self._file, self._about):
            with suppress(OSError):
                file.close()
        return SystemExit(f"loadtest: {self._file.name}: {error.strerror}; nobody could judge this run")
