"""Reads the journals of a run: what was sent and answered, as columns.

Decides which journals are whole, what of several answers to one message counts, and how latency, throughput and
refusals are counted from them. What is too much is `thresholds`', what is stored `reconcile`'s.

Latency counts from the moment at which a message was due, not from when it was written to a socket: a generator or a
connection that stands still for a second makes every message late that should have gone out in that second. Counting
from the socket would leave those out (coordinated omission). For the same reason a message without an answer counts,
with its age when the run ended.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from loadtest.journal import LATER, NEVER_SENT, RECORD, UNANSWERED, RunError

STORED = frozenset({"accepted", "duplicate"})
"""Answers that promise that the message is on the gate's disk."""

LEARNT = frozenset({"stale_epoch"})
"""How an honest device over HTTPS learns which epochs the gate has seen: it sends the events again above them."""

SILENT = frozenset({UNANSWERED, NEVER_SENT})
"""No answer, when the run ended."""

_DTYPE = np.dtype(
    {
        "names": ["device", "epoch", "seq", "events", "label", "due_s", "sent_s", "answered_s"],
        "formats": ["<u4", "<u4", "<u8", "<u2", "<u2", "<f8", "<f8", "<f8"],
        "offsets": [0, 4, 8, 16, 18, 24, 32, 40],
        "itemsize": RECORD.size,
    }
)
_UNKNOWN, _REFUSED, _STORED = 0, 1, 2
"""What a message's answers come to; the highest counts. An attacker's repetition of a stored message may be refused."""

Array = np.ndarray[Any, Any]


class Device(NamedTuple):
    tenant: str
    device_id: str
    kind: str
    hostile: bool

    @property
    def name(self) -> str:
        return f"{self.tenant}/{self.device_id}"


class _About(NamedTuple):
    """What the numbers of a journal mean; `records` is None where no process closed it."""

    devices: list[Device]
    labels: list[str]
    records: int | None

    @classmethod
    def read(cls, path: Path) -> _About:
        devices, labels, records = [], [], None
        lines = path.read_text().split("\n")[:-1] if path.exists() else []  # one that was cut off explains nothing
        try:
            for line in lines:
                what = json.loads(line)
                devices += [Device(*what["device"])] if "device" in what else []
                labels += [what["label"]] if "label" in what else []
                records = what.get("records")
        except (ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is no journal's: {error}") from None
        return cls(devices, labels, records)


class Messages:
    """All journals of a run. `records` has a row for each answer, `devices` and `labels` what its numbers mean;
    `incomplete` names the journals that no process closed, of `journals` in all; `unsure` the devices in them, of which
    there may be more than is known. Raises RunError."""

    def __init__(self, run_directory: Path) -> None:
        self.devices: list[Device] = []
        self.labels: list[str] = []
        self.incomplete: list[str] = []
        self.unsure: set[str] = set()
        parts = [self._read(path) for path in sorted(run_directory.glob("acks-*.bin"))]
        self.journals = len(parts)
        self.records: Array = np.concatenate(parts) if parts else np.empty(0, _DTYPE)
        self.honest: Array = ~np.array([device.hostile for device in self.devices], bool)[self.records["device"]]

    def _read(self, path: Path) -> Array:
        about = _About.read(path.with_suffix(".jsonl"))
        records = np.fromfile(path, _DTYPE, path.stat().st_size // RECORD.size)
        if about.records != len(records):
            self.incomplete.append(path.name)
            self.unsure |= {device.name for device in about.devices}
        known = (records["device"] < len(about.devices)) & (records["label"] < len(about.labels))
        records = records[known]
        records["device"] += len(self.devices)
        self.devices += about.devices
        numbers = [self._number(label) for label in about.labels]
        records["label"] = np.array(numbers, np.uint16)[records["label"]]
        return records

    def _number(self, label: str) -> int:
        if label not in self.labels:
            self.labels.append(label)
        return self.labels.index(label)

    def having(self, labels: frozenset[str]) -> Array:
        """Which records have one of these labels."""
        return np.isin(self.records["label"], self._numbers(labels))

    def _numbers(self, labels: frozenset[str]) -> list[int]:
        return [n for n, label in enumerate(self.labels) if label in labels]

    @property
    def acknowledged(self) -> Array:
        """The records of honest devices' messages that the gate said it has."""
        return self.records[self.honest & self.having(STORED)]

    def among(self, records: Array, labels: frozenset[str]) -> Array:
        """Those of some records that have one of these labels."""
        return records[np.isin(records["label"], self._numbers(labels))]

    @property
    def due(self) -> Array:
        """The last record of every message of honest devices."""
        return self.records[self.honest & ~self.having(LATER)]

    @property
    def waited(self) -> Array:
        """Those of messages that were acknowledged, or had no answer when the run ended."""
        return self.records[self.honest & self.having(STORED | SILENT)]

    def attacks(self, caught: Mapping[str, frozenset[str]]) -> tuple[int, int]:
        """(messages that were answered, those that the gate took) of hostile devices; `caught` are the answers that
        stop each kind. What an attacker sends before its attack is of no kind."""
        kinds = np.array([device.kind for device in self.devices], object)[self.records["device"]]
        answered = ~self.having(LATER | SILENT)
        tried = taken = 0
        for kind, stops in caught.items():
            of_kind = ~self.honest & answered & (kinds == kind)
            tried += int(of_kind.sum())
            taken += int((of_kind & self.having(STORED - stops)).sum())
        return tried, taken

    def answers(self, *, honest: bool) -> dict[str, int]:
        """How often each answer was given, to honest or to hostile devices."""
        counts = Counter(self.records["label"][self.honest == honest].tolist())
        return {self.labels[number]: count for number, count in counts.most_common()}

    def refused(self) -> dict[str, int]:
        """Messages of honest devices that were refused for good, by reason."""
        no_refusal = STORED | LATER | LEARNT | SILENT
        return {label: n for label, n in self.answers(honest=True).items() if label not in no_refusal}

    def kinds(self) -> dict[str, Array]:
        """What was acknowledged, or waited for it in vain, by kind of honest device."""
        found = self.waited
        names = sorted({device.kind for device in self.devices if not device.hostile})
        of_device = np.array([names.index(device.kind) if not device.hostile else -1 for device in self.devices])
        kind = of_device[found["device"]] if len(found) else np.empty(0, int)
        return {name: found[kind == number] for number, name in enumerate(names)}

    def fates(self, part: int = 0, parts: int = 1) -> pa.Table:
        """One row for each message: `device` (tenant/device), epoch, seq, `events`, `fate` (0 unknown, 1 refused,
        2 stored). Of several `parts` those whose seq leaves the rest `part`: to compare takes 600 bytes a message."""
        chosen = (self.records["seq"] % parts == part) & ~self.having(frozenset({NEVER_SENT}))
        records = self.records[chosen]
        rank = np.full(len(records), _REFUSED, np.uint32)
        rank[self.having(LATER | {UNANSWERED})[chosen]] = _UNKNOWN
        rank[self.having(STORED)[chosen]] = _STORED
        rows = pa.table(
            {
                **self._named(records),
                "seq": records["seq"],
                # Two messages under one number are an attacker's: how many events the gate's has is that of the stored.
                "order": rank << 16 | records["events"],
            }
        )
        grouped = rows.group_by(["device", "epoch", "seq"]).aggregate([("order", "max")])
        order = grouped["order_max"].to_numpy()
        keys = {name: grouped[name] for name in ("device", "epoch", "seq")}
        return pa.table({**keys, "events": order & 0xFFFF, "fate": order >> 16})

    def epochs(self) -> pa.Table:
        """`device` and `epoch` of everything that was sent, each pair once."""
        pairs = np.unique(self.records[~self.having(frozenset({NEVER_SENT}))][["device", "epoch"]])
        return pa.table(self._named(pairs)).group_by(["device", "epoch"]).aggregate([])

    def _named(self, records: Array) -> dict[str, Any]:
        names = pa.array([device.name for device in self.devices], pa.string())
        return {"device": names.take(pa.array(records["device"])), "epoch": np.ascontiguousarray(records["epoch"])}


def latency_ms(records: Array, ended_s: float) -> Array:
    """From when each was due to its acknowledgement, or to the end of the run."""
    until_s = np.where(records["answered_s"] > 0, records["answered_s"], ended_s)
    return np.asarray(np.maximum(until_s - records["due_s"], 0) * 1000)


def late_ms(records: Array) -> Array:
    """From when each was due to when it was sent: lateness of the generator, or of a device that had to wait."""
    return np.asarray((records["sent_s"] - records["due_s"]) * 1000)


def percentile(values: Array, percent: float) -> float | None:
    """That so many percent of the values do not exceed, itself one of them; None without any."""
    return float(np.percentile(values, percent, method="inverted_cdf")) if len(values) else None
