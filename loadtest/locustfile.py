"""The locust project: `locust --config loadtest/locust.conf` from the root of the repository, or `make loadtest`.

Decides when a test of this process begins and ends; what happens in it is `scenario`'s and `users`'. Read
docs/how-to/load-test-the-gate.md first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # locust itself knows this directory only, not its parent

from loadtest import generator, remote
from loadtest.bench.processes import end_with_parent
from loadtest.clock import now_s
from loadtest.generator import Generator
from loadtest.locust_counts import Counts
from loadtest.options import add_options, plan_of, scenario_of
from loadtest.pool import PoolError
from loadtest.scenario import ScenarioError
from loadtest.shape import ScenarioShape
from loadtest.users import KINDS
from loadtest.web import keep_to_itself
from locust import events
from locust.runners import MasterRunner, WorkerRunner

from fleetsim.gate import RunError

__all__ = ["ScenarioShape"]
globals().update({user.__name__: user for user in KINDS.values()})  # locust takes the users from this module's names

_starts, _started_s, _name = 0, 0.0, ""


@events.init_command_line_parser.add_listener
def _options(parser: Any) -> None:
    add_options(parser)


@events.init.add_listener
def _begin(environment: Any, **_: Any) -> None:
    """A worker that `--processes` made ends with its master, however that ends, and is looked at by the sampler."""
    runner, options = environment.runner, environment.parsed_options
    judged = not remote.elsewhere(_directory(options))
    if environment.web_ui is not None:
        keep_to_itself(environment.web_ui.app, judged=judged)
    if isinstance(runner, MasterRunner):
        remote.begin(_directory(options))
        runner.register_message(remote.MESSAGE, lambda msg, **_: remote.gathering().receive(msg.data))
        events.worker_report.add_listener(lambda client_id, data: remote.gathering().note_cost(client_id, data))
    elif isinstance(runner, WorkerRunner):
        if options.processes:
            end_with_parent()
        else:
            events.report_to_master.add_listener(lambda client_id, data: data.update(remote.cost()))


@events.test_start.add_listener
def _start(environment: Any) -> None:
    """On every process. The master has no users, and the time for all of them."""
    global _starts, _started_s, _name
    runner, options = environment.runner, environment.parsed_options
    _started_s = now_s()
    if isinstance(runner, MasterRunner):
        return
    _starts += 1
    processes = getattr(options, "expect_workers", 1) or 1
    _name = f"{runner.worker_index}" if _starts == 1 else f"{runner.worker_index}-{_starts}"
    try:
        made = Generator(plan_of(options), scenario_of(options), runner.worker_index, processes, _name)
    except (PoolError, ScenarioError, RunError, OSError) as error:
        sys.exit(f"loadtest: {error}")  # through locust's greenlets to the end of this process
    generator.begin(made)


@events.test_stop.add_listener
def _stop(environment: Any) -> None:
    """After the last user has ended."""
    generator.end()
    runner, directory = environment.runner, _directory(environment.parsed_options)
    if isinstance(runner, WorkerRunner):
        runner._send_stats()  # locust would send the last ones when the master has gone on
        remote.send_journal(runner, directory, _name)
    else:
        environment.shape_class.is_over = not remote.elsewhere(directory)
        directory.mkdir(parents=True, exist_ok=True)
        times = {"started_ms": int(_started_s * 1000), "ended_ms": int(now_s() * 1000)}
        (directory / "times.json").write_text(json.dumps(times))


@events.quitting.add_listener
def _count(environment: Any, **_: Any) -> None:
    """When everybody has ended and reported."""
    if not isinstance(environment.runner, WorkerRunner):
        directory = _directory(environment.parsed_options)
        if directory.exists():  # a test has begun
            Counts.of(environment, environment.shape_class.seen).write(directory)


def _directory(options: Any) -> Path:
    return Path(options.run_directory)
