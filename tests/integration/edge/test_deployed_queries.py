"""Alert rules and dashboards ask for values of labels that a running edge has: a misspelt one would never fire."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families
from tests.deployed import queries
from tests.gate import Gate

OF_LOAD = ("fleetgate_load_", "fleetgate_watch_", "fleetgate_alerts_", "fleetgate_webhook_")
PLACES = {"instance", "job", "le"}


def test_a_value_that_a_query_names_is_one_of_the_edges(shared_gate: Gate) -> None:
    """Each condition of a query, also one that leaves something out, is met by a value that is there."""
    values: dict[tuple[str, str], set[str]] = {}
    for family in text_string_to_metric_families(shared_gate.admin("/metrics")[1]):
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault((sample.name, label), set()).add(value)
    tried = 0
    for query in queries():
        for metric, matchers in query.selectors():
            for label, operator, value in matchers:
                if metric == "up" or metric.startswith(OF_LOAD) or label in PLACES:
                    continue
                wanted = value.split("|") if "~" in operator else [value]
                found = values[metric, label]
                assert [one for one in wanted if not any(re.fullmatch(one, each) for each in found)] == [], query
                tried += 1
    assert tried
