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
import traceback
from collections.abc import Iterator
from pathlib import Path

from loadtest import locust_counts, reports
from loadtest.figures import beside, limited
from loadtest.journal import RunError
from loadtest.locust_counts import Counts
from loadtest.messages import Messages
from loadtest.outcome import Run, Verdict
from loadtest.reconcile import SETTLE_SECONDS, Reconciliation, Unreconciled, reconcile
from loadtest.samples import Samples
from loadtest.thresholds import DEFAULT, Generator, Thresholds, ThresholdsError, check

from fleetgate.config import Config
from fleetgate.configfile import load as load_config
from fleetgate.errors import ConfigError

UNUSABLE = 2
ALL_THERE = 0.95  # of the users that a shape wants, at its highest
CLOCK_STEP_SECONDS = 0.5


def judge(run_directory: Path, thresholds: Thresholds, settle_s: float = SETTLE_SECONDS) -> Verdict:
    """Reads everything of a run that has ended, waits until it is loaded, writes the reports. Raises RunError."""
    run = Run.load(run_directory)
    config = _gate(run, run_directory)
    messages, counts = Messages(run_directory), Counts.read(run_directory)
    started_s, ended_s = run.started_ms / 1000, run.ended_ms / 1000
    samples = Samples(run_directory, started_s, ended_s)
    notes: list[str] = []
    reconciled: Reconciliation | None = None
    try:
        reconciled = reconcile(messages, config, run.started_ms, run.ended_ms, settle_s)
        notes += reconciled.notes
    except Unreconciled as error:
        notes.append(str(error))
    figures = limited(messages, counts, reconciled, started_s, ended_s)
    verdict = Verdict(
        run,
        check(figures, thresholds.of(run.shape)),
        [*_unknown(run, messages, counts), *_too_slow(run, counts, samples, thresholds.generator)],
        notes,
        beside(messages, ended_s),
        reconciled,
        thresholds.generator.pressure,
    )
    reports.write(run_directory, verdict, messages, counts, samples)
    return verdict


def _gate(run: Run, run_directory: Path) -> Config:
    try:
        return load_config(run_directory / run.gate)  # an absolute path stays as it is
    except ConfigError as error:
        raise RunError(f"the gate of {run_directory}: {error}") from None


def _unknown(run: Run, messages: Messages, counts: Counts | None) -> Iterator[str]:
    """Why what was sent is not known, or shows nothing."""
    if messages.journals != run.processes:
        yield (
            f"{run.processes} processes of the generator left {messages.journals} journals: what was sent is not "
            "wholly known"
        )
    if messages.incomplete:
        yield (
            f"{', '.join(messages.incomplete)}: a process of the generator ended before its journal; what it sent last "
            "is not known"
        )
    if not len(messages.acknowledged):
        yield "no message of an honest device was acknowledged: the run shows nothing"
    attackers = [device for device in messages.devices if device.hostile]
    if attackers and not beside(messages, run.ended_ms / 1000)["attacks_answered"]:
        yield f"no message of the {len(attackers)} attackers was answered: nothing was attacked"
    if counts is None:
        yield f"locust left no {locust_counts.FILE}: its errors are not known"
    elif counts.broken:
        yield f"users of the generator broke: {'; '.join(counts.broken[:3])}"


def _too_slow(run: Run, counts: Counts | None, samples: Samples, limit: Generator) -> Iterator[str]:
    """Why its speed says nothing about the gate."""
    if run.seconds < run.minutes * 60 - 1:
        yield f"it ended after {run.seconds:.0f} of {run.minutes * 60:.0f} s"
    wanted, there = (max((getattr(look, of) for look in counts.users), default=0) if counts else 0
                     for of in ("wanted", "there"))  # fmt: skip
    if there < ALL_THERE * wanted:
        yield f"of {wanted} users {there} were there at most"
    if not samples.complete:
        yield "gate and generator were not looked at for more than half of the run: who was slow is not known"
    elif len(samples.generator()) < run.processes:
        yield "the CPU of the generator was not measured in each of its processes: it may be the bottleneck"
    if samples.clock_step_s > CLOCK_STEP_SECONDS:
        yield f"the machine's clock was set by {samples.clock_step_s:.1f} s during the run"
    name, share = samples.busiest(limit.pressure)
    if share > limit.share_of_seconds:
        yield (
            f"the generator was the bottleneck: {name} had something to do for {limit.pressure:.0%} of the time or "
            f"more in {share:.0%} of the seconds; use fewer users, more --processes or another machine"
        )


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
    except Exception:  # status 1 would say that a limit was missed
        traceback.print_exc()
        return UNUSABLE
    print(reports.terminal(verdict))
    print(f"the page to show: {given.run / reports.SUMMARY}")
    return verdict.exit_status


if __name__ == "__main__":
    sys.exit(main())
