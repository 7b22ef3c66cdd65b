"""What deploy/ and its pages ask of the gate: queries of rules and dashboards, the metrics that there are, commands.

Reads PromQL as far as that needs: names of metrics, the labels in braces and those that a query groups by.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from typer.main import get_command

from fleetgate.cli.main import app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARDS = DEPLOY / "grafana" / "dashboards"
METRICS_PAGE = ROOT / "docs" / "reference" / "metrics.md"

_ROW = re.compile(r"^\| `(fleetgate_\w+)` \| (\w+) \| ([\w, -]+) \|", re.MULTILINE)
_SELECTOR = re.compile(r"\b(fleetgate_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|group_left)\s*\(([^)]*)\)")
OF_PROMETHEUS = frozenset({"instance", "job", "le"})


class Selector(NamedTuple):
    """One metric in a query; `matchers` are (label, operator, value)."""

    metric: str
    matchers: list[tuple[str, str, str]]


class Query(NamedTuple):
    """`where` names it for a person who has to mend it."""

    where: str
    text: str

    def selectors(self) -> list[Selector]:
        return [Selector(name, _MATCHER.findall(inside)) for name, inside in _SELECTOR.findall(self.text)]

    def grouped_by(self) -> set[str]:
        return {label.strip() for inside in _GROUPING.findall(self.text) for label in inside.split(",")} - {""}


class Documented(NamedTuple):
    kind: str
    labels: frozenset[str]


def metric_rows(page: str) -> list[tuple[str, Documented]]:
    """The rows of the reference page, or of a part of it, as they stand there."""
    return [
        (name, Documented(kind, frozenset(labels.split(", ")) - {"-"})) for name, kind, labels in _ROW.findall(page)
    ]


def documented(page: str = "") -> dict[str, Documented]:
    """Every series that the reference page promises, by the name that a query uses for it."""
    found: dict[str, Documented] = {"up": Documented("gauge", frozenset())}
    for name, said in metric_rows(page or METRICS_PAGE.read_text()):
        for suffix in ("_bucket", "_sum", "_count") if said.kind == "histogram" else ("",):
            found[name + suffix] = said
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All of them, those in rows too."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def queries() -> list[Query]:
    found = [Query(rule["alert"], rule["expr"]) for rule in rules()]
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in panels(json.loads(file.read_text())):
            found += [Query(f"{file.name}: {panel['title']}", target["expr"]) for target in panel.get("targets", [])]
    return found


def understood(line: str) -> None:
    """A command line of `fleetgate` is one: its commands exist and take these options. Raises TyperException else."""
    command: Any = get_command(app)  # of typer's own copy of click, which has no public name
    arguments = shlex.split(line)[1:]
    context = command.context_class(command, info_name="fleetgate")
    while hasattr(command, "resolve_command") and arguments and not arguments[0].startswith("-"):
        name, found, arguments = command.resolve_command(context, arguments)
        context, command = found.context_class(found, info_name=name, parent=context), found
    command.parse_args(context, arguments)
