"""Fixtures of the simulator's unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.fleetsim.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A device on a fresh disk."""
    return Bench(tmp_path / "journal.db")
