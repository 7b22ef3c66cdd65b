"""docs/reference/metrics.md: each metric stands there once, as the process has it, and each label in the list of them.

Those of the edge are compared with a running one (tests/integration/edge/test_room_and_admin.py).
"""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from tests.deployed import METRICS_PAGE, metric_rows

from fleetgate.clock import SystemClock
from fleetgate.load.counts import Counts
from fleetgate.load.lag import LagCollector


def test_the_page_has_the_metrics_of_load(tmp_path: Path) -> None:
    """Each once, with its type and labels, and none that there is not."""
    registry = CollectorRegistry()
    counts = Counts(registry)
    registry.register(LagCollector(tmp_path, SystemClock()))
    labels = {each._name: frozenset[str](each._labelnames) for each in vars(counts).values()}
    exported = [
        (family.name + "_total" * (family.type == "counter"), (family.type, labels.get(family.name, frozenset())))
        for family in registry.collect()
        if not family.name.endswith("_created")
    ]
    page = METRICS_PAGE.read_text().partition("## Load")[2]
    assert sorted(exported, key=str) == sorted(((name, tuple(said)) for name, said in metric_rows(page)), key=str)


def test_every_label_stands_in_the_list_of_labels() -> None:
    """And the list has none that no metric has: an operator reads there that none of them names a device."""
    page = METRICS_PAGE.read_text()
    listed = re.search(r"Labels come from closed sets: ([\w,\s]+)\.", page)
    assert listed is not None
    used = {label for _, said in metric_rows(page) for label in said.labels}
    assert listed[1].replace("\n", " ").split(", ") == sorted(used)
