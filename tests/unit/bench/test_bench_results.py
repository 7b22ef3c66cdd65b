"""The file of a run says on what its figures were measured, and how far its rounds lie apart."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from loadtest.bench import results

ROUNDS = {"chatty": [{"ack_ms_p50": 1.0}, {"ack_ms_p50": 3.0}], "herd": [{"rss_mb": 9.0}]}
FIGURES = {"chatty": {"ack_ms_p50": 2.0}, "herd": {"rss_mb": 9.0}}


def document() -> dict[str, object]:
    return results.document(FIGURES, dict(ROUNDS), {}, "make bench", {"rounds": 2}, 0.25)


def test_a_run_is_kept_with_command_commit_machine_and_versions() -> None:
    """Without these a figure can be compared with nothing."""
    kept = document()
    assert set(kept) == {"command", "at", "commit", "machine", "versions", "sizes", "cases", "failed", "rounds"}
    assert kept["cases"] == FIGURES


def test_rounds_stand_beside_their_medians_where_there_are_several() -> None:
    """A single measurement has no spread, and does not pretend to one."""
    assert document()["rounds"] == {"chatty": ROUNDS["chatty"]}


def test_a_file_is_named_by_day_and_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that runs sort by time, and are found by what they measured."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    path = results.save(document() | {"commit": "a" * 40})
    assert path.name.endswith("-aaaaaaaa.json")
    assert json.loads(path.read_text())["cases"] == FIGURES


def test_a_new_file_marks_the_commit_and_a_kept_run_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured is the commit only where nothing else lies in the tree."""
    kept = tmp_path / "loadtest" / "bench" / "results"
    kept.mkdir(parents=True)
    monkeypatch.setattr(results, "RESULTS", kept)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("init", "-q"), (*who, "commit", "-q", "--allow-empty", "-m", "first")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (kept / "run.json").write_text("{}")
    clean = str(document()["commit"])
    (tmp_path / "new.py").touch()
    assert (len(clean), document()["commit"]) == (40, clean + "+")


def test_a_kept_run_is_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run of the same commit on the same day gets a number; a changed tree shows in the name."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    run = document() | {"commit": "a" * 40 + "+"}
    names = [results.save(run | {"cases": {"herd": {"rss_mb": float(number)}}}).name[11:] for number in range(3)]
    assert names == ["aaaaaaaa+.json", "aaaaaaaa+-2.json", "aaaaaaaa+-3.json"]
    assert len({path.read_text() for path in (tmp_path / "results").iterdir()}) == 3
