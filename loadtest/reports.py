"""The files that a verdict leaves in the directory of its run, and the lines on the terminal.

    verdict.json   everything, for programs        verdict.csv   the limits, for a table
    summary.html   the page to send to a colleague (`summary`)

Beside them lie what locust wrote: report.html and requests_*.csv. Decides the form of the first two; no figure.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import msgspec
from loadtest import summary
from loadtest.locust_counts import Counts
from loadtest.messages import Messages
from loadtest.outcome import Verdict
from loadtest.samples import Samples

SUMMARY = "summary.html"
_BESIDE = ("ack_p50_ms", "ack_p95_ms", "ack_max_ms", "sent_late_p99_ms")


def write(run_directory: Path, verdict: Verdict, messages: Messages, counts: Counts | None, samples: Samples) -> None:
    """Writes all three, over those of an earlier look at the same run."""
    (run_directory / "verdict.json").write_text(json.dumps(document(verdict, messages, samples), indent=2) + "\n")
    with (run_directory / "verdict.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("figure", "value", "limit", "met"))
        table.writerows((one.name, one.value, one.bound, one.met) for one in verdict.findings)
    (run_directory / SUMMARY).write_text(summary.page(verdict, messages, counts, samples))


def document(verdict: Verdict, messages: Messages, samples: Samples) -> dict[str, object]:
    """The content of verdict.json."""
    return {
        "status": verdict.status,
        "exit_status": verdict.exit_status,
        "run": verdict.run.facts,
        "limits": {
            one.name: {"value": one.value, "limit": one.limit, "bound": one.bound, "met": one.met}
            for one in verdict.findings
        },
        "invalid": verdict.invalid,
        "notes": verdict.notes,
        "figures": verdict.beside,
        "answers": messages.answers(honest=True),
        "answers_to_attackers": messages.answers(honest=False),
        "reconciliation": msgspec.to_builtins(verdict.reconciled),
        "processes": {
            name: {
                "cpu_cores_mean": samples.cpu(name).mean,
                "cpu_cores_most": max(samples.cpu(name).values, default=None),
                "pressure_mean": samples.pressure(name).mean,
                "memory_mb_most": samples.memory_mb(name),
            }
            for name in samples.processes()
        },
    }


def terminal(verdict: Verdict) -> str:
    """What a person at the shell or the log of a CI job is told."""
    lines = [f"{'' if one.met else 'MISSED':8}{one.name:20}{summary.number(one.value):>14}  {one.bound}"
             for one in verdict.findings]  # fmt: skip
    beside = ", ".join(f"{name} {summary.number(verdict.beside[name])}" for name in _BESIDE)
    lines.append(f"        beside: {beside}")
    lines += [f"INVALID {reason}" for reason in verdict.invalid]
    lines += [f"note    {note}" for note in verdict.notes]
    if verdict.reconciled is not None:
        lines += [f"look at {example}" for example in verdict.reconciled.examples]
        lines += [f"look at {device}: in quarantine" for device in verdict.reconciled.false_quarantines or ()]
    return "\n".join([*lines, f"the load test {'is' if verdict.status == 'invalid' else 'has'} {verdict.status}"])
