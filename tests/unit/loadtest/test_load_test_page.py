"""docs/how-to/load-test-the-gate.md and README: the commands are ones, and the tables name what there is.

`make loadtest` itself runs in tests/integration/loadtest; here its command lines are read by the same parser.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from loadtest.run import INVITATION, ROOT, _parse
from loadtest.scenario import FILE, scenario, shapes

PAGE = (ROOT / "docs" / "how-to" / "load-test-the-gate.md").read_text()
MADE = re.compile(r'^    make loadtest ARGS="([^"]*)"', re.MULTILINE)
COMMANDS = MADE.findall(PAGE) + MADE.findall((ROOT / "README.md").read_text())


@pytest.mark.parametrize("arguments", COMMANDS)
def test_each_command_is_one(arguments: str) -> None:
    """Its options exist, and its shape is in the file that a reader copies."""
    asked = _parse(shlex.split(arguments))
    scenario(asked.shape, asked.users, asked.minutes * 60, FILE)


def test_the_page_has_enough_commands() -> None:
    assert len(COMMANDS) > 6


def test_the_table_names_every_shape() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)) == set(shapes())


def test_a_worker_elsewhere_is_started_as_the_page_says() -> None:
    """The command for a worker, which the run itself gives too."""
    [line] = [line for line in PAGE.splitlines() if line.startswith("    locust ")]
    assert line in INVITATION.format(workers=2, devices="devices", bind="10.0.0.5")


def test_what_a_run_leaves_is_named() -> None:
    """The files of the table are those that `run` and what it calls write."""
    sources = "\n".join(path.read_text() for path in Path(ROOT / "loadtest").glob("*.py"))
    for name in ("summary.html", "report.html", "verdict.json", "verdict.csv", "gate.jsonl", "run.json", "locust.log"):
        assert name in PAGE
        assert name in sources


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("--host", "staging.example"), "--target"),
        (("--server-name", "x"), "--target"),
        (("--bind", "::1"), "--workers"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(
    words: tuple[str, ...], needed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that forgot --target would be green for ever, and never load what it was made for."""
    with pytest.raises(SystemExit) as ended:
        _parse(words)
    assert ended.value.code == 2
    assert f"would do nothing without {needed}" in capsys.readouterr().err
    _parse([*words, needed, "1"])
