"""What `judge()` may cost: a ratio to the floor measured in the same moment, never a time.

The floor is what nobody can leave out (decode, HMAC, validated body decode of the same bytes). The best of a few rounds
counts: a busy machine makes a round slower, never faster.
"""

from __future__ import annotations

import pytest
from loadtest.bench import judge_case

ROUNDS = 7
ACCEPTED_TO_FLOOR = 1.9
FORGED_TO_ACCEPTED = 1.2


@pytest.fixture(scope="module")
def rounds() -> list[dict[str, float]]:
    return judge_case.rounds(ROUNDS)


def test_an_accepted_message_stays_near_its_floor(rounds: list[dict[str, float]]) -> None:
    """Everything the judge does beyond the floor (identity, freshness, window, claim) fits into this ratio."""
    assert min(figures["ratio_to_floor"] for figures in rounds) <= ACCEPTED_TO_FLOOR


def test_a_forged_message_costs_no_more_than_an_accepted_one(rounds: list[dict[str, float]]) -> None:
    """A flood of forged messages buys its sender nothing: each is refused at step 3."""
    assert min(figures["forged_us"] / figures["accepted_us"] for figures in rounds) <= FORGED_TO_ACCEPTED
