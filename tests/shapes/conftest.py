"""One gate for all of these tests, whose ClickHouse has a proxy before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gate import Installation
from tests.loadruns import Rig, standing


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with standing(Installation.create(tmp_path_factory.mktemp("authority")), tmp_path_factory) as made:
        yield made
