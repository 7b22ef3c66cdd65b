"""The figures on the page about performance are those of a kept run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from loadtest.bench import page
from loadtest.bench.context import FULL, QUICK
from loadtest.bench.results import RESULTS
from loadtest.bench.run import CASES

RUN = {
    "command": "make bench",
    "commit": "0123456789abcdef",
    "machine": {"cores": 2, "processor": "a processor", "load_average_before": 0.2},
    "versions": {"python": "3.11.7"},
    "cases": {"http": {"edge_cpu_us_per_event": 9.5, "rss_mb": 100.0}},
}
FIT: dict[str, Any] = {
    **RUN,
    "at": "2026-01-01T00:00:00+00:00",
    "sizes": FULL._asdict(),
    "cases": {case: {"rss_mb": 1.0} for case in CASES if case not in page.YARDSTICKS},
    "failed": {},
}


def test_a_run_is_put_between_the_marks() -> None:
    """What stands around them stays, and a second time changes nothing."""
    once = page.filled(page.PAGE.read_text(), "run.json", RUN)
    assert "| http | `edge_cpu_us_per_event` | ≤ 13 | 9.50 |" in once
    assert "`make bench` at commit 01234567 on 2 cores of a processor, Python 3.11.7" in once
    assert page.filled(once, "run.json", RUN) == once
    assert once.startswith(page.PAGE.read_text()[:200])


def test_a_machine_that_was_busy_and_files_that_differed_are_said() -> None:
    """Beside the figures, where a reader sees it."""
    run = RUN | {"commit": "0123456789abcdef+", "machine": RUN["machine"] | {"load_average_before": 0.66}}  # type: ignore[operator]
    said = page.filled(page.PAGE.read_text(), "run.json", run)
    assert "at commit 01234567+ on" in said
    assert "Files differed from that commit." in said
    assert "load average 0.66 before the run" in said


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"sizes": QUICK._asdict()}, "it is not of the full sizes"),
        ({"cases": {}}, "cases are absent: judge, chatty"),
        ({"failed": {"herd": "why"}}, "cases failed: herd"),
        ({"cases": FIT["cases"] | {"columns": {"late_messages": 5.0}}}, "signed while the clock ran: columns"),
    ],
)
def test_only_a_whole_run_may_stand_on_the_page(changed: dict[str, Any], reason: str) -> None:
    """A full one of every case, none of which failed or signed late."""
    assert page.unfit(FIT) == []
    [why] = page.unfit(FIT | changed)
    assert reason in why


def test_the_newest_run_is_so_by_its_own_time(tmp_path: Path) -> None:
    """A checkout gives every file the time of the checkout; and runs that may not stand there are passed over."""
    runs = {
        "c": FIT,
        "b": FIT | {"at": "2026-01-03T00:00:00+00:00"},
        "a": FIT | {"at": "2026-01-02T00:00:00+00:00"},
        "d": FIT | {"at": "2026-01-04T00:00:00+00:00", "failed": {"herd": "why"}},
    }
    for name, run in runs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(run))
    assert [path.name for path in page.newest(tmp_path)] == ["b.json"]


def test_a_run_that_was_named_and_is_not_whole_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page stays as it is, and the reason is said."""
    before = page.PAGE.read_text()
    (tmp_path / "run.json").write_text(json.dumps(FIT | {"failed": {"herd": "why"}}))
    assert page.main([str(tmp_path / "run.json")]) == 1
    assert "cannot stand on the page: cases failed: herd" in capsys.readouterr().err
    assert page.PAGE.read_text() == before


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
