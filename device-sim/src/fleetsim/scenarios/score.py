"""Decides how well the gate did: what a scenario knows to be true, against what the gate decided.

`Decisions` is the gate's side, a JSON file that whoever ran the gate has made of its records; the two share no code.
Detected is a hostile device that reached the state it deserves (or a worse one) after its first hostile message; a
false positive is an honest device that was quarantined, and one that nothing befell deserves no watch either. Times are
seconds of the virtual clock.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from fleetsim.gate import InputError, RunError
from fleetsim.scenarios.truth import DueAlert, Fact

_RANK = {"trusted": 0, "released": 0, "watched": 1, "quarantined": 2, "banned": 3}
_QUARANTINED = _RANK["quarantined"]
MOST_TOLD = 10  # alerts of a kind in words; the JSON has all of them
_SQLITE = b"SQLite format 3\x00"
UNDISTURBED = "undisturbed"  # the honest devices of which the truth has nothing to say


class Transition(msgspec.Struct):
    """A device's state changed."""

    tenant: str
    device_id: str
    after: str
    at_ms: int
    why: str = ""


class OpenedAlert(msgspec.Struct):
    """An alert as the gate tells it."""

    kind: str
    tenant: str
    cohort: str
    signal: str
    opened_ms: int
    since_ms: int
    vehicles: int = 0


class Decisions(msgspec.Struct):
    """What the gate decided in one run."""

    transitions: list[Transition]
    alerts: list[OpenedAlert]
    disorder: dict[str, int] = {}
    """How many messages of each class there were that were not simply the next one."""
    complete: bool = True
    """Whether everything was loaded and looked at when this was written."""


class Kind(msgspec.Struct):
    """The devices of one kind of truth; `detected` and the times are of hostile ones, `worse` of honest ones: how many
    were put where they do not deserve to be."""

    what: str
    hostile: bool
    devices: int
    detected: int
    worse: int
    median_s: float | None
    longest_s: float | None


class Due(msgspec.Struct):
    """An alert that was due, and how long it took; None: it did not come."""

    what: str
    after_s: float | None
    within_s: float
    alert: str


class Score(msgspec.Struct):
    """What is printed, and stands in the table of scenarios."""

    scenario: str
    vehicles: int
    hours: float
    speed: float
    sends: int
    kinds: list[Kind]
    honest: int
    watched: int
    quarantined: list[str]
    tolerated: int
    due: list[Due]
    false_alerts: list[str]
    further_alerts: list[str]
    lag_s: float
    disorder: dict[str, int]
    missing_classes: list[str]
    complete: bool = True

    @property
    def detection_rate(self) -> float | None:
        """Of hostile devices; None where there are none."""
        hostile = [kind for kind in self.kinds if kind.hostile]
        devices = sum(kind.devices for kind in hostile)
        return sum(kind.detected for kind in hostile) / devices if devices else None

    @property
    def false_positive_rate(self) -> float:
        """Of honest devices."""
        return len(self.quarantined) / self.honest if self.honest else 0.0

    def problems(self) -> list[str]:
        """What is not as it should be."""
        missed = [kind for kind in self.kinds if kind.hostile and kind.detected < kind.devices]
        wronged = [kind for kind in self.kinds if not kind.hostile and kind.worse > 0]
        found = [f"{kind.what}: {kind.detected} of {kind.devices} detected" for kind in missed]
        if sum(kind.worse for kind in wronged) > self.tolerated:
            counts = ", ".join(f"{kind.what} {kind.worse} of {kind.devices}" for kind in wronged)
            found.append(f"honest devices treated worse than they deserve: {counts}")
        if len(self.quarantined) > self.tolerated:
            found.append(f"{len(self.quarantined)} honest devices in quarantine: {', '.join(self.quarantined[:5])}")
        for due in self.due:
            if due.after_s is None:
                found.append(f"{due.what}: no alert")
            elif due.after_s > due.within_s:
                found.append(f"{due.what}: alert after {due.after_s:.0f} s, due within {due.within_s:.0f} s")
        found += [f"false alert: {alert}" for alert in _first(self.false_alerts)]
        found += [f"no message was classified as {each}" for each in self.missing_classes]
        if not self.complete:
            found.append("the gate had not loaded or looked at everything: the score is incomplete")
        return found


class _Run(NamedTuple):
    notes: dict[str, str]
    devices: list[tuple[str, str, int]]
    facts: list[Fact]
    due: list[DueAlert]


def read_decisions(path: Path) -> Decisions:
    """Raises InputError."""
    content = _read(path)
    if content.startswith(_SQLITE):
        raise InputError(f"{path} is a ledger: the order is LEDGER DECISIONS.json")
    try:
        return _decode_decisions(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} has no decisions: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _read_run(path: Path) -> _Run:
    if not _read(path).startswith(_SQLITE):
        raise InputError(f"{path} is no ledger of a scenario: the order is LEDGER DECISIONS.json")
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            notes = dict(db.execute("SELECT key, value FROM run"))
            devices = db.execute("SELECT tenant, device_id, sum(sends) FROM devices GROUP BY 1, 2").fetchall()
            facts = [Fact(*row) for row in db.execute("SELECT * FROM truths")]
            return _Run(notes, devices, facts, [DueAlert(*row) for row in db.execute("SELECT * FROM alerts")])
        finally:
            db.close()
    except (sqlite3.Error, TypeError) as error:
        raise InputError(f"{path} is no ledger of a scenario ({error})") from None


def read_scores(paths: Iterable[Path]) -> dict[str, Score]:
    """By scenario. Raises RunError."""
    try:
        found = [_decode_score(path.read_bytes()) for path in paths]
    except (OSError, msgspec.MsgspecError) as error:
        raise RunError(f"no score: {error}") from None
    return {each.scenario: each for each in found}


def score(ledger: Path, decisions: Decisions) -> Score:
    """Compares. Raises InputError for a ledger that is none."""
    run = _read_run(ledger)
    moves: defaultdict[tuple[str, str], list[Transition]] = defaultdict(list)
    for move in decisions.transitions:
        moves[move.tenant, move.device_id].append(move)
    hostile = {(fact.tenant, fact.device_id) for fact in run.facts if fact.hostile}
    worst = {key: max((_RANK[move.after] for move in found), default=0) for key, found in moves.items()}
    honest = [(tenant, device_id) for tenant, device_id, _ in run.devices if (tenant, device_id) not in hostile]
    befallen = {(fact.tenant, fact.device_id) for fact in run.facts}
    others = [Fact(*key, UNDISTURBED, False, "trusted", 0.0) for key in honest if key not in befallen]
    trouble_ms = float(run.notes["trouble_ms"])
    matched = {id(alert): due for due in run.due for alert in decisions.alerts if _is(alert, due)}
    during = [alert for alert in decisions.alerts if alert.since_ms < float(run.notes["off_ms"])]
    others_open = [alert for alert in during if id(alert) not in matched]
    further = [alert for alert in others_open if run.due and alert.since_ms >= trouble_ms]
    false = [alert for alert in others_open if not (run.due and alert.since_ms >= trouble_ms)]
    return Score(
        scenario=run.notes["scenario"],
        vehicles=int(run.notes["vehicles"]),
        hours=round((float(run.notes["before_s"]) + float(run.notes["trouble_s"])) / 3600, 2),
        speed=float(run.notes["speed"]),
        sends=sum(sends for _, _, sends in run.devices),
        kinds=_kinds(run.facts + others, moves),
        honest=len(honest),
        watched=sum(worst.get(key, 0) == _RANK["watched"] for key in honest),
        quarantined=[f"{t}/{d}" for t, d in honest if worst.get((t, d), 0) >= _QUARANTINED],
        tolerated=int(run.notes.get("tolerated", 0)),
        due=[_due(due, decisions.alerts) for due in run.due],
        false_alerts=[_words(alert) for alert in false],
        further_alerts=[_words(alert) for alert in further],
        lag_s=float(run.notes["lag_s"]),
        disorder=decisions.disorder,
        missing_classes=[c for c in run.notes.get("classes", "").split() if not decisions.disorder.get(c)],
        complete=decisions.complete,
    )


def _kinds(facts: list[Fact], moves: dict[tuple[str, str], list[Transition]]) -> list[Kind]:
    grouped: defaultdict[tuple[str, bool], list[Fact]] = defaultdict(list)
    for fact in facts:
        grouped[fact.what, bool(fact.hostile)].append(fact)
    found = []
    for (what, hostile), those in sorted(grouped.items()):
        waits = [wait for fact in those if (wait := _wait_s(fact, moves, hostile=hostile)) is not None]
        found.append(
            Kind(
                what=what,
                hostile=hostile,
                devices=len(those),
                detected=len(waits) if hostile else 0,
                worse=0 if hostile else len(waits),
                median_s=round(median(waits), 1) if waits and hostile else None,
                longest_s=round(max(waits), 1) if waits and hostile else None,
            )
        )
    return found


def _wait_s(fact: Fact, moves: dict[tuple[str, str], list[Transition]], *, hostile: bool) -> float | None:
    """How long until a hostile device was where it deserves to be, or an honest one where it does not; None: never."""
    least = _RANK[fact.deserves] + (not hostile)
    times = [m.at_ms for m in moves.get((fact.tenant, fact.device_id), ()) if _RANK[m.after] >= least]
    after = [at_ms for at_ms in times if at_ms >= fact.from_ms]
    return (min(after) - fact.from_ms) / 1000 if after else None


def _is(alert: OpenedAlert, due: DueAlert) -> bool:
    return (
        alert.opened_ms >= due.from_ms
        and (not due.kinds or alert.kind in due.kinds.split())
        and due.tenant in ("", alert.tenant)
        and due.cohort in alert.cohort
        and due.signal in f"{alert.signal} {alert.kind}"
    )


def _due(due: DueAlert, alerts: list[OpenedAlert]) -> Due:
    found = min((alert for alert in alerts if _is(alert, due)), key=lambda alert: alert.opened_ms, default=None)
    after_s = None if found is None else round((found.opened_ms - due.from_ms) / 1000, 1)
    return Due(due.what, after_s, due.within_s, "" if found is None else _words(found))


def _words(alert: OpenedAlert) -> str:
    cohort = " ".join(part for part in (alert.tenant, alert.cohort, alert.signal) if part)
    return f"{alert.kind} {cohort} ({alert.vehicles} vehicles)"


def _first(alerts: list[str]) -> list[str]:
    """A watch that went wrong may have hundreds."""
    more = len(alerts) - MOST_TOLD
    return [*alerts[:MOST_TOLD], *([f"and {more} more"] if more > 0 else [])]


def lines(found: Score) -> list[str]:
    """For a person at a terminal."""
    told = [
        f"{found.scenario}: {found.vehicles} vehicles, {found.hours:g} h of the fleet at {found.speed:g} times the "
        f"machine's time, {found.sends} messages"
    ]
    for kind in found.kinds:
        if kind.hostile:
            times = (
                f", after {kind.median_s:.0f} s (longest {kind.longest_s:.0f} s)" if kind.median_s is not None else ""
            )
            told.append(f"  attack {kind.what:18} detected {kind.detected} of {kind.devices}{times}")
        else:
            told.append(f"  honest {kind.what:18} {kind.devices} devices, {kind.worse} treated worse than they deserve")
    rate = found.detection_rate
    told.append(
        f"  detection rate {'-' if rate is None else f'{rate:.1%}'}; false positive rate "
        f"{found.false_positive_rate:.2%} ({len(found.quarantined)} of {found.honest} honest devices quarantined, "
        f"{found.watched} watched)"
    )
    for due in found.due:
        when = "did not come" if due.after_s is None else f"after {due.after_s:.0f} s: {due.alert}"
        told.append(f"  alert {due.what}, due within {due.within_s:.0f} s: {when}")
    told += [f"  false alert: {alert}" for alert in _first(found.false_alerts)]
    told += [f"  further alert while the trouble lasted: {alert}" for alert in _first(found.further_alerts)]
    if classified := [f"{name} {count}" for name, count in found.disorder.items() if count]:
        told.append("  classified: " + ", ".join(classified))
    if not found.complete:
        told.append("  incomplete: the gate had not loaded or looked at everything when it was asked")
    if found.lag_s > 60:
        told.append(f"  the simulator was {found.lag_s:.0f} s behind its clock in the end: the machine is too slow")
    return told


def write(found: Score, path: Path) -> None:
    """Raises InputError."""
    try:
        path.write_bytes(as_json(found))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def as_json(found: Score) -> bytes:
    """For the page of all scenarios."""
    return json.dumps(msgspec.to_builtins(found), indent=2).encode() + b"\n"


_decode_decisions = msgspec.json.Decoder(Decisions).decode
_decode_score = msgspec.json.Decoder(Score).decode
