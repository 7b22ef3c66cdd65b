"""One gate for all of these tests, whose ClickHouse has a proxy before it, and the options of `make shapes`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.clickhouse import Server
from tests.gate import Installation
from tests.loadruns import Rig


def pytest_addoption(parser: pytest.Parser) -> None:
    quick = "only the runs of `make test`, with limits of time for a machine that does something else as well"
    parser.addoption("--quick", action="store_true", help=quick)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: a run that is in `make test` too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        left = [item for item in items if item.get_closest_marker("quick") is None]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


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
