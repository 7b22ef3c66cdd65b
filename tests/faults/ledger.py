"""The gap ledger (`received_ranges`) against the messages themselves: what the oracle's eighth question asks.

Every number of a stored message stands in the ledger once, under its outcome, and no other does; a refused number is
one that this car was refused for this reason, or had no answer for, and every refusal of a known number is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from tests.faults.stored import Range
from tests.faults.told import STORED, Told

NUMBERED = ("clock_ahead", "too_old", "behind_window", "stale_epoch", "equivocation", "malformed_body")
"""Reasons of the judge behind the MAC: only then is it known whose number it is."""

LONGEST = 100_000
"""No car gets further; a range that says so is looked at to here."""

Number = tuple[str, str, int, int, str]
"""(tenant, device, epoch, seq, outcome or the reason of a refusal)."""


def compare(
    told: Told,
    ranges: Iterable[Range],
    outcomes: Mapping[int, str],
    aside: Mapping[tuple[str, str, str], int],
    complain: Callable[[str, Iterable[object]], object],
) -> None:
    """`outcomes` are those of the stored messages by number, `aside` the refusals destroyed on the disk."""
    stored: Counter[Number] = Counter()
    refused: set[Number] = set()
    for one in ranges:
        if one.outcome == "refused":
            refused.update(_numbers(one, one.reason))
        else:
            stored.update(_numbers(one, one.outcome))
    meant = {(*told.messages[number].key, outcome) for number, outcome in outcomes.items()}
    complain("numbers of stored messages that the ledger lacks", meant - stored.keys())
    complain("numbers in the ledger of messages that are not stored so", stored.keys() - meant)
    complain("numbers that the ledger has more than once", (number for number, times in stored.items() if times > 1))
    answered, perhaps = _refusals(told)
    complain(
        "refused numbers in the ledger that were not refused so",
        (number for number in refused - answered if number[:4] not in perhaps),
    )
    known = {number for number in answered if number[4] in NUMBERED and not aside.get((*number[:2], number[4]))}
    complain("refusals of known numbers that the ledger lacks", known - refused)


def _numbers(one: Range, what: str) -> Iterator[Number]:
    for seq in range(one.first, min(one.last, one.first + LONGEST) + 1):
        yield (one.tenant, one.device_id, one.epoch, seq, what)


def _refusals(told: Told) -> tuple[set[Number], set[tuple[str, str, int, int]]]:
    """What was answered with a refusal; and the numbers of which a send got no answer, or none of the judge."""
    answered, perhaps = set(), set()
    for message in told.messages.values():
        labels = told.labels(message)
        answered |= {(*message.key, label) for label in labels if label not in STORED}
        judged = [label for label in labels if not label.startswith("http_")]
        if len(judged) < len(told.sends[message.number]):
            perhaps.add(message.key)
    return answered, perhaps
