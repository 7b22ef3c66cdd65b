"""The page about quarantine tells the figures that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleetgate.accept.disorder import Disorder
from fleetgate.config import Policy
from fleetgate.scoring import FROM_LOAD, LOAD_SHARE, MISHAPS, ON_THE_WAY, OTHERS_SHARE, SIGNALS

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "quarantine.md").read_text()
SECONDS = {"min": 60, "h": 3600}
ROW = re.compile(r"^\| `(\w+)` \| ([\d.]+) \| (\d+) (min|h) \| ([\d.]+) \|", re.MULTILINE)


def test_the_page_has_every_signal_with_its_figures() -> None:
    """Name, weight, half-life and bound."""
    found = ROW.findall(PAGE)
    told = {name: (float(weight), float(n) * SECONDS[unit], float(most)) for name, weight, n, unit, most in found}
    signals = {name: (one.weight, one.half_life_seconds, one.at_most) for name, (one, _) in SIGNALS.items()}
    assert told == signals


def test_the_page_has_what_signals_make_together() -> None:
    """Which they are, and their share of the score of quarantine."""
    load, others = re.findall(r"^\| (these and )?((?:`\w+`(?:, )?)+) \| (\d+) % \|", PAGE, re.MULTILINE)
    assert [float(share) / 100 for _, _, share in (load, others)] == [LOAD_SHARE, OTHERS_SHARE]
    assert [set(re.findall(r"\w+", names)) for _, names, _ in (load, others)] == [FROM_LOAD, ON_THE_WAY | MISHAPS]


@pytest.mark.parametrize("disorder", Disorder)
def test_the_page_has_a_rule_for_each_class(disorder: Disorder) -> None:
    """A class without a rule is a word that nobody can check."""
    assert f"| `{disorder}` |" in PAGE


def test_the_thresholds_of_the_page_are_those_of_the_policy() -> None:
    """They stand in prose."""
    watched, quarantined = Policy().watched_score, Policy().quarantined_score
    assert f"From {watched:.0f} a device is watched, from {quarantined:.0f} quarantined" in PAGE
