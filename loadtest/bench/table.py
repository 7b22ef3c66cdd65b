"""How figures look: on a terminal of 80 columns while a run goes on, and as the table of a page.

Decides nothing about a figure; the bounds are `targets`'.
"""

from __future__ import annotations

from collections.abc import Mapping

from loadtest.bench import targets
from loadtest.bench.context import Figures, Rounds, medians
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

_BESIDE = {"sustained": ("offered_per_s", "edge_cpu_us_per_event")}
"""Without a target of their own: what an event costs at half load, beside what it costs at saturation in chatty."""
_VERDICT = {True: ("met", "green"), False: ("missed", "red")}


def terminal(cases: Mapping[str, Rounds]) -> Table:
    """Every figure of every case, with its spread over the rounds and its target."""
    table = Table("figure", box=SIMPLE_HEAD, pad_edge=False, title="medians", title_justify="left")
    table.add_column("median", justify="right")
    table.add_column("spread", justify="right")
    table.add_column("target")
    for case, rounds in cases.items():
        figures = medians(rounds)
        table.add_row(Text(case, style="bold"), "", "", "")
        for name, value in figures.items():
            table.add_row(f"  {name}", number(value), spread(name, rounds), _target(case, name, figures))
    return table


def number(value: float) -> str:
    """Three digits that count, or whole thousands apart."""
    if abs(value) >= 999.5:  # which three digits would round to 1e+03
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if value else "0"


def spread(name: str, rounds: Rounds) -> str:
    """How far the rounds lie from the middle, as a share of the median; empty for a single round."""
    values = [figures.get(name, 0.0) for figures in rounds]
    middle = medians(rounds)[name]
    if len(values) < 2 or not middle:
        return ""
    return f"±{(max(values) - min(values)) / 2 / abs(middle):.0%}"


def missed(cases: Mapping[str, Rounds]) -> list[str]:
    """A line for each target that was not met."""
    measured = {case: medians(rounds) for case, rounds in cases.items()}
    return [
        f"{case}: {target.figure} is {number(figures[target.figure])}, not {target}"
        for case, figures in measured.items()
        for target in targets.TARGETS.get(case, ())
        if target.figure in figures and not target.met(figures)
    ]


def late(cases: Mapping[str, Rounds]) -> list[str]:
    """A line for each case whose generator had to sign messages while the clock ran."""
    most = {case: max(figures.get("late_messages", 0.0) for figures in rounds) for case, rounds in cases.items()}
    return [
        f"{case}: {count:,.0f} messages of a round were signed while the clock ran, for too few were prepared: its "
        "wall-clock figures are too low; raise `prepare` of the case"
        for case, count in most.items()
        if count
    ]


def page(cases: Mapping[str, Figures]) -> str:
    """A Markdown table of the figures that have a target, and of those that must be read with them."""
    lines = ["| case | figure | target | measured |", "| --- | --- | --- | --- |"]
    for case, held in targets.TARGETS.items():
        figures = cases.get(case, {})
        for target in held:
            if target.figure in figures:
                verdict = "" if target.met(figures) else ", missed"
                sign = str(target).replace("<=", "≤").replace(">=", "≥")
                measured = number(figures[target.figure])
                lines.append(f"| {case} | `{target.figure}` | {sign} | {measured}{verdict} |")
        lines += [
            f"| {case} | `{figure}` | | {number(figures[figure])} |"
            for figure in _BESIDE.get(case, ())
            if figure in figures
        ]
    return "\n".join(lines) + "\n"


def _target(case: str, name: str, figures: Figures) -> Text:
    target = targets.of(case, name)
    if target is None:
        return Text("")
    word, style = _VERDICT[target.met(figures)]
    return Text.assemble(f"{target} ", (word, style))
