"""Alert rules and dashboards name metrics that exist, fire when they should, and lead to a page with what to do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.deployed import (
    DASHBOARDS,
    DEPLOY,
    OF_PROMETHEUS,
    ROOT,
    Query,
    documented,
    panels,
    queries,
    rules,
    understood,
)

RUNBOOKS = ROOT / "docs" / "runbooks"
PROVISIONING = DEPLOY / "grafana" / "provisioning"
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
    known_labels = frozenset[str]().union(*(known[selector.metric].labels for selector in query.selectors()))
    assert query.grouped_by() <= known_labels | OF_PROMETHEUS, f"{query.where} groups by {query.grouped_by()}"


def test_a_misspelt_metric_or_label_would_be_found() -> None:
    """The reader of queries sees through functions, sums and regular expressions."""
    query = Query("x", 'sum by (kind) (rate(fleetgate_crls{age=~"stale|expired"}[5m])) / on (job) fleetgate_typo_total')
    assert [selector.metric for selector in query.selectors()] == ["fleetgate_crls", "fleetgate_typo_total"]
    assert query.selectors()[0].matchers == [("age", "=~", "stale|expired")]
    assert query.grouped_by() == {"kind", "job"}
    assert "fleetgate_typo_total" not in documented()


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
    told += re.findall(r"`(fleetgate [^`]+)`", page.read_text())
    assert block.strip()
    for line in told:
        understood(line)


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
    done = subprocess.run([PROMTOOL, *check], cwd=DEPLOY / "prometheus", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tried() -> None:
    """rules.test.yml has a case in which it fires: a rule without one may never fire."""
    tried = re.findall(r'alertname="(\w+)"', (DEPLOY / "prometheus" / "rules.test.yml").read_text())
    assert set(tried) == {rule["alert"] for rule in rules()}


@pytest.mark.parametrize("file", sorted(DASHBOARDS.glob("*.json")), ids=lambda file: file.stem)
def test_a_dashboard_asks_the_data_source_that_is_provisioned(file: Path) -> None:
    """Every panel says what it shows, asks that source, has a place of its own, and all variables are declared."""
    dashboard = json.loads(file.read_text())
    [source] = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    declared = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval"}
    shown = [panel for panel in panels(dashboard) if panel["type"] != "row"]
    assert len({panel["id"] for panel in panels(dashboard)}) == len(list(panels(dashboard)))
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in shown}) == len(shown)
    for panel in shown:
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == source["uid"]
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= declared, target["expr"]


@needs_promtool
def test_prometheus_can_read_what_the_dashboards_ask(tmp_path: Path) -> None:
    """Each query, as a rule of its own; Grafana's variables are what they would be."""
    asked = [re.sub(r"\$__rate_interval", "1m", query.text) for query in queries()]
    rules = [{"record": f"asked:{number}", "expr": text} for number, text in enumerate(asked)]
    (tmp_path / "asked.yml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    assert PROMTOOL is not None
    check = [PROMTOOL, "check", "rules", "asked.yml"]
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
