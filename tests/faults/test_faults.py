"""Nothing acknowledged is ever lost: each fault of the registry, under load, and the oracle at its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.clickhouse import Server
from tests.faults.page import table
from tests.faults.rooms import FAULTS
from tests.faults.trial import Fault, Trial
from tests.gate import Installation


@pytest.mark.parametrize(
    "fault", [pytest.param(one, id=one.name, marks=[pytest.mark.quick] if one.quick else []) for one in FAULTS.values()]
)
def test_fault(
    fault: Fault,
    authority: Installation,
    server: Server,
    seed: int,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Whatever the fault breaks under load, every acknowledged event is in ClickHouse once, as it was sent."""
    started_s = time.monotonic()
    trial = Trial(fault, authority, server, tmp_path / "gate", seed)
    try:
        trial.begin()
        fault.strike(trial)
        found = trial.end()
    finally:
        trial.close()
    record_property("lost_and_doubled", (found.lost, found.doubled))
    verdict = "ok" if not found.problems else "FAILED"
    record_property("line", f"{fault.name}: {verdict}: {found.line()}; {time.monotonic() - started_s:.0f} s")
    assert not found.problems, "\n".join(found.problems)


@pytest.mark.quick
def test_the_page_about_durability_has_every_fault() -> None:
    """Its table is what `python -m tests.faults.page` prints."""
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "durability.md").read_text()
    assert "\n".join(table()) in page
