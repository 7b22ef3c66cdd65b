"""The command: which cases run, what is skipped, what fails, and what the JSON holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from loadtest.bench import results, run
from loadtest.bench.context import Context
from loadtest.bench.processes import BenchError
from loadtest.bench.sketch_case import Absent

ran: list[str] = []


def case(name: str, *also: str) -> Callable[[Context], run.Found]:
    """A case that measures itself at once, and others beside it."""

    def measure(_: Context) -> run.Found:
        ran.append(name)
        return {each: [{"ratio_to_sketch": 9.0}] for each in (*also, name)}

    return measure


def fails(error: BaseException) -> Callable[[Context], run.Found]:
    def measure(_: Context) -> run.Found:
        raise error

    return measure


@pytest.fixture(autouse=True)
def cases(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[Context], run.Found]]:
    ran.clear()
    made = {"chatty": case("chatty", "sketch"), "sketch": case("sketch"), "http": case("http")}
    monkeypatch.setattr(run, "CASES", made)
    return made


def figures(tmp_path: Path, *words: str) -> tuple[int, dict[str, dict[str, float]]]:
    file = tmp_path / "out.json"
    status = run.main([*words, "--quick", "--json", str(file)])
    return status, json.loads(file.read_text())


def test_a_yardstick_measured_beside_its_case_is_not_measured_again(tmp_path: Path) -> None:
    """The sketch's figures are those of the rounds that the ratio comes from."""
    status, found = figures(tmp_path)
    assert (status, ran, list(found)) == (0, ["chatty", "http"], ["sketch", "chatty", "http"])


def test_only_the_cases_asked_for_run(tmp_path: Path) -> None:
    """`--only sketch` measures the sketch alone."""
    assert figures(tmp_path, "--only", "sketch") == (0, {"sketch": {"ratio_to_sketch": 9.0}})


def test_a_missed_target_is_said_and_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A busy machine misses targets; the exit status says whether it could be measured."""
    assert figures(tmp_path, "--only", "chatty")[0] == 0
    assert "missed: chatty: ratio_to_sketch is 9.00, not <= 1.35" in capsys.readouterr().out


def test_an_absent_sketch_is_skipped(
    tmp_path: Path, cases: dict[str, Callable[[Context], run.Found]], capsys: pytest.CaptureFixture[str]
) -> None:
    """It lies outside the project: whoever has it not can still measure the rest."""
    cases["sketch"] = fails(Absent("not here"))
    assert figures(tmp_path, "--only", "sketch", "--only", "http") == (0, {"http": {"ratio_to_sketch": 9.0}})
    assert "sketch: skipped, not here" in capsys.readouterr().out


def test_a_case_that_cannot_be_measured_fails_the_run_and_leaves_the_others(
    tmp_path: Path, cases: dict[str, Callable[[Context], run.Found]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is said, the figures of the others are kept."""
    cases["chatty"] = fails(BenchError("the swarm failed: [why]"))
    assert figures(tmp_path, "--only", "chatty", "--only", "http") == (1, {"http": {"ratio_to_sketch": 9.0}})
    assert "chatty: the swarm failed: [why]" in capsys.readouterr().out


def test_a_case_that_breaks_leaves_the_others_too(
    tmp_path: Path, cases: dict[str, Callable[[Context], run.Found]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Not only what was foreseen: a full disk or a bug costs one case."""
    cases["chatty"] = fails(OSError(28, "No space left on device"))
    assert figures(tmp_path, "--only", "chatty", "--only", "http") == (1, {"http": {"ratio_to_sketch": 9.0}})
    assert "chatty: OSError: [Errno 28] No space left on device" in capsys.readouterr().out


def test_an_interrupted_run_tells_what_was_finished(
    tmp_path: Path, cases: dict[str, Callable[[Context], run.Found]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Table and JSON of a quarter of an hour are not lost to ctrl-C."""
    cases["http"] = fails(KeyboardInterrupt())
    status, found = figures(tmp_path)
    assert (status, set(found)) == (130, {"chatty", "sketch"})
    assert "missed: chatty" in capsys.readouterr().out


def test_a_run_that_failed_is_kept_with_its_reason(
    tmp_path: Path, cases: dict[str, Callable[[Context], run.Found]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may not stand on the page, but its other figures are somebody's quarter of an hour."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "a" / "b" / "results")
    results.RESULTS.mkdir(parents=True)
    cases["chatty"] = fails(BenchError("why"))
    assert figures(tmp_path, "--save")[0] == 1
    [kept] = results.RESULTS.iterdir()
    assert json.loads(kept.read_text())["failed"] == {"chatty": "why"}


@pytest.mark.parametrize("words", [["--json", "/nowhere/at/all.json"], ["--json", "/"], ["--qui"], ["--only", "none"]])
def test_words_that_make_no_sense_are_refused_before_anything_runs(words: list[str]) -> None:
    """With status 2, which is not that of a case that failed."""
    with pytest.raises(SystemExit) as ended:
        run.main(words)
    assert (ended.value.code, ran) == (2, [])


def test_a_run_says_its_sizes_and_how_long_each_case_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A quick figure is not taken for a full one."""
    figures(tmp_path, "--only", "http")
    out = capsys.readouterr().out
    assert out.startswith("sizes: rounds 1, ")
    assert "http: 0 s" in out
