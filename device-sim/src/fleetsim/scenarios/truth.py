"""Decides how a scenario is written down: who did what from when on, what it deserves, and which alerts are due.

One SQLite file, written at the end of a run. Nothing here judges: `score` compares it with what the gate decided.

    run(key, value)      scenario, seed, vehicles, speed; virtual seconds: interval_s, before_s and trouble_s, as the
                         pace has them, lag_s (how late the simulator was in the end); Unix ms of the virtual clock:
                         started_ms, trouble_ms (0: none), off_ms (everybody is switched off), ended_ms
                         classes: the kinds of disorder that must occur; tolerated: honest devices that may be
                         treated worse than they deserve before the gate can know better (else none)
    devices              every unit, with what the gate answered to it (JSON: answer -> messages) and how often it sent
    truths               what a unit did, or what befell it
      what               the kind: an attack, a disorder, or a fault of the fleet
      hostile            1: it deserves `deserves`, and not to be seen for so long is a miss
                         0: it is honest, and `deserves` is the worst that may become of it
      deserves           trusted | watched | quarantined; who is in no row is honest, and deserves to be trusted
      from_ms            of its first message, or of the moment the trouble began
    alerts               alerts that are due
      kinds              names of which one is enough, separated by spaces; empty: any
      tenant             whose; empty: no single one's
      cohort, signal     what the alert's own words contain; empty: whatever they are
      within_s           virtual seconds after from_ms
"""

import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fleetsim.ledger import LedgerError
from fleetsim.scenarios.device import Device

_SCHEMA = """
CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE devices (
    tenant TEXT NOT NULL, device_id TEXT NOT NULL, transport TEXT NOT NULL, sends INTEGER NOT NULL,
    answers TEXT NOT NULL
);
CREATE TABLE truths (
    tenant TEXT NOT NULL, device_id TEXT NOT NULL, what TEXT NOT NULL, hostile INTEGER NOT NULL,
    deserves TEXT NOT NULL, from_ms REAL NOT NULL
);
CREATE TABLE alerts (
    what TEXT NOT NULL, kinds TEXT NOT NULL, tenant TEXT NOT NULL, cohort TEXT NOT NULL, signal TEXT NOT NULL,
    from_ms REAL NOT NULL, within_s REAL NOT NULL
);
"""
# The gate promises to see a sudden change of the fleet within a minute.
WITHIN_S = 60.0


class Fact(NamedTuple):
    """What one device did; a row of `truths`."""

    tenant: str
    device_id: str
    what: str
    hostile: bool
    deserves: str
    from_ms: float


class DueAlert(NamedTuple):
    """An alert that must come; a row of `alerts`."""

    what: str
    kinds: str
    tenant: str
    cohort: str
    signal: str
    from_ms: float
    within_s: float


class Truth:
    """What is true of one run, as its scenario knows it."""

    def __init__(self) -> None:
        self.notes: dict[str, object] = {}
        self.facts: list[Fact] = []
        self.alerts: list[DueAlert] = []

    def befalls(self, device: Device, what: str, from_ms: float, *, at_worst: str = "watched") -> None:
        """An honest device is in trouble from now on; it may be put under watch, or not even that."""
        self.facts.append(Fact(device.bundle.tenant, device.bundle.device_id, what, False, at_worst, from_ms))

    def attacks(self, device: Device, what: str, from_ms: float, *, deserves: str = "quarantined") -> None:
        """A device is hostile from now on."""
        self.facts.append(Fact(device.bundle.tenant, device.bundle.device_id, what, True, deserves, from_ms))

    def alert_due(
        self,
        what: str,
        kinds: str,
        from_ms: float,
        *,
        tenant: str = "",
        cohort: str = "",
        signal: str = "",
        within_s: float = WITHIN_S,
    ) -> None:
        """An alert of one of these kinds, about this cohort."""
        self.alerts.append(DueAlert(what, kinds, tenant, cohort, signal, from_ms, within_s))

    def save(self, path: Path, devices: Iterable[Device]) -> None:
        """Write the file anew. Raises LedgerError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            with sqlite3.connect(path) as db:
                db.executescript(_SCHEMA)
                db.executemany("INSERT INTO run VALUES (?, ?)", [(k, str(v)) for k, v in self.notes.items()])
                db.executemany("INSERT INTO devices VALUES (?, ?, ?, ?, ?)", map(_row, devices))
                db.executemany("INSERT INTO truths VALUES (?, ?, ?, ?, ?, ?)", self.facts)
                db.executemany("INSERT INTO alerts VALUES (?, ?, ?, ?, ?, ?, ?)", self.alerts)
            db.close()
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"{path}: {error}; choose another --ledger file") from None


def _row(device: Device) -> tuple[str, str, str, int, str]:
    notes = device.notes
    return device.bundle.tenant, device.bundle.device_id, device.transport, notes.sends, json.dumps(notes.answers)
