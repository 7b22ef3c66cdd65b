"""The file of limits, and what a run must not exceed."""

from __future__ import annotations

from pathlib import Path

import pytest
from loadtest.outcome import Run, Verdict
from loadtest.thresholds import DEFAULT, NAMES, Finding, Thresholds, ThresholdsError, check

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "load-test-verdict.md"
GOOD: dict[str, float | None] = {**dict.fromkeys(NAMES, 0.0), "throughput_per_s": 1e6}


def test_a_shape_has_its_own_limits_before_those_of_all() -> None:
    """What it does not say is that of all."""
    thresholds = Thresholds.load()
    ramp, herd = thresholds.of("ramp"), thresholds.of("herd")
    assert ramp == thresholds.limits.given()
    assert herd["ack_p99_ms"] > ramp["ack_p99_ms"]
    assert herd["lost"] == 0


def test_throughput_is_a_least_and_everything_else_a_most() -> None:
    """At the limit is within it."""
    assert Finding("throughput_per_s", 10, 10).met
    assert not Finding("throughput_per_s", 9.9, 10).met
    assert Finding("lost", 0, 0).met
    assert not Finding("lost", 1, 0).met


def test_what_could_not_be_counted_has_missed_its_limit() -> None:
    """However generous the limit."""
    assert not Finding("lost", None, 1e9).met
    assert not Finding("throughput_per_s", None, 0).met


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("lost = 0", "lots = 0", "lots"),
        ("lost = 0 ", "", "[limits] has no lost"),
        ("lost = 0", "lost = -1", ">= 0"),
        ("lost = 0", "lost = nan", ">= 0"),
        ("ack_p99_ms = 5000", "ack_p99_ms = inf", "[shape.herd]"),
        ("pressure = 0.9", "pressure = 1.5", "<= 1"),
        ("[generator]", "[generator", "one that can be used"),
    ],
)
def test_a_file_that_limits_something_else_than_meant_is_refused(
    tmp_path: Path, before: str, after: str, says: str
) -> None:
    """A misspelled limit would pass everything."""
    text = DEFAULT.read_text()
    assert before in text
    file = tmp_path / "thresholds.toml"
    file.write_text(text.replace(before, after, 1))
    with pytest.raises(ThresholdsError) as refused:
        Thresholds.load(file)
    assert says in str(refused.value)


def verdict(figures: dict[str, float | None], *invalid: str) -> Verdict:
    findings = check(figures, Thresholds.load().of("ramp"))
    return Verdict(Run("ramp", 0, 1, "gate.toml"), findings, list(invalid), [], {}, None, 0.9)


def test_an_invalid_run_is_no_success_and_its_speed_no_failure() -> None:
    """Loss counts whatever the generator did."""
    slow, lost = GOOD | {"ack_p99_ms": 1e9}, GOOD | {"lost": 1.0}
    assert verdict(GOOD).exit_status == 0
    assert verdict(slow).exit_status == 1
    assert verdict(slow, "the generator was the bottleneck").status == "invalid"
    assert verdict(GOOD, "the generator was the bottleneck").exit_status == 3
    assert verdict(lost, "the generator was the bottleneck").exit_status == 1


@pytest.mark.parametrize("name", NAMES)
def test_each_figure_missed_alone_fails_the_run(name: str) -> None:
    """None of them is only shown."""
    bad = -1.0 if name == "throughput_per_s" else 1e12
    assert verdict(GOOD | {name: bad}).exit_status == 1


def test_the_page_names_every_figure_and_no_other() -> None:
    """In the order of the file."""
    rows = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert tuple(rows[: len(NAMES)]) == NAMES


def test_limits_of_a_shape_that_there_is_not_are_refused() -> None:
    """Misspelled, they would never be applied."""
    given = Thresholds.load()
    given.require_shapes({"herd", "tunnel", "spike"})
    with pytest.raises(ThresholdsError, match="no shape herd"):
        given.require_shapes({"hred", "tunnel", "spike"})
