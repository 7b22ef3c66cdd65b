"""The figures on the page about performance are those of a kept run."""

from __future__ import annotations

import json
import re

import pytest
from loadtest.bench import page
from loadtest.bench.results import RESULTS

RUN = {
    "command": "make bench",
    "commit": "0123456789abcdef",
    "machine": {"cores": 2, "processor": "a processor"},
    "versions": {"python": "3.11.7"},
    "cases": {"http": {"edge_cpu_us_per_event": 9.5, "rss_mb": 100.0}},
}


def test_a_run_is_put_between_the_marks() -> None:
    """What stands around them stays, and a second time changes nothing."""
    once = page.filled(page.PAGE.read_text(), "run.json", RUN)
    assert "| http | `edge_cpu_us_per_event` | ≤ 13 | 9.50 |" in once
    assert "`make bench` at commit 01234567 on 2 cores of a processor, Python 3.11.7" in once
    assert page.filled(once, "run.json", RUN) == once
    assert once.startswith(page.PAGE.read_text()[:200])


def test_a_page_without_its_marks_is_left_alone() -> None:
    """Somebody rewrote it: nothing is guessed."""
    with pytest.raises(ValueError, match="has lost its marks"):
        page.filled("# Where the time goes\n", "run.json", RUN)


def test_the_page_says_what_its_run_says() -> None:
    """Nobody has changed a figure by hand, and the file it names is there."""
    text = page.PAGE.read_text()
    named = re.search(r"`loadtest/bench/results/([^`]+)`", text)
    if named is None:
        assert "No run has been kept yet" in text
        return
    name = named.group(1)
    assert page.filled(text, name, json.loads((RESULTS / name).read_text())) == text
