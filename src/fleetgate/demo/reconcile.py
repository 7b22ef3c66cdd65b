"""The reckoning: the simulator's ledger against what stands in ClickHouse and in the records of control.

Decides what counts as lost, doubled, let through and falsely refused; the definitions are those of the report
(docs/reference/demo-report.md). Reads only. The ledger's columns are described in the head of fleetsim's ledger.py.
"""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from pathlib import Path
from statistics import quantiles
from typing import Any

from msgspec import Struct, field

from fleetgate.config import Limits
from fleetgate.control.records import DeviceState
from fleetgate.control.roster import list_devices
from fleetgate.control.store import Store
from fleetgate.demo.prepare import ATTACKS
from fleetgate.load.clickhouse import ServerClickHouse
from fleetgate.rates import parse_rates

HONEST = "honest"
BY_CONNECTION = ("revoked", "oversized", "fuzz")
"""Kinds whose hostile acts are counted in connections."""
NOT_REFUSALS = (None, "accepted", "duplicate", "rate_limited")

Key = tuple[str, str, int, int]
"""(tenant, device id, epoch, seq)."""


class Count(Struct):
    messages: int = 0
    events: int = 0


class Attack(Struct):
    sent: int = 0
    caught: int = 0


class Report(Struct):
    """`fleetgate demo --report FILE` writes this as JSON. Times are milliseconds; only `killed_at_s` is seconds, from
    the start of the fleet, of edge and load where they were killed."""

    sent: Count = field(default_factory=Count)
    acked: Count = field(default_factory=Count)
    stored: dict[str, int] = field(default_factory=lambda: {"events": 0})
    lost: int = 0
    duplicated: int = 0
    cross_tenant: int = 0
    attacks: dict[str, Attack] = field(default_factory=dict)
    false_rejections: int = 0
    quarantined: dict[str, list[str]] = field(default_factory=lambda: {"expected": [], "actual": []})
    ack_ms: dict[str, float] = field(default_factory=dict)
    queryable_ms: dict[str, float] = field(default_factory=dict)
    killed_at_s: dict[str, float] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """Why the demo failed; empty when it is as it should be."""
        found = [
            f"{count} {what}"
            for what, count in (
                ("acknowledged events lost", self.lost),
                ("events doubled", self.duplicated),
                ("rows under a wrong tenant", self.cross_tenant),
                ("honest messages refused", self.false_rejections),
            )
            if count
        ]
        found += [
            f"attack {kind}: {attack.caught} of {attack.sent} caught"
            for kind, attack in self.attacks.items()
            if attack.caught != attack.sent
        ]
        found += [
            f"attack {kind} sent nothing: this machine is too slow for so few seconds, give --seconds N"
            for kind, attack in self.attacks.items()
            if not attack.sent
        ]
        if not self.acked.events:
            found.append("no event was acknowledged: the run shows nothing")
        expected, actual = (set(self.quarantined[name]) for name in ("expected", "actual"))
        if expected - actual:
            missing = ", ".join(sorted(expected - actual))
            found.append(f"not in quarantine: {missing} (attackers that sent too little are not; give --seconds N)")
        if actual - expected:
            found.append(f"in quarantine, and honest: {', '.join(sorted(actual - expected))}")
        return found


class Ledger:
    """The simulator's book of a run, opened for reading."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        self.attackers: dict[tuple[str, str], str] = {}
        self.expected: list[str] = []
        for tenant, device_id, kind, expects in self._rows("SELECT * FROM attackers"):
            self.attackers[tenant, device_id] = kind
            if expects:
                self.expected.append(f"{tenant}/{device_id}")

    def _rows(self, sql: str) -> list[Any]:
        return self._db.execute(sql).fetchall()

    def messages(self) -> list[Any]:
        """(tenant, device, epoch, seq, kind, events, answer, fate, first_sent_ms, answered_ms) of all that was sent."""
        return self._rows(
            "SELECT tenant, device_id, epoch, seq, kind, events, answer, fate, first_sent_ms, answered_ms"
            " FROM messages WHERE sends > 0"
        )

    def attempts(self) -> dict[str, list[str]]:
        """The answers to hostile connections, by kind."""
        answers: dict[str, list[str]] = defaultdict(list)
        for kind, answer in self._rows("SELECT kind, answer FROM attempts"):
            answers[kind].append(answer)
        return answers

    def close(self) -> None:
        self._db.close()


class Stored:
    """What ClickHouse has: rows and distinct events of each message, and the kind its `config` names if hostile."""

    def __init__(self, clickhouse: ServerClickHouse) -> None:
        self.rows: dict[Key, tuple[int, int]] = {}
        self.hostile: dict[str, int] = defaultdict(int)
        for tenant, device_id, epoch, seq, rows, events, config in clickhouse.rows(
            "SELECT tenant, device_id, epoch, seq, count(), uniqExact(event_index), max(config)"
            " FROM events GROUP BY tenant, device_id, epoch, seq"
        ):
            self.rows[tenant, device_id, int(epoch), int(seq)] = (int(rows), int(events))
            if config.startswith("attack:"):
                self.hostile[config.removeprefix("attack:")] += 1
        self.owners = {
            (str(tenant), str(device_id))
            for table in ("events", "held_events", "raw_messages", "rejections")
            for tenant, device_id in clickhouse.rows(f"SELECT DISTINCT tenant, device_id FROM {table}")  # noqa: S608
        }
        p50, p99 = clickhouse.rows(
            "SELECT quantile(0.5)(waited), quantile(0.99)(waited) FROM (SELECT"
            " dateDiff('millisecond', e.received_at, s.loaded_at) AS waited"
            " FROM events AS e INNER JOIN segments AS s ON e.spool = s.spool AND e.segment = s.segment"
            " WHERE e.decision = '')"
        )[0]
        self.queryable_ms = {"p50": float(p50 or 0), "p99": float(p99 or 0)}


def reconcile(
    ledger: Ledger, clickhouse: ServerClickHouse, store: Store, limits: Limits, killed_at_s: dict[str, float]
) -> Report:
    """Compares; changes nothing."""
    stored = Stored(clickhouse)
    report = Report(queryable_ms=stored.queryable_ms, killed_at_s=killed_at_s)
    messages = ledger.messages()
    honest = [row for row in messages if row[4] == HONEST and (row[0], row[1]) not in ledger.attackers]
    _reckon_honest(report, honest, stored)
    _reckon_attacks(report, ledger, messages, stored, limits)
    known = {(row[0], row[1]) for row in messages} | set(ledger.attackers)
    for tenant, device_id in sorted(stored.owners - known):
        report.cross_tenant += _rows_of(clickhouse, tenant, device_id)
    report.quarantined = {
        "expected": sorted(ledger.expected),
        "actual": sorted(
            f"{device.tenant}/{device.device_id}"
            for device in list_devices(store, None)
            if device.state in (DeviceState.QUARANTINED, DeviceState.BANNED)
        ),
    }
    return report


def _reckon_honest(report: Report, honest: list[Any], stored: Stored) -> None:
    waits: list[float] = []
    for tenant, device_id, epoch, seq, _kind, events, answer, fate, first_sent_ms, answered_ms in honest:
        rows, distinct = stored.rows.get((tenant, device_id, epoch, seq), (0, 0))
        if fate != "renumbered":
            report.sent.messages += 1
            report.sent.events += events
        report.stored["events"] += rows
        report.duplicated += rows - distinct
        if answer in ("accepted", "duplicate"):
            report.acked.messages += 1
            report.acked.events += events
            report.lost += max(0, events - distinct)
            waits.append(answered_ms - first_sent_ms)
        elif answer not in NOT_REFUSALS:
            report.false_rejections += 1
    if len(waits) > 1:
        cuts = quantiles(waits, n=100)
        report.ack_ms = {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2)}


def _reckon_attacks(report: Report, ledger: Ledger, messages: list[Any], stored: Stored, limits: Limits) -> None:
    """`caught` are those that added no row to `events`."""
    attempts = ledger.attempts()
    own = {(row[0], row[1], row[2], row[3]) for row in messages if row[4] == HONEST}
    through: dict[str, int] = defaultdict(int, stored.hostile)
    for key, (rows, distinct) in stored.rows.items():
        kind = ledger.attackers.get(key[:2])
        if kind is not None and kind != "flood":
            # A repeated row is a replay that got through; a number the device never sent honestly is not its own.
            through[kind] += (rows > distinct) or (key not in own and not stored.hostile.get(kind))
    for kind in ATTACKS:
        sent = [row for row in messages if row[4] == kind]
        count = len(attempts[kind]) if kind in BY_CONNECTION else len(sent)
        uncaught = through[kind]
        if kind == "flood":
            uncaught = int(max(0, through[kind] - _allowed(sent, limits, 1 + ("edge" in report.killed_at_s))))
        elif kind == "revoked":
            uncaught += sum(answer == "accepted" for answer in attempts[kind])
        report.attacks[kind] = Attack(count, max(0, count - uncaught))


def _allowed(flood: list[Any], limits: Limits, edges: int) -> float:
    """What the device's own buckets let through: burst + rate x seconds. Each edge process fills them anew."""
    times = [row[8] for row in flood] + [row[9] for row in flood if row[9] is not None]
    seconds = (max(times) - min(times)) / 1000 if times else 0.0
    rates = parse_rates(limits.device.messages)
    return min((rate.most * (edges + seconds / rate.seconds) for rate in rates), default=math.inf) + 1


def _rows_of(clickhouse: ServerClickHouse, tenant: str, device_id: str) -> int:
    who = {"tenant": tenant, "device": device_id}
    where = "tenant = {tenant:String} AND device_id = {device:String}"
    tables = ("events", "held_events", "raw_messages", "rejections")
    return sum(int(clickhouse.rows(f"SELECT count() FROM {table} WHERE {where}", who)[0][0]) for table in tables)  # noqa: S608
