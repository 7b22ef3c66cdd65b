"""A spool in a directory of the test, with a clock that is set by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.spools import OpenSpool, SetClock


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def spool(tmp_path: Path, clock: SetClock) -> Iterator[OpenSpool]:
    opened = OpenSpool(tmp_path / "spool", clock)
    yield opened
    opened.close()
