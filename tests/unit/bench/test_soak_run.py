"""A soak keeps what it has sampled, and does not begin what could not be judged."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from loadtest.bench import soak
from loadtest.bench.processes import BenchError

SAMPLE = dict.fromkeys(soak.LIMITS, 1.0)


@pytest.mark.parametrize(
    "words",
    [
        *(["--minutes", value] for value in ("0", "-1", "nan", "inf", "ten")),
        *(["--rate", "0"], ["--connections", "0"], ["--connections", "1.5"], ["--every", "0"]),
        *(["--minutes", "1"], ["--every", "60"], ["--min", "10"], ["--json", "/nowhere/at/all.json"], ["--json", "/"]),
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense_are_refused_before_anything_starts(words: list[str]) -> None:
    """With a sentence, and status 2: not after ten minutes."""
    with pytest.raises(SystemExit) as ended:
        soak.main(words)
    assert ended.value.code == 2


def test_an_interval_without_answers_is_as_long_as_it_was() -> None:
    """A gate that hangs for ten seconds has a latency of ten seconds, not of 0."""
    assert soak.ack_ms_p99({"seconds": 10.0, "ack_ms": {}}) == 10_000
    assert soak.ack_ms_p99({"seconds": 10.0, "ack_ms": {"p50": 1.0, "p99": 2.5}}) == 2.5


def test_samples_are_in_the_file_as_they_are_taken(tmp_path: Path) -> None:
    """Whatever happens to the soak later."""
    samples = soak.Samples(tmp_path / "soak.json")
    samples.add(5.0, SAMPLE)
    found = json.loads((tmp_path / "soak.json").read_text())
    assert (found["at_s"], found["samples"]["edge_rss_mb"], found["growth"]) == ([5.0], [1.0], {})


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (BenchError("refused"), 1), (OSError("no room"), 1)], ids=repr
)
def test_whatever_ends_it_the_samples_are_judged(
    error: BaseException,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Eleven samples are enough for a verdict, which stands in the file."""

    def ends(_directory: Path, _arguments: Namespace, _console: Any, samples: soak.Samples) -> None:
        for number in range(11):
            samples.add(float(number), SAMPLE)
        raise error

    monkeypatch.setattr(soak, "_soak", ends)
    file = tmp_path / "soak.json"
    assert soak.main(["--json", str(file)]) == status
    assert set(json.loads(file.read_text())["growth"]) == set(soak.LIMITS)
    assert "steady" in capsys.readouterr().out
