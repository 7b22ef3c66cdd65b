"""What every directory of tests shares: how Hypothesis runs, and `--quick`. Each run tries the same examples, and no
deadline fails a test on a busy machine."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "fleetgate",
    derandomize=True,
    deadline=None,
    max_examples=300,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("fleetgate")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="of a long suite only what `make test` runs, in little time")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: in a long suite one that `make test` runs too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        left = [item for item in items if item.get_closest_marker("quick") is None]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
