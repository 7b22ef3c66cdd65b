"""One gate for all of these tests, whose ClickHouse has a proxy before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.clickhouse import Server
from tests.gate import Installation
from tests.loadruns import Rig


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    authority = Installation.create(tmp_path_factory.mktemp("authority"))
    server = Server(tmp_path_factory.mktemp("clickhouse"))
    made = Rig(authority, tmp_path_factory.mktemp("rig"), server)
    try:
        made.start()
        yield made
    finally:
        made.close()
        server.close()
