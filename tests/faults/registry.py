"""All faults of the suite by name. A fault is a function that gets the trial, breaks something, and mends it:

    @fault("The edge is killed at a random moment.", quick=True)
    def kill_edge(trial: Trial) -> None: ...

What it says of itself stands in docs/explanation/durability.md; a test compares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.faults.trial import Fault, Trial

FAULTS: dict[str, Fault] = {}

Strike = Callable[[Trial], None]


def add(one: Fault) -> None:
    assert one.name not in FAULTS, f"there are two faults {one.name}"
    FAULTS[one.name] = one


def fault(
    what: str, *, quick: bool = False, embedded: bool = False, **settings: dict[str, Any]
) -> Callable[[Strike], Strike]:
    """Registers the function under its own name; `settings` are tables of the gate's configuration."""

    def register(strike: Strike) -> Strike:
        add(Fault(strike.__name__, what, strike, quick, embedded, settings))
        return strike

    return register
