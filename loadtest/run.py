"""`make loadtest`: a gate, its devices, locust, and the verdict, from one command line.

    1  prepare   devices with certificates and keys, known to the gate
    2  start     edge and load of a gate of its own, unless --target names another one
    3  run       locust, in processes of its own: its import patches sockets and threads
    4  judge     what was sent is compared with what is stored, and everything with the thresholds

Decides what is in the directory of a run, and the exit status: that of the verdict, 2 when there was no run to judge,
130 when interrupted. What is sent is the scenario's, what is good enough the thresholds'.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from loadtest import reports
from loadtest.bench.arguments import at_least_one, positive
from loadtest.bench.processes import BenchError, Process, end_on_sigterm
from loadtest.journal import RunError
from loadtest.sampler import Sampler
from loadtest.scenario import FILE, Scenario, ScenarioError, scenario, shapes
from loadtest.target import Devices, Reach, Target
from loadtest.thresholds import DEFAULT, Thresholds, ThresholdsError
from loadtest.verdict import judge

from fleetgate.demo.prepare import free_ports
from fleetgate.errors import FleetgateError
from fleetsim.bundle import BundleError
from fleetsim.gate import RunError as SimulatorError

ROOT = Path(__file__).resolve().parents[1]
UNUSABLE, INTERRUPTED = 2, 130
WEB_PORT = 8089
WEB = f"http://127.0.0.1:{WEB_PORT}"
TOLD_SECONDS = 10.0
INVITATION = """waiting for {workers} workers: copy {devices} to the same place on each machine, and there run
    locust --config loadtest/locust.conf --worker --master-host {bind}
"""
TIMES = "times.json"
_ONLY_WITH = {
    "target": ("host", "server_name", "devices", "clickhouse_user", "clickhouse_token_file"),
    "workers": ("bind",),
}
_FAILURES = (BenchError, RunError, ScenarioError, ThresholdsError, FleetgateError, SimulatorError, BundleError, OSError)


def main(words: Sequence[str]) -> int:
    arguments = _parse(words)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("interrupted: nothing was judged", file=sys.stderr)
        return INTERRUPTED
    except _FAILURES as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return UNUSABLE
    except Exception:  # status 1 would say that a limit was missed
        traceback.print_exc()
        return UNUSABLE


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make loadtest",
        allow_abbrev=False,
        description="Loads a gate with a fleet, and says whether it kept its promises. Exit status 0: passed; 1: a "
        "limit missed; 2: no run; 3: a run that proves nothing; 130: interrupted. make itself turns 1 and 3 into 2.",
        epilog="shapes: " + "; ".join(f"{name}: {says}" for name, says in shapes().items()),
    )
    parser.add_argument("--shape", default="ramp", help="default %(default)s")
    parser.add_argument("--users", type=at_least_one, default=100, help="at most at once; default %(default)d")
    parser.add_argument("--minutes", type=positive, default=1.0, help="default %(default)g")
    parser.add_argument("--processes", type=at_least_one, default=1, help="of the generator; default %(default)d")
    parser.add_argument("--workers", type=at_least_one, help="processes of the generator elsewhere, started by hand")
    parser.add_argument("--bind", metavar="ADDRESS", help="where --workers find this one; default 127.0.0.1")
    parser.add_argument("--target", type=Path, metavar="FILE", help="configuration of a gate that runs already")
    parser.add_argument("--host", help="where it is, if not where its configuration says")
    parser.add_argument("--server-name", help="in its certificate; default localhost")
    parser.add_argument("--devices", type=Path, metavar="DIRECTORY", help="default loadtest-devices beside its file")
    parser.add_argument("--clickhouse-user", help="who asks the analysts' questions there, if not the gate's own")
    parser.add_argument("--clickhouse-token-file", type=Path, metavar="FILE", help="with that user's password")
    parser.add_argument("--scenario", type=Path, default=FILE, metavar="FILE", help="other shapes, mixes and traffic")
    parser.add_argument("--thresholds", type=Path, default=DEFAULT, metavar="FILE", help="other limits")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", metavar="DIRECTORY", help="where its files go")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is random; default %(default)d")
    parser.add_argument("--web", action="store_true", help=f"with locust's pages, at {WEB}")
    asked = parser.parse_args(words)
    if asked.workers is not None:
        if asked.processes > 1:
            parser.error("--processes are on this machine and --workers elsewhere: give one of them")
        asked.processes = asked.workers
    _refuse_idle(parser, asked)
    return asked


def _refuse_idle(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> None:
    """An option that would do nothing may be the sign of one that was forgotten: another gate would be loaded."""
    for needed, names in _ONLY_WITH.items():
        idle = [f"--{name.replace('_', '-')}" for name in names if getattr(asked, name) is not None]
        if getattr(asked, needed) is None and idle:
            parser.error(f"{', '.join(idle)} would do nothing without --{needed}")


def _run(arguments: argparse.Namespace) -> int:
    # What is wrong with either is said before anything is started.
    thresholds = Thresholds.load(arguments.thresholds)
    thresholds.require_shapes(shapes(arguments.scenario) | shapes())
    asked = scenario(arguments.shape, arguments.users, arguments.minutes * 60, arguments.scenario)
    if arguments.web:
        _require_free(WEB_PORT)
    directory = arguments.runs.resolve() / time.strftime("%Y-%m-%d-%H%M%S", time.gmtime())
    arguments.runs.mkdir(parents=True, exist_ok=True)
    # On the disk of the runs: in the memory of a /tmp its fsync would cost nothing.
    with (
        tempfile.TemporaryDirectory(prefix=".gate-", dir=arguments.runs) as temporary,
        _target(arguments, asked, Path(temporary)) as gate,
    ):
        directory.mkdir()
        if arguments.target is None:
            _say("starting a gate")
            gate.start(directory)
        _load(arguments, gate, directory)
        _say("comparing what was sent with what is stored")
        verdict = judge(directory, thresholds)
    print(reports.terminal(verdict))
    print(f"the page to show: {directory / reports.SUMMARY}; locust's own: {directory / 'report.html'}")
    return verdict.exit_status


def _target(arguments: argparse.Namespace, asked: Scenario, temporary: Path) -> Target:
    # One device for each user of each process, and for a user that comes while another one still ends; locust may give
    # all attackers to one process.
    processes = arguments.processes
    honest = -(-asked.users // processes) * processes + processes
    count = Devices(honest, (asked.attackers + 1) * processes if asked.attackers else 0)
    _say(f"preparing {count.honest + count.hostile} devices")
    if arguments.target is not None:
        given = (arguments.host, arguments.server_name or "localhost", arguments.devices)
        reach = Reach(*given, arguments.clickhouse_user, arguments.clickhouse_token_file)
        return Target.of_somebody(arguments.target, count, reach)
    return Target.own(temporary, count)


def _load(arguments: argparse.Namespace, gate: Target, directory: Path) -> None:
    """Runs locust to its end. Raises BenchError when it fails."""
    command = [
        *(sys.executable, "-m", "locust", "--config", str(ROOT / "loadtest" / "locust.conf"), *gate.options()),
        *("--shape", arguments.shape, "--users", str(arguments.users), "--minutes", str(arguments.minutes)),
        *("--scenario", str(arguments.scenario.resolve()), "--seed", str(arguments.seed)),
        *("--run-directory", str(directory), "--csv", str(directory / "requests")),
        *("--csv-full-history", "--html", str(directory / "report.html")),
        *_share(arguments),
        *(["--autostart", "--autoquit", "5", "--web-host", "127.0.0.1"] if arguments.web else ["--headless"]),
    ]
    log = directory / "locust.log"
    generator = Process(command, log, ROOT)
    try:
        watched = {name: process.pid for name, process in gate.processes.items()} | {"generator": generator.pid}
        with Sampler(directory, gate.listeners, watched) as sampler:
            if arguments.workers is not None:
                _say(INVITATION.format(workers=arguments.workers, bind=_bind(arguments), devices=gate.devices))
            at = f"; watch it at {WEB}" if arguments.web else ""
            _say(f"{arguments.shape}: {arguments.users} users for {arguments.minutes:g} minutes{at}")
            status = _watch(generator, sampler)
    finally:
        generator.stop()
    if status or not (directory / TIMES).exists():
        raise BenchError(f"locust ended with status {status}, and there is nothing to judge; {generator.last_words()}")
    _describe(arguments, gate, directory)


def _watch(generator: Process, sampler: Sampler) -> int:
    """Says every ten seconds how it goes, until the end; locust's exit status."""
    began_s = time.monotonic()
    while (status := generator.wait(TOLD_SECONDS)) is None:
        print(f"    {time.monotonic() - began_s:4.0f} s  {sampler.in_words()}", flush=True)
    return status


def _require_free(port: int) -> None:
    """Raises BenchError; locust would find out at the end."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BenchError(
                f"locust's pages need port {port} of 127.0.0.1: {error.strerror}; end what has it"
            ) from None


def _bind(arguments: argparse.Namespace) -> str:
    return arguments.bind or "127.0.0.1"


def _share(arguments: argparse.Namespace) -> list[str]:
    """How locust divides the users. What connects to its master may say what it likes: nobody else is to reach it."""
    if arguments.workers is not None:
        return ["--master", "--master-bind-host", _bind(arguments), "--expect-workers", str(arguments.workers)]
    if arguments.processes > 1:
        [port] = map(str, free_ports(1))
        at = ("--master-bind-host", "127.0.0.1", "--master-bind-port", port, "--master-port", port)
        return ["--processes", str(arguments.processes), *at]
    return []


def _describe(arguments: argparse.Namespace, gate: Target, directory: Path) -> None:
    facts = {
        **json.loads((directory / TIMES).read_text()),
        **{name: getattr(arguments, name) for name in ("shape", "users", "minutes", "processes", "seed")},
        "gate": str(gate.file.resolve()),
        "scenario": str(arguments.scenario),
        "thresholds": str(arguments.thresholds),
        "versions": {name: version(name) for name in ("fleetgate", "fleetsim", "locust")}
        | {"python": platform.python_version()},
        "cpus": os.cpu_count(),
    }
    (directory / "run.json").write_text(json.dumps(facts, indent=2) + "\n")


def _say(what: str) -> None:
    print(f"{what} ...", flush=True)


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main(sys.argv[1:]))
