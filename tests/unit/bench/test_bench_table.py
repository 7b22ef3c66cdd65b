"""What a person sees of a run: it fits 80 columns, shows the spread, and says what was missed."""

from __future__ import annotations

import io

import pytest
from loadtest.bench import table
from loadtest.bench.targets import TARGETS
from rich.console import Console

CHATTY = [
    {"edge_cpu_us_per_event": value, "ratio_to_sketch": 1.2, "generator_cpu_us_per_message": 12.25}
    for value in (31.0, 33.0, 32.0)
]
BATCHED = [{"edge_cpu_us_per_event": 1.2, "readings_per_s": 12_345_678.9}]
CASES = {"chatty": CHATTY, "batched": BATCHED}


def shown() -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(table.terminal(CASES))
    return out.getvalue()


def line(figure: str) -> str:
    [found] = [each for each in shown().splitlines() if figure in each]
    return " ".join(found.split())


def test_it_fits_80_columns_without_cutting_anything_off() -> None:
    """The longest names of figures and the longest targets, each on one line."""
    longest = [
        {name: 1e9 for target in TARGETS[case] for name in (target.figure, target.of) if name} for case in TARGETS
    ]
    out = io.StringIO()
    Console(file=out, width=80).print(
        table.terminal(dict(zip(TARGETS, ([each, each] for each in longest), strict=True)))
    )
    assert "…" not in out.getvalue()
    assert len(out.getvalue().splitlines()) == 5 + len(TARGETS) + sum(map(len, longest))


def test_a_figure_stands_with_its_spread_and_its_target() -> None:
    """Median of three rounds, half of what lies between the extremes, and whether it was met."""
    assert line("ratio_to_sketch") == "ratio_to_sketch 1.20 ±0% <= 1.35 met"
    assert [word for word in shown().split() if word.startswith(("32.", "±3"))] == ["32.0", "±3%"]


def test_a_single_measurement_has_no_spread() -> None:
    """One round says nothing about the next."""
    assert line("readings_per_s") == "readings_per_s 12,345,679"


def test_what_was_missed_is_said_in_a_line() -> None:
    """Case, figure, value and bound."""
    assert table.missed(CASES) == ["chatty: edge_cpu_us_per_event is 32.0, not <= 30"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.66649, "0.666"),
        (26.61, "26.6"),
        (148.2, "148"),
        (999.4, "999"),
        (999.6, "1,000"),
        (54321.6, "54,322"),
    ],
)
def test_a_number_shows_the_digits_that_count(value: float, text: str) -> None:
    """Three below a thousand; above, all of them in groups."""
    assert table.number(value) == text


def test_messages_signed_late_are_said_in_a_line() -> None:
    """Those of the worst round, though the median of the rounds is 0."""
    [said] = table.late({"http": [{"a": 1.0}, {"a": 1.0, "late_messages": 1200.0}, {"a": 1.0}], "herd": [{"a": 1.0}]})
    assert said.startswith("http: 1,200 messages of a round were signed while the clock ran")


def test_a_page_shows_what_an_event_costs_at_half_load() -> None:
    """Beside chatty's, which is at saturation."""
    assert "| sustained | `edge_cpu_us_per_event` | | 36.5 |" in table.page(
        {"sustained": {"edge_cpu_us_per_event": 36.5}}
    )


def test_a_page_shows_the_figures_that_have_a_target() -> None:
    """The others are in the file of the run."""
    medians = {case: rounds[0] for case, rounds in CASES.items()}
    assert table.page(medians).splitlines()[2:] == [
        "| chatty | `edge_cpu_us_per_event` | ≤ 30 | 31.0, missed |",
        "| chatty | `ratio_to_sketch` | ≤ 1.35 | 1.20 |",
        "| batched | `edge_cpu_us_per_event` | ≤ 1.6 | 1.20 |",
    ]
