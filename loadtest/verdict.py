"""Whether a load test passed: `python -m loadtest.verdict runs/TIME`, and its exit status for a CI job.

    0  passed    every limit kept
    1  failed    a limit missed in a valid run, or something acknowledged lost, doubled or wronged in any
    2            the run or the thresholds cannot be read
    3  invalid   nothing was lost, but the run does not measure the gate: the generator was the bottleneck, or did not
                 come to its end, or nobody looked

Decides what makes a run invalid, and that it is then no success either. Figures, limits and the comparison with
ClickHouse are those of `figures`, `thresholds` and `reconcile`; pages and files those of `reports`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from loadtest import locust_csv, reports
from loadtest.figures import beside, limited
from loadtest.messages import Messages
from loadtest.outcome import Run, RunError, Verdict
from loadtest.reconcile import SETTLE_SECONDS, Reconciliation, Unreconciled, reconcile
from loadtest.samples import Samples
from loadtest.thresholds import DEFAULT, Generator, Thresholds, ThresholdsError, check

from fleetgate.config import Config
from fleetgate.config import load as load_config
from fleetgate.errors import ConfigError

UNUSABLE = 2


def judge(run_directory: Path, thresholds: Thresholds, settle_s: float = SETTLE_SECONDS) -> Verdict:
    """Reads everything of a run that has ended, waits until it is loaded, writes the reports. Raises RunError."""
    run = Run.load(run_directory)
    config = _gate(run, run_directory)
    messages, requests = Messages(run_directory), locust_csv.read(run_directory)
    samples = Samples(run_directory, run.started_ms / 1000, run.ended_ms / 1000)
    notes: list[str] = []
    reconciled: Reconciliation | None = None
    try:
        reconciled = reconcile(messages, config, run.started_ms, settle_s)
        notes += reconciled.notes
    except Unreconciled as error:
        notes.append(str(error))
    figures = limited(messages, requests, reconciled, run.seconds)
    verdict = Verdict(
        run,
        check(figures, thresholds.of(run.shape)),
        _invalid(run, messages, requests, samples, thresholds.generator),
        notes,
        beside(messages),
        reconciled,
        thresholds.generator.pressure,
    )
    reports.write(run_directory, verdict, messages, requests, samples)
    return verdict


def _gate(run: Run, run_directory: Path) -> Config:
    try:
        return load_config(run_directory / run.gate)  # an absolute path stays as it is
    except ConfigError as error:
        raise RunError(f"the gate of {run_directory}: {error}") from None


def _invalid(
    run: Run, messages: Messages, requests: list[locust_csv.Requests], samples: Samples, limit: Generator
) -> list[str]:
    found = []
    if messages.journals < run.processes:
        found.append(
            f"{messages.journals} of {run.processes} processes of the generator left a journal; what the others sent "
            "is not known"
        )
    if messages.incomplete:
        found.append(
            f"{', '.join(messages.incomplete)}: a process of the generator ended before its journal; what it sent last "
            "is not known"
        )
    if not len(messages.acknowledged):
        found.append("no message of an honest device was acknowledged: the run shows nothing")
    if not requests:
        found.append(f"locust left no {locust_csv.FILE}: its errors are not known")
    if not samples.complete:
        found.append("gate and generator were not looked at for more than half of the run: who was slow is not known")
    elif len(samples.generator()) < run.processes:
        found.append("the CPU of the generator was not measured in each of its processes: it may be the bottleneck")
    name, share = samples.busiest(limit.pressure)
    if share > limit.share_of_seconds:
        found.append(
            f"the generator was the bottleneck: {name} had something to do for {limit.pressure:.0%} of the time or "
            f"more in {share:.0%} of the seconds; use fewer users, more --processes or another machine"
        )
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.verdict",
        description="Judges a load test that has ended; writes verdict.json, verdict.csv and summary.html beside it.",
    )
    parser.add_argument("run", type=Path, help="the directory of the run")
    parser.add_argument("--thresholds", type=Path, default=DEFAULT, help="another file of limits")
    given = parser.parse_args(arguments)
    try:
        verdict = judge(given.run, Thresholds.load(given.thresholds))
    except (RunError, ThresholdsError) as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    print(reports.terminal(verdict))
    print(f"the page to show: {given.run / reports.SUMMARY}")
    return verdict.exit_status


if __name__ == "__main__":
    sys.exit(main())
