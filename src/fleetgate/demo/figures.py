"""What the gate says of itself while it runs, read from its metrics, and the table a person looks at.

Counters start again when a process does; `Rising` adds its lives up.
"""

from __future__ import annotations

import time
import urllib.request
from collections import defaultdict, deque
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

from fleetgate.config import Config

Labels = tuple[tuple[str, str], ...]
_TIMEOUT_SECONDS = 1.0
_RATE_WINDOW = 6  # samples: three seconds


class Rising:
    """Counters by (name, labels), added up over the restarts of a process."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, Labels], float] = {}
        self._total: dict[tuple[str, Labels], float] = defaultdict(float)

    def take(self, samples: Mapping[tuple[str, Labels], float]) -> None:
        for key, value in samples.items():
            last = self._last.get(key, 0.0)
            self._total[key] += value - last if value >= last else value
            self._last[key] = value

    def sum(self, name: str, **labels: str) -> float:
        wanted = set(labels.items())
        return sum(value for (metric, found), value in self._total.items() if metric == name and wanted <= set(found))

    def by(self, name: str, label: str) -> dict[str, float]:
        grouped: dict[str, float] = defaultdict(float)
        for (metric, labels), value in self._total.items():
            if metric == name:
                grouped[dict(labels)[label]] += value
        return grouped


def scrape(listen: str) -> dict[tuple[str, Labels], float] | None:
    """The samples of a process's /metrics; None while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{listen}/metrics", timeout=_TIMEOUT_SECONDS) as answer:
            text = answer.read().decode()
    except (OSError, ValueError):
        return None
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def is_ready(listen: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{listen}/readyz", timeout=_TIMEOUT_SECONDS) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


class Figures:
    """Polls both processes; `table` is what stands on the terminal."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._edge, self._load = Rising(), Rising()
        self._gauges: dict[tuple[str, Labels], float] = {}
        self._edge_up = self._load_up = False
        self._acked: deque[tuple[float, float]] = deque(maxlen=_RATE_WINDOW)
        self._started_s = time.monotonic()

    def poll(self) -> None:
        edge, load = scrape(self._config.edge.admin_listen), scrape(self._config.load.admin_listen)
        self._edge_up, self._load_up = edge is not None, load is not None
        self._edge.take(edge or {})
        self._load.take(load or {})
        self._gauges = {**(edge or {}), **(load or {})}
        self._acked.append((time.monotonic(), self._edge.sum("fleetgate_acks_total")))

    @property
    def acked_per_second(self) -> float:
        (then, before), (now, after) = self._acked[0], self._acked[-1]
        return (after - before) / (now - then) if now > then else 0.0

    @property
    def watch_behind_s(self) -> float:
        return self._gauge("fleetgate_watch_behind_seconds")

    @property
    def rows_loaded(self) -> float:
        """Into all tables, over all lives of load."""
        return self._load.sum("fleetgate_load_rows_total")

    def _gauge(self, name: str, **labels: str) -> float:
        return self._gauges.get((name, tuple(sorted(labels.items()))), 0.0)

    def table(self, what: str) -> Table:
        table = Table(title=f"fleetgate demo, {what}", title_justify="left", show_header=False, min_width=72)
        table.add_column(style="bold", width=22)
        table.add_column(width=48)
        for name, text in self.rows().items():
            table.add_row(name, text)
        return table

    def rows(self) -> dict[str, str]:
        edge, load = self._edge, self._load
        outcomes = edge.by("fleetgate_messages_total", "outcome")
        reasons = {name: count for name, count in edge.by("fleetgate_rejections_total", "reason").items() if count}
        transitions = edge.by("fleetgate_transitions_total", "state")
        stored = load.by("fleetgate_load_rows_total", "table")
        return {
            "time": f"{time.monotonic() - self._started_s:.0f} s",
            "edge, load": f"{_state(self._edge_up)}, {_state(self._load_up)}",
            "connections": f"{self._gauge('fleetgate_connections', transport='mqtt'):.0f} MQTT, "
            f"{self._gauge('fleetgate_connections', transport='https'):.0f} HTTPS",
            "answers": f"{edge.sum('fleetgate_acks_total'):,.0f} ({self.acked_per_second:.0f}/s)",
            "accepted so far": f"{outcomes['accepted']:,.0f} messages with {edge.sum('fleetgate_events_total'):,.0f} "
            "events",
            "duplicates, held": f"{outcomes['duplicate']:,.0f}, {outcomes['held']:,.0f}",
            "rows in ClickHouse": f"{stored['events']:,.0f} events, {stored['held_events']:,.0f} held",
            "spool": f"{self._gauge('fleetgate_spool_bytes') / 1024:,.0f} KiB",
            "refused": f"{sum(reasons.values()):,.0f}",
            **{f"  {name}": f"{count:,.0f}" for name, count in sorted(reasons.items(), key=lambda item: -item[1])},
            "put into quarantine": f"{transitions['quarantined']:.0f} devices",
        }


def _state(up: bool) -> str:
    return "[green]running[/]" if up else "[red]down[/]"
