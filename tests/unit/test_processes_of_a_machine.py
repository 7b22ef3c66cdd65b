"""When a child is started again, when that is given up, and what a second signal does."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from fleetgate import supervise
from fleetgate.ending import asked_to_end
from fleetgate.errors import ConfigError, Conflict, ControlAway, FleetgateError, SpoolError
from fleetgate.supervise import GIVE_UP_AFTER, Child


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "FIRST_PAUSE_SECONDS", 0.0)


def failing(tmp_path: Path, status: int) -> tuple[Child, Path]:
    """A child that ends with `status`, and the file to which it adds a byte in each life."""
    lives = tmp_path / "lives"
    script = f"import sys; open({str(lives)!r}, 'a').write('x'); sys.exit({status})"
    return Child("edge", [sys.executable, "-S", "-c", script], None), lives


@pytest.mark.parametrize("error", [ConfigError, Conflict, SpoolError])
def test_a_child_that_cannot_start_ends_the_machine(tmp_path: Path, error: type[FleetgateError]) -> None:
    """A port, a spool or a signer's log that another process has: tried three times, with the child's exit code."""
    child, lives = failing(tmp_path, error.exit_code)
    with pytest.raises(error, match="edge cannot start"):
        trio.run(child.run)
    assert lives.stat().st_size == GIVE_UP_AFTER


@pytest.mark.parametrize(("error", "healthy_s"), [(SpoolError, 0.0), (ControlAway, 10.0)], ids=["disk", "control"])
def test_a_child_is_started_for_ever_where_it_may_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[FleetgateError], healthy_s: float
) -> None:
    """A disk that failed under a healthy edge, a database that is away: both may come back."""
    monkeypatch.setattr(supervise, "HEALTHY_SECONDS", healthy_s)
    child, lives = failing(tmp_path, error.exit_code)

    async def some_time() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            with trio.fail_after(20):
                while not lives.exists() or lives.stat().st_size < GIVE_UP_AFTER + 2:  # noqa: ASYNC110  another's file
                    await trio.sleep(0.01)
            await child.stop()

    trio.run(some_time)


def test_ctrl_c_does_not_reach_a_child() -> None:
    """A terminal sends SIGINT to the processes of its session: a child ends when its order has come."""
    child = Child("edge", [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], None)

    async def some_time() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            while child.process is None:  # noqa: ASYNC110  nothing tells
                await trio.sleep(0.01)
            assert os.getsid(child.process.pid) == child.process.pid != os.getsid(0)
            await child.stop()

    trio.run(some_time)


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_second_signal_changes_nothing() -> None:
    """Neither while the process is ending nor when its loop has ended."""

    async def ending() -> None:
        asked = asked_to_end()
        os.kill(os.getpid(), signal.SIGTERM)
        await asked.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep(0.01)

    trio.run(ending)
    os.kill(os.getpid(), signal.SIGINT)
