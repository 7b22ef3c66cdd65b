"""Options of the fault suite, what its trials share, and its report: `make faults ARGS="--only NAME --seed N"`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.clickhouse import Server
from tests.gate import Installation


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--only", help="run the faults whose name contains this")
    parser.addoption("--seed", type=int, default=1, help="seed of the moments at which faults strike")


def pytest_configure(config: pytest.Config) -> None:
    # CPython leaves the socket open when its peer goes between connect() and the wrapping in TLS, as killed edges do.
    leak = "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
    config.addinivalue_line("filterwarnings", leak)
    config.pluginmanager.register(Lines(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    only = config.getoption("--only")
    if only:
        config.hook.pytest_deselected(items=[item for item in items if only not in item.name])
        items[:] = [item for item in items if only in item.name]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seed"))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """What `fleetgate ca init` makes; never run, only copied."""
    return Installation.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The ClickHouse of all trials that do not bring their own."""
    started = Server(tmp_path_factory.mktemp("clickhouse"))
    yield started
    started.close()


class Lines:
    """Prints each fault's line when it is over, whichever process it ran in."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.when != "call" or reporter is None:  # a process of its own for the faults has none
            return
        for name, line in report.user_properties:
            if name == "line":
                reporter.ensure_newline()
                reporter.write_line(str(line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The last line: what all faults together lost and doubled."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    counts = [value for report in reports for name, value in report.user_properties if name == "lost_and_doubled"]
    if not counts and not terminalreporter.stats.get("failed"):
        return
    lost, doubled = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    failed = len(terminalreporter.stats.get("failed", []))
    terminalreporter.write_line(
        f"{len(counts)} faults, {lost} lost, {doubled} duplicated" + (f"; {failed} FAILED" if failed else "")
    )
