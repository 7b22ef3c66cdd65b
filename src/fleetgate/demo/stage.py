"""Runs a demo: the gate and the fleet as processes, the table while they run, a kill when asked, the reckoning.

Decides the order and the deadlines. What is wrong afterwards is decided by `reconcile`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
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
from fleetgate.load.clickhouse import ServerClickHouse
from fleetgate.spool.cursor import read_cursor
from fleetgate.spool.reader import segment_paths
from fleetgate.supervise import Child, Machine

START_SECONDS = 60.0
FLEET_GRACE_SECONDS = 60.0
LOADED_SECONDS = 60.0
_LOOK_SECONDS = 0.5


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
    figures = Figures(config)
    with (directory / "gate.log").open("ab") as gate_log, (directory / "fleet.log").open("ab") as fleet_log:
        machine = Machine(config_file, gate_log.fileno())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.run)
            try:
                await _until_ready(config, console)
                with _Screen(console, figures) as refresh:
                    killed_at_s = await _fleet(
                        directory, fleet_file, plan, machine, figures, refresh, fleet_log.fileno()
                    )
                    await _until_loaded(config, figures, refresh)
                return await trio.to_thread.run_sync(_reckon, config, directory, killed_at_s)
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


async def _fleet(
    directory: Path,
    fleet_file: Path,
    plan: Plan,
    machine: Machine,
    figures: Figures,
    refresh: Callable[[str], None],
    output: int,
) -> dict[str, float]:
    """Runs the fleet to its end; when edge and load were killed, in seconds after its start."""
    killed_at_s: dict[str, float] = {}
    arguments = [
        *(sys.executable, "-m", "fleetsim", "run", str(fleet_file)),
        *("--ledger", str(directory / "ledger.db"), "--state", str(directory / "state")),
        *("--seconds", f"{plan.seconds}", "--interval", f"{plan.interval}", "--seed", f"{plan.seed}"),
    ]
    fleet = await trio.lowlevel.open_process(
        arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    )
    with trio.move_on_after(plan.seconds + FLEET_GRACE_SECONDS):
        async with trio.open_nursery() as nursery:
            for at_s, child in ((plan.kill_edge_at, machine.edge), (plan.kill_load_at, machine.load)):
                if at_s is not None:
                    nursery.start_soon(_kill_at, at_s, child, killed_at_s)
            while fleet.poll() is None:
                await trio.to_thread.run_sync(figures.poll)
                refresh("the fleet is driving")
                await trio.sleep(_LOOK_SECONDS)
            nursery.cancel_scope.cancel()
    if fleet.poll() is None:
        fleet.kill()
        raise CheckFailed("the fleet did not end in time: see fleet.log in the demo's directory")
    if fleet.returncode:
        raise CheckFailed(f"the fleet ended with status {fleet.returncode}: see fleet.log in the demo's directory")
    return killed_at_s


async def _kill_at(seconds: float, child: Child, killed_at_s: dict[str, float]) -> None:
    started_s = trio.current_time()
    await trio.sleep(seconds)
    if child.process is None:
        return  # between two lives: there is nobody to kill, and none is reported
    child.kill()
    killed_at_s[child.name] = round(trio.current_time() - started_s, 1)


async def _until_loaded(config: Config, figures: Figures, refresh: Callable[[str], None]) -> None:
    """Waits until everything in the spool is in ClickHouse."""
    directory = config.path(config.spool.directory)
    with trio.move_on_after(LOADED_SECONDS):
        while not _loaded(directory):
            await trio.to_thread.run_sync(figures.poll)
            refresh("waiting for ClickHouse to have it all")
            await trio.sleep(_LOOK_SECONDS)
        return
    raise CheckFailed(f"load did not catch up within {LOADED_SECONDS:.0f} s: see gate.log in the demo's directory")


def _loaded(spool: Path) -> bool:
    cursor = read_cursor(spool)
    segments = segment_paths(spool / "segments")
    waiting = [number for number, _ in segments if cursor is None or number > cursor.segment]
    return cursor is not None and not waiting and not segment_paths(spool / "segments", ".open")


def _reckon(config: Config, directory: Path, killed_at_s: dict[str, float]) -> Result:
    token = config.path(config.clickhouse.token_file).read_text().strip()
    url = f"http://{config.clickhouse.listen}"
    clickhouse = ServerClickHouse(url, config.clickhouse.database, config.clickhouse.user, token)
    ledger = Ledger(directory / "ledger.db")
    try:
        with Store.open(config, SystemClock()) as store:
            report = reconcile(ledger, clickhouse, store, config.limits, killed_at_s)
        return Result(report, examples(directory / "ledger.db", clickhouse, report.quarantined["actual"]))
    finally:
        ledger.close()
        clickhouse.close()


class _Screen:
    """The table on a terminal, or a line every few seconds where there is none."""

    _LINE_EVERY = 10

    def __init__(self, console: Console, figures: Figures) -> None:
        self._console = console
        self._figures = figures
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self._looks = 0

    def __enter__(self) -> Callable[[str], None]:
        if self._live is not None:
            self._live.start()
        return self._refresh

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _refresh(self, what: str) -> None:
        if self._live is not None:
            self._live.update(self._figures.table(what))
        elif self._looks % self._LINE_EVERY == 0:
            rows = self._figures.rows()
            shown = ("time", "answers", "accepted, of all", "rows in ClickHouse", "refused", "put into quarantine")
            self._console.print("; ".join(f"{name} {rows[name]}" for name in shown), highlight=False)
        self._looks += 1
