"""Runs one of the simulator's scenarios against a gate of its own, on one virtual clock, and has it scored.

Decides how fast the clock runs and for how long the run may go on. What happens in a scenario, and whether the gate did
well, is fleetsim's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import trio
from msgspec import Struct
from rich.console import Console

from fleetgate.clock import TEST_CLOCK_VARIABLE, SystemClock
from fleetgate.config import Config
from fleetgate.control.store import Store
from fleetgate.demo.decisions import decisions
from fleetgate.demo.figures import Figures
from fleetgate.demo.stage import LOOK_AGAIN_SECONDS, Screen, drive, running, until_loaded
from fleetgate.errors import CheckFailed, ConfigError
from fleetgate.load.endpoint import reader

GRACE_SECONDS = 120.0  # beyond its own time: contexts of thousands of devices, and the last answers
PATIENCE = 2.0  # a machine that has other things to do makes the fleet late; the score says so
NO_PROGRESS_SECONDS = 120.0
WATCHED_SECONDS = 300.0
UP_TO_DATE = 3.0  # looks, or seconds of the machine: nearer to the clock the watch never is
LOOK_SECONDS = 10.0


class Scenario(Struct, frozen=True):
    """As `fleetsim scenarios` tells it; times are virtual, `speed` is how many times as fast they go by. With
    fewer than `least_vehicles` an alert that is due may not come."""

    name: str
    says: str
    vehicles: int
    speed: float
    least_vehicles: int
    before_s: float
    trouble_s: float

    @property
    def seconds(self) -> float:
        """Of the machine."""
        return (self.before_s + self.trouble_s) / self.speed


def find(name: str, vehicles: int | None, speed: float | None) -> Scenario:
    """The scenario of that name, with another size or speed where one is given. Raises ConfigError."""
    told = subprocess.run([sys.executable, "-m", "fleetsim", "scenarios", "--json"], capture_output=True, check=True)
    scenarios = {each.name: each for each in _decode(told.stdout)}
    if name not in scenarios:
        raise ConfigError(f"--scenario: there is no {name!r}; there are {', '.join(scenarios)}")
    found = scenarios[name]
    return msgspec.structs.replace(found, vehicles=vehicles or found.vehicles, speed=speed or found.speed)


async def run(
    config: Config, config_file: Path, fleet_file: Path, scenario: Scenario, seed: int, console: Console
) -> None:
    """Leaves `truth.db` and `decisions.json` beside the configuration. Raises FleetgateError."""
    directory = config_file.parent
    # Edge, load, signer and fleet read it, and agree whenever they start.
    os.environ[TEST_CLOCK_VARIABLE] = f"{SystemClock().now_ms()},{scenario.speed},{time.monotonic()}"
    async with running(config, config_file, console):
        with Screen(console, Figures(config)) as screen:
            arguments = ("scenario", scenario.name, str(fleet_file), "--ledger", str(directory / "truth.db"))
            await drive(
                directory, (*arguments, "--seed", str(seed)), PATIENCE * scenario.seconds + GRACE_SECONDS, screen
            )
            complete = await until_loaded(config, screen, NO_PROGRESS_SECONDS)
            complete &= await _until_watched(screen, UP_TO_DATE * max(LOOK_SECONDS, scenario.speed))
        await trio.to_thread.run_sync(_write_decisions, config, directory / "decisions.json", complete)


async def _until_watched(screen: Screen, behind_s: float) -> bool:
    """Waits until the watch has looked at what is loaded; what it has not seen then, it has not seen."""
    with trio.move_on_after(WATCHED_SECONDS):
        while screen.watch_behind_s > behind_s:
            await screen.refresh("waiting for the watch to have looked")
            await trio.sleep(LOOK_AGAIN_SECONDS)
        return True
    return False


def _write_decisions(config: Config, path: Path, complete: bool) -> None:
    clickhouse = reader(config)
    try:
        with Store.open(config, SystemClock()) as store:
            found = decisions(store, clickhouse, config.edge.admin_listen, complete=complete)
    finally:
        clickhouse.close()
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")


def scored(directory: Path) -> tuple[list[str], str, bytes]:
    """What `fleetsim score` says of a run: lines, what is not as it should be (empty: nothing), and JSON. Raises
    CheckFailed."""
    score = directory / "score.json"
    command = ("score", str(directory / "truth.db"), str(directory / "decisions.json"), "--json", str(score))
    done = subprocess.run([sys.executable, "-m", "fleetsim", *command], capture_output=True, text=True, check=False)
    if not score.exists():
        raise CheckFailed(f"the run cannot be scored: {done.stderr.strip()}")
    return done.stdout.splitlines(), done.stderr.strip().removeprefix("fleetsim: "), score.read_bytes()


_decode = msgspec.json.Decoder(list[Scenario]).decode
