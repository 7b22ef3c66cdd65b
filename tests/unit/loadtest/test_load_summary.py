"""The page to send: one file, everything in it, and nothing of what strangers wrote becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from loadtest import summary
from loadtest.charts import Chart, Line, svg
from loadtest.figures import beside, limited
from loadtest.journal import Journal
from loadtest.locust_counts import Counts
from loadtest.messages import Messages
from loadtest.outcome import Run, Verdict
from loadtest.samples import Samples, Series
from loadtest.thresholds import Thresholds, check
from loadtest.timeline import Timeline
from tests.loadruns import write_counts

HOSTILE = "<script>alert('x')</script>"


class _Tags(HTMLParser):
    """Every element must be closed where it was opened."""

    VOID = frozenset({"meta"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def page(directory: Path) -> str:
    """Of a run of 4 s, in which hostile names stand wherever a name may come from outside."""
    with Journal(directory, "0", lambda: 1_002.5) as journal:
        device = journal.device("acme", "car-1", f"mqtt {HOSTILE}")
        for seq in range(8):
            journal.sent(device, 1, seq, 2, 1_000 + seq / 2)
            journal.answered(device, 1, seq, "accepted" if seq else HOSTILE)
    write_counts(directory, HOSTILE)
    facts = {"shape": HOSTILE, "started_ms": 1_000_000, "ended_ms": 1_004_000, "gate": "gate.toml", "note": HOSTILE}
    facts |= {"minutes": 0.5, "versions": {"fleetgate": "1.0", "locust": HOSTILE}}
    (directory / "run.json").write_text(json.dumps(facts))
    run, messages, counts = Run.load(directory), Messages(directory), Counts.read(directory)
    thresholds = Thresholds.load()
    findings = check(limited(messages, counts, None, 1_000, 1_004), thresholds.of(run.shape))
    verdict = Verdict(run, findings, [HOSTILE], [HOSTILE], beside(messages, 1_004), None, 0.9)
    return summary.page(verdict, messages, counts, Samples(directory, 1_000, 1_004))


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    """No script, no link, no address of anything: it opens from a mail attachment."""
    text = page(tmp_path)
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert {"script", "link", "img", "iframe", "a"}.isdisjoint(tags.seen)
    assert re.search(r"https?:|url\(|@import", text) is None
    assert {"h1", "table", "svg", "polyline"} <= set(tags.seen)


def test_the_page_says_what_is_unknown_and_what_is_missed(tmp_path: Path) -> None:
    """Without a comparison with ClickHouse nothing is called stored."""
    text = page(tmp_path)
    assert "could not be compared" in text
    assert "<td>lost</td><td>unknown</td><td>at most 0</td><td>missed</td>" in text


def test_the_facts_of_the_run_are_written_for_a_person(tmp_path: Path) -> None:
    """Times in UTC, and no spelling of Python's."""
    text = page(tmp_path)
    assert "<td>started</td><td>1970-01-01 00:16:40 UTC</td>" in text
    assert "<td>versions</td><td>fleetgate 1.0, locust &lt;script&gt;" in text
    assert "<td>minutes</td><td>0.5</td>" in text


def test_a_chart_without_points_says_so() -> None:
    """An empty picture would look like a zero."""
    assert "nothing was measured" in svg(Chart("CPU", "cores", [Line("edge", Series([], []))], 10))


def test_a_limit_is_drawn_where_it_tells_something() -> None:
    """Far above everything it would press the lines flat."""
    lines = [Line("p99", Series([0.0, 1.0], [10.0, 20.0]))]
    assert "class='limit'" in svg(Chart("Latency", "ms", lines, 1, limit=("limit", 30.0)))
    assert "class='limit'" not in svg(Chart("Latency", "ms", lines, 1, limit=("limit", 5_000.0)))


def test_points_over_time_add_up_to_what_was_sent(tmp_path: Path) -> None:
    """Due when they were due, acknowledged when the answer came."""
    now_s = 1_000.0

    def clock() -> float:
        return now_s

    with Journal(tmp_path, "0", clock) as journal:
        device = journal.device("acme", "car-1", "mqtt")
        for seq, due_s in enumerate((1_000.2, 1_000.7, 1_001.5)):
            journal.sent(device, 1, seq, 10, due_s)
        now_s = 1_002.2
        for seq in range(3):
            journal.answered(device, 1, seq, "accepted")
    timeline = Timeline(Messages(tmp_path), 1_000.0, 4.0)
    assert timeline.due_per_s().values == [20, 10, 0, 0]
    assert timeline.acknowledged_per_s().values == [0, 0, 30, 0]
    assert timeline.latency_ms(100).at_s == [0.0, 1.0]
