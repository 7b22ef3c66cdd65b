"""Decides how the figures of all scenarios are shown: the tables of docs/reference/scenarios.md."""

from collections.abc import Mapping

from fleetsim.scenarios.catalogue import SCENARIOS
from fleetsim.scenarios.score import Score

INTRODUCTION = """# Scenarios

`make demo ARGS="--scenario NAME"` runs one: a gate of its own, a fleet on a virtual clock, and the score, what the
scenario knows to be true against what the gate decided. This page is printed by `make scenarios`, from the scores of a
run of each. Times are seconds of the virtual clock, counted from the first hostile message or from the start of the
trouble. A device is detected when it is in quarantine; the false positive rate is the share of honest devices that
were. Each scenario begins with an ordinary time, which the watch learns from.

The simulator and the gate share no code. `fleetsim scenario` writes what is true into `truth.db` (its tables are
described in the head of `scenarios/truth.py`), the demo what was decided into `decisions.json`, and `fleetsim score
truth.db decisions.json` compares them:

    {"transitions": [{"tenant": "acme", "device_id": "car-0007-tcu", "after": "quarantined", "at_ms": 1795977158230,
                      "why": "equivocation"}],
     "alerts": [{"kind": "median", "tenant": "acme", "cohort": "software 2026.40.3", "signal": "Vehicle.Speed",
                 "opened_ms": 1795977158230, "since_ms": 1795977120000, "vehicles": 150}],
     "disorder": {"duplicate": 155, "late": 1240}}

An alert that is due is recognized by its kind, cohort and signal. One of something that began before the trouble, or
where none is due, is false. What begins when the run ends and everybody is switched off does not count.

Where the gate had not loaded or looked at everything when it was asked, `decisions.json` says `"complete": false`; it
is scored all the same, and fails as incomplete. `fleetsim score` ends with 1 where the gate was wrong, with 2 for a
file that is no good.

A run fails when a hostile device was not detected, an alert that is due did not come in time, one is false, or an
honest device was treated worse than it deserves: in quarantine, or watched although nothing befell it that looks like
an attack. Of `bad-release` as many may be as the gate cannot know better of: 19 of each tenant.

## What happens

The speed is how many virtual seconds go by in one of the machine's; `--vehicles` and `--speed` change size and pace.
With too few vehicles the part of the fleet that a trouble is about is too small to be compared: the demo says so, and
the simulator refuses what cannot be.
"""


def page(scores: Mapping[str, Score]) -> str:
    """The whole page; a scenario without a score has dashes."""
    devices, alerts = "\n## Devices\n", "\n## Alerts\n"
    return "\n".join([INTRODUCTION, *what_happens(), devices, *_figures(scores), alerts, *_alerts(scores), ""])


def what_happens() -> list[str]:
    """The table of all scenarios."""
    rows = ["| scenario | what happens | vehicles | virtual time | speed |", "| --- | --- | --- | --- | --- |"]
    for name, scenario in SCENARIOS.items():
        pace = scenario.pace
        rows.append(f"| `{name}` | {scenario.says} | {pace.vehicles} | {pace.seconds / 3600:.2g} h | {pace.speed:g} |")
    return rows


def _figures(scores: Mapping[str, Score]) -> list[str]:
    rows = [
        "| scenario | attack | detected | median s | longest s | honest devices | watched | false positive rate |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in SCENARIOS:
        found = scores.get(name)
        if found is None:
            rows.append(f"| `{name}` |" + " - |" * 7)
            continue
        rest = f"{found.honest} | {found.watched} | {found.false_positive_rate:.2%} |"
        attacks = [kind for kind in found.kinds if kind.hostile]
        for kind in attacks:
            times = " | ".join("-" if at is None else f"{at:.0f}" for at in (kind.median_s, kind.longest_s))
            rows.append(f"| `{name}` | `{kind.what}` | {kind.detected} of {kind.devices} | {times} | {rest}")
        if not attacks:
            rows.append(f"| `{name}` | - | - | - | - | {rest}")
    return rows


def _alerts(scores: Mapping[str, Score]) -> list[str]:
    rows = ["| scenario | alert | after s | alerts that should not be |", "| --- | --- | --- | --- |"]
    for name in SCENARIOS:
        found = scores.get(name)
        if found is None:
            rows.append(f"| `{name}` | - | - | - |")
            continue
        if not found.due:
            rows.append(f"| `{name}` | none is due | - | {len(found.false_alerts)} |")
        for due in found.due:
            after = "-" if due.after_s is None else f"{due.after_s:.0f}"
            told = due.alert or f"{due.what}: none came"
            rows.append(f"| `{name}` | {told} | {after} | {len(found.false_alerts)} |")
    return rows
