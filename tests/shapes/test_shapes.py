"""Each shape passes its thresholds against a sound gate, and misses them when the gate is broken while it runs.

    make shapes                     every shape, the thresholds of the project: for a machine with nothing else to do
    make shapes ARGS="-k herd"

One gate serves all runs, as one that somebody names with `--target`. In `make test` there is one shape, and a limit of
time that a busy machine keeps too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loadtest.sampler import family
from loadtest.scenario import shapes
from loadtest.thresholds import DEFAULT, Thresholds

from tests.faults.processes import stopped
from tests.gate import until
from tests.loadruns import Rig
from tests.shapes.locust_run import load_test

SHAPES = [pytest.param(name, marks=pytest.mark.quick) if name == "rush-hour" else name for name in shapes()]
STORED = {"lost", "duplicated", "unexpected", "false_quarantines"}
EXACT = STORED | {"false_refusals", "attacks_accepted"}
BUSY_MS, HELD_UP_MS = 60_000, 2_000
SOON_S = 3.0  # after the first answers: in the middle of what a shape is about
STALL_S = 2.0  # beyond the limit: enough messages are due in it for a percentile


@pytest.fixture
def busy(request: pytest.FixtureRequest) -> bool:
    """Whether the machine may have other work."""
    return bool(request.config.getoption("--quick"))


@pytest.fixture
def patient(busy: bool, tmp_path: Path) -> tuple[str, ...]:
    """Options of a run whose speed is not what the test is about."""
    return limits(tmp_path, BUSY_MS) if busy else ()


@pytest.fixture
def sound(rig: Rig) -> Iterator[Rig]:
    """The gate, which is whole again and has loaded everything when the test is over."""
    yield rig
    rig.proxy.heal()
    rig.await_loaded()


def limits(directory: Path, ack_p99_ms: float) -> tuple[str, str]:
    """The option for the project's thresholds with one other limit of time, in every shape, and any generator."""
    lines = DEFAULT.read_text().splitlines()
    others = {"ack_p99_ms": f"{ack_p99_ms:g}", "share_of_seconds": "1.0"}
    written = directory / "thresholds.toml"
    names = [(line.partition(" =")[0], line) for line in lines]
    written.write_text("\n".join(f"{name} = {others[name]}" if name in others else line for name, line in names) + "\n")
    return "--thresholds", str(written)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sound_gate_passes(sound: Rig, shape: str, tmp_path: Path, patient: tuple[str, ...]) -> None:
    """Status 0, which a CI job goes by; everything that was acknowledged is stored once."""
    with load_test(sound, shape, tmp_path, *patient) as run:
        ran = run.finish()
    assert (ran.status, ran.missed, ran.verdict["invalid"]) == (0, set(), []), ran.said
    found = ran.verdict["reconciliation"]
    assert 0 < found["acknowledged"] <= found["stored"], ran.said
    assert {name for name, usage in ran.verdict["processes"].items() if usage["cpu_cores_mean"]} >= {"generator"}


@pytest.mark.parametrize("shape", SHAPES)
def test_clickhouse_stopped_fails(sound: Rig, shape: str, tmp_path: Path, patient: tuple[str, ...]) -> None:
    """Vehicles get their acknowledgements all the same; that nobody could see them stored is no success."""
    with load_test(sound, shape, tmp_path, *patient) as run:
        run.await_answers()
        sound.proxy.refuse()
        try:
            ran = run.finish()
        finally:
            sound.proxy.listen_again()
    assert ran.status == 1, ran.said
    assert ran.missed - {"query_error_share"} == STORED, ran.said
    assert any("ClickHouse does not answer" in note for note in ran.verdict["notes"])


@pytest.mark.parametrize("shape", SHAPES)
def test_acknowledgements_that_come_late_fail(sound: Rig, shape: str, tmp_path: Path, busy: bool) -> None:
    """The edge stands still for longer than the limit: what was due meanwhile is charged with the whole wait."""
    limit_ms = HELD_UP_MS if busy else Thresholds.load().of(shape)["ack_p99_ms"]
    with load_test(sound, shape, tmp_path, *(limits(tmp_path, limit_ms) if busy else ())) as run:
        run.await_answers()
        time.sleep(SOON_S)
        with stopped(sound.edge):
            time.sleep(limit_ms / 1000 + STALL_S)
        ran = run.finish()
    assert ran.status == 1, ran.said
    assert "ack_p99_ms" in ran.missed, ran.said
    assert ran.missed & EXACT == set(), ran.said


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_that_are_there_twice_fail(sound: Rig, shape: str, tmp_path: Path, patient: tuple[str, ...]) -> None:
    """Each insert into `events` is made twice, the second time under another token, so that ClickHouse keeps both."""
    with load_test(sound, shape, tmp_path, *patient) as run:
        sound.double_inserts()
        ran = run.finish()
    assert ran.status == 1, ran.said
    assert ran.missed & EXACT == {"duplicated"}, ran.said
    found = ran.verdict["reconciliation"]
    assert found["duplicated"] > 0
    assert found["examples"]


@pytest.mark.quick
def test_a_generator_that_was_the_bottleneck_says_so(sound: Rig, tmp_path: Path) -> None:
    """A hundred times what one process can send: status 3, and the reason; the same gate passes above."""
    scenario = tmp_path / "scenario.toml"
    scenario.write_text("""
[traffic]
seconds_between = 0.005
events = 1
batch = 10
rows = 200
connections_per_second = 100

[mix]
mqtt = 1

[shape.mad]
says = "More than anybody can send."
load = [[0.0, 1.0], [1.0, 1.0]]
""")
    with load_test(sound, "mad", tmp_path, "--scenario", str(scenario)) as run:
        ran = run.finish()
    assert (ran.status, ran.verdict["status"]) == (3, "invalid"), ran.said
    assert "INVALID the generator was the bottleneck" in ran.said
    assert ran.missed & EXACT == set(), ran.said


@pytest.mark.quick
def test_a_run_that_is_interrupted_leaves_nobody_behind(sound: Rig, tmp_path: Path) -> None:
    """By SIGTERM, as CI jobs are: status 130, nothing judged, and no process of locust is left."""
    with load_test(sound, "soak", tmp_path, "--processes", "2") as run:
        run.await_answers()
        everybody = family(run.pid)[1:]
        assert len(everybody) >= 3  # locust's master and its two workers
        run.terminate()
        status, said = run.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in everybody), "all of them have ended", 60)
    assert status == 130, said
    assert "interrupted: nothing was judged" in said
