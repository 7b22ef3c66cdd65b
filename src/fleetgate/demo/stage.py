"""Runs a demo: the gate and the fleet as processes, the table while they run, a kill when asked, the reckoning.

Decides the order and the deadlines. What is wrong afterwards is decided by `reconcile`; `scenario` uses the same stage.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from msgspec import Struct
from rich.console import Console
from rich.live import Live

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.control.store import Store
from fleetgate.demo.examples import examples
from fleetgate.demo.figures import Figures, is_ready
from fleetgate.demo.reconcile import Ledger, Report, reconcile
from fleetgate.errors import CheckFailed
from fleetgate.load.endpoint import reader
from fleetgate.spool.cursor import read_cursor
from fleetgate.spool.reader import segment_paths
from fleetgate.supervise import Child, Machine

START_SECONDS = 60.0
FLEET_GRACE_SECONDS = 60.0
NO_PROGRESS_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 0.5


class Result(Struct, frozen=True):
    """The report, and two messages to show: (title, lines) each."""

    report: Report
    examples: list[tuple[str, list[str]]]


class Plan(Struct, frozen=True):
    """One run; `kill_edge_at` and `kill_load_at` are seconds after the fleet started, None: not at all."""

    seconds: float
    seed: int
    interval: float
    kill_edge_at: float | None
    kill_load_at: float | None


async def run(config: Config, config_file: Path, fleet_file: Path, plan: Plan, console: Console) -> Result:
    """Raises FleetgateError when gate or fleet do not start or do not end."""
    directory = config_file.parent
    async with running(config, config_file, console) as machine:
        with Screen(console, Figures(config)) as screen:
            killed_at_s = await _fleet(directory, fleet_file, plan, machine, screen)
            if not await until_loaded(config, screen, NO_PROGRESS_SECONDS):
                raise CheckFailed(
                    f"load has not gone on for {NO_PROGRESS_SECONDS:.0f} s: see gate.log in the demo's directory"
                )
        return await trio.to_thread.run_sync(_reckon, config, directory, killed_at_s)


@asynccontextmanager
async def running(config: Config, config_file: Path, console: Console) -> AsyncIterator[Machine]:
    """A gate that is ready; it ends with the context. What its processes say goes to gate.log. Raises CheckFailed."""
    with (config_file.parent / "gate.log").open("ab") as gate_log:
        machine = Machine(config_file, gate_log.fileno())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.run)
            try:
                await _until_ready(config, console)
                yield machine
            finally:
                with trio.CancelScope(shield=True):
                    await machine.stop()
                nursery.cancel_scope.cancel()


async def _until_ready(config: Config, console: Console) -> None:
    with console.status("starting edge and load"), trio.move_on_after(START_SECONDS):
        for listen in (config.edge.admin_listen, config.load.admin_listen):
            while not await trio.to_thread.run_sync(is_ready, listen):  # noqa: ASYNC110  another process's state
                await trio.sleep(0.1)
        return
    raise CheckFailed(f"the gate was not ready within {START_SECONDS:.0f} s: see gate.log in the demo's directory")


async def _fleet(directory: Path, fleet_file: Path, plan: Plan, machine: Machine, screen: Screen) -> dict[str, float]:
    """Runs the fleet to its end; when edge and load were killed, in seconds after its start."""
    killed_at_s: dict[str, float] = {}
    arguments = [
        *("run", str(fleet_file), "--ledger", str(directory / "ledger.db"), "--state", str(directory / "state")),
        *("--seconds", f"{plan.seconds}", "--interval", f"{plan.interval}", "--seed", f"{plan.seed}"),
    ]
    async with trio.open_nursery() as nursery:
        for at_s, child in ((plan.kill_edge_at, machine.edge), (plan.kill_load_at, machine.load)):
            if at_s is not None:
                nursery.start_soon(_kill_at, at_s, child, killed_at_s)
        await drive(directory, arguments, plan.seconds + FLEET_GRACE_SECONDS, screen)
        nursery.cancel_scope.cancel()
    return killed_at_s


async def drive(directory: Path, arguments: Sequence[str], seconds: float, screen: Screen) -> None:
    """Runs `fleetsim` with these arguments to its end, at most so long. What it says goes to fleet.log. Raises
    CheckFailed."""
    with (directory / "fleet.log").open("ab") as fleet_log:
        fleet = await trio.lowlevel.open_process(
            [sys.executable, "-m", "fleetsim", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=fleet_log.fileno(),
            stderr=subprocess.STDOUT,
        )
    try:
        with trio.move_on_after(seconds):
            while fleet.poll() is None:
                await screen.refresh("the fleet is driving")
                await trio.sleep(LOOK_AGAIN_SECONDS)
    finally:
        late = fleet.poll() is None
        if late:
            fleet.kill()
    if late:
        raise CheckFailed("the fleet did not end in time: see fleet.log in the demo's directory")
    if fleet.returncode:
        raise CheckFailed(_last_words(directory) or f"the fleet ended with status {fleet.returncode}: see fleet.log")


def _last_words(directory: Path) -> str:
    """Why the fleet ended, where it says so: an error that it expected is its last line."""
    lines = (directory / "fleet.log").read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("fleetsim: ") if lines and lines[-1].startswith("fleetsim: ") else ""


async def _kill_at(seconds: float, child: Child, killed_at_s: dict[str, float]) -> None:
    started_s = trio.current_time()
    await trio.sleep(seconds)
    if child.process is None:
        return  # between two lives: there is nobody to kill, and none is reported
    child.kill()
    killed_at_s[child.name] = round(trio.current_time() - started_s, 1)


async def until_loaded(config: Config, screen: Screen, patience_s: float) -> bool:
    """Waits until everything in the spool is in ClickHouse; False when nothing of it got there for so long."""
    directory = config.path(config.spool.directory)
    before, since_s = None, trio.current_time()
    while not _loaded(directory):
        await screen.refresh("waiting for ClickHouse to have it all")
        progress = (read_cursor(directory), screen.rows_loaded)
        if progress != before:
            before, since_s = progress, trio.current_time()
        elif trio.current_time() - since_s > patience_s:
            return False
        await trio.sleep(LOOK_AGAIN_SECONDS)
    return True


def _loaded(spool: Path) -> bool:
    cursor = read_cursor(spool)
    segments = segment_paths(spool / "segments")
    waiting = [number for number, _ in segments if cursor is None or number > cursor.segment]
    return cursor is not None and not waiting and not segment_paths(spool / "segments", ".open")


def _reckon(config: Config, directory: Path, killed_at_s: dict[str, float]) -> Result:
    clickhouse = reader(config)
    ledger = Ledger(directory / "ledger.db")
    try:
        with Store.open(config, SystemClock()) as store:
            report = reconcile(ledger, clickhouse, store, config.limits, killed_at_s)
        return Result(report, examples(directory / "ledger.db", clickhouse, report.quarantined["actual"]))
    finally:
        ledger.close()
        clickhouse.close()


class Screen:
    """The table on a terminal, or a line every few seconds where there is none."""

    _LINE_EVERY = 10

    def __init__(self, console: Console, figures: Figures) -> None:
        self._console = console
        self._figures = figures
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._looks = 0

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def rows_loaded(self) -> float:
        """As of the last refresh."""
        return self._figures.rows_loaded

    @property
    def watch_behind_s(self) -> float:
        """In seconds of the gate's clock, as of the last refresh."""
        return self._figures.watch_behind_s

    async def refresh(self, what: str) -> None:
        """Asks the gate how it goes, and shows it."""
        await trio.to_thread.run_sync(self._figures.poll)
        if self._live is not None:
            self._live.update(self._figures.table(what))
        elif self._looks % self._LINE_EVERY == 0:
            rows = self._figures.rows()
            shown = ("time", "answers", "accepted so far", "rows in ClickHouse", "refused", "put into quarantine")
            self._console.print("; ".join(f"{name} {rows[name]}" for name in shown), highlight=False)
        self._looks += 1
