"""Alert rules and dashboards name metrics that exist, fire when they should, and lead to a page that says what to do."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from prometheus_client import CollectorRegistry
from tests.deployed import DEPLOY, METRICS_PAGE, OF_PROMETHEUS, ROOT, Query, documented, queries, rules
from typer.main import get_command

from fleetgate.cli.main import app
from fleetgate.clock import SystemClock
from fleetgate.load.counts import Counts
from fleetgate.load.lag import LagCollector

RUNBOOKS = ROOT / "docs" / "runbooks"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")
_COMMANDS = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
BOOKS = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")


@pytest.mark.parametrize("query", queries(), ids=lambda query: query.where)
def test_a_query_names_metrics_and_labels_that_exist(query: Query) -> None:
    """As the reference page has them, which other tests compare with edge and load."""
    known = documented()
    assert query.selectors(), query.text
    for selector in query.selectors():
        assert selector.metric in known, f"{query.where} asks for {selector.metric}"
        labels = {label for label, _, _ in selector.matchers}
        assert labels <= known[selector.metric].labels | OF_PROMETHEUS, f"{query.where}: {selector}"
    labels = frozenset[str]().union(*(known[selector.metric].labels for selector in query.selectors()))
    assert query.grouped_by() <= labels | OF_PROMETHEUS, f"{query.where} groups by {query.grouped_by()}"


def test_a_misspelt_metric_or_label_would_be_found() -> None:
    """The reader of queries sees through functions, sums and regular expressions."""
    query = Query("x", 'sum by (kind) (rate(fleetgate_crls{age=~"stale|expired"}[5m])) / on (job) fleetgate_typo_total')
    assert [selector.metric for selector in query.selectors()] == ["fleetgate_crls", "fleetgate_typo_total"]
    assert query.selectors()[0].matchers == [("age", "=~", "stale|expired")]
    assert query.grouped_by() == {"kind", "job"}
    assert "fleetgate_typo_total" not in documented()


def test_the_page_has_the_metrics_of_load(tmp_path: Path) -> None:
    """Every one with its type and labels, and none that there is not; those of the edge are compared with a running one."""
    registry = CollectorRegistry()
    counts = Counts(registry)
    registry.register(LagCollector(tmp_path, SystemClock()))
    labels = {each._name: frozenset(each._labelnames) for each in vars(counts).values()}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    exported = {
        family.name + suffix: (family.type, labels.get(family.name, frozenset()))
        for family in registry.collect()
        if not family.name.endswith("_created")
        for suffix in suffixes.get(family.type, ("",))
    }
    page = METRICS_PAGE.read_text().partition("## Load")[2]
    assert exported == {name: tuple(said) for name, said in documented(page).items() if name != "up"}


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    """The page begins with the alert's name, stands in the list of pages, and nobody looks for one in vain."""
    pages = {rule["alert"]: ROOT / rule["annotations"]["runbook_url"] for rule in rules()}
    assert sorted(pages.values()) == BOOKS
    index = (RUNBOOKS / "README.md").read_text()
    for rule in rules():
        name, page = rule["alert"], pages[rule["alert"]]
        assert page.read_text().startswith(f"# {name}\n"), f"{page} is about {name}"
        assert f"| [{name}]({page.name}) | {rule['labels']['severity']} |" in index
        assert {"summary", "consequence"} < rule["annotations"].keys()


@pytest.mark.parametrize("page", BOOKS, ids=lambda page: page.stem)
def test_what_a_runbook_says_to_type_exists(page: Path) -> None:
    """Every `fleetgate` command of it, with its options: at three in the morning nobody wants to correct one."""
    [block] = _COMMANDS.findall(page.read_text())
    told = [line for line in block.splitlines() if line.startswith("fleetgate ")]
    told += [inline for inline in re.findall(r"`(fleetgate [^`]+)`", page.read_text())]
    assert block.strip()
    for line in told:
        command, arguments = get_command(app), shlex.split(line)[1:]
        context = click.Context(command, info_name="fleetgate")
        while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
            name, command, arguments = command.resolve_command(context, arguments)
            assert command is not None, line
            context = click.Context(command, info_name=name, parent=context)
        command.parse_args(context, arguments)


@pytest.mark.parametrize("page", BOOKS, ids=lambda page: page.stem)
def test_where_a_runbook_leads_there_is_a_page(page: Path) -> None:
    """Its links, to files of the documentation."""
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / link).is_file(), f"{page.name} leads to {link}"


@needs_promtool
@pytest.mark.parametrize(
    "check",
    [["check", "config", "prometheus.yml"], ["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yml"]],
    ids=lambda check: " ".join(check),
)
def test_promtool_finds_nothing(check: list[str]) -> None:
    """Configuration and rules are good, and each alert fires when it should and not below that."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *check], cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tried() -> None:
    """rules.test.yml has a case in which it fires: a rule without one may never fire."""
    tried = re.findall(r'alertname="(\w+)"\}', (DEPLOY / "prometheus" / "rules.test.yml").read_text())
    assert sorted(tried) == sorted(rule["alert"] for rule in rules())
