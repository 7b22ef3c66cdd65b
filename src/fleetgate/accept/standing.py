"""How a device stands: its score, in parts, and the state that it calls for.

Whom a signal may score (a quarantine must not become a weapon): reasons of steps 1 to 3 score the authenticated peer
that sent the bytes; later ones the device, which by then has proved the bytes to be its own. Both are the device of the
connection's certificate. Time reasons are no signals. Weights, half-lives and thresholds are the `[policy]` section;
which state may follow which is `control.states`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from fleetgate.config import Policy
from fleetgate.control.records import DeviceState
from fleetgate.control.states import BY_MACHINE, View, merge
from fleetgate.errors import ConfigError
from fleetgate.scoring import Signal, total

RELAXED_SHARE = 0.5
"""A watched device is trusted again below this share of what made it watched: at the threshold itself it would come and
go with each event."""

UNTROUBLED_SHARE = 0.1
"""Below this share of it there is no trouble: the next signal is the first of another one."""


def check_scores(policy: Policy) -> None:
    """Raises ConfigError where a device would be quarantined before it is watched."""
    if policy.watched_score > policy.quarantined_score:
        raise ConfigError("policy.watched_score is above policy.quarantined_score: nobody would ever be watched")


class Part(NamedTuple):
    """What one signal made of the score, as of `at` (Unix ms)."""

    score: float
    at: int


class Standing:
    """A device's state since `state_at` (Unix ms), when a person last decided on it, and its score by signal."""

    __slots__ = ("decided_at", "parts", "state", "state_at")

    def __init__(
        self, state: DeviceState, state_at: int, decided_at: int = 0, parts: Mapping[str, Part] | None = None
    ) -> None:
        self.state = state
        self.state_at = state_at
        self.decided_at = decided_at
        self.parts = dict(parts or {})

    def add(self, name: str, count: int, at: int, signals: Mapping[str, Signal]) -> bool:
        """Scores `count` events of a signal; whether it is one that has a weight.

        What is older than the latest of its kind is faded to that time; what a person has decided on since is forgiven.
        """
        signal = signals.get(name)
        if signal is None or not signal.weight:
            return False
        if at <= self.decided_at:
            return True
        before = self.parts.get(name, Part(0.0, at))
        now = max(at, before.at)
        score = _faded(before, now, signal) + _faded(Part(signal.weight * count, at), now, signal)
        self.parts[name] = Part(min(score, signal.at_most), now)
        return True

    def restore(self, name: str, part: Part) -> bool:
        """Takes over what a record says of a signal's part; whether it is newer than what is known."""
        before = self.parts.get(name)
        if part.at <= self.decided_at or (before is not None and part.at < before.at):
            return False
        self.parts[name] = part
        return True

    def score(self, now: int, policy: Policy) -> float:
        """What is left of its parts, together."""
        return total(self.scores(now, policy.signals), policy.quarantined_score)

    def due(self, now: int, policy: Policy) -> DeviceState | None:
        """The state that the score calls for; None when the device keeps its own."""
        score, possible = self.score(now, policy), BY_MACHINE[self.state]
        if score >= policy.quarantined_score and DeviceState.QUARANTINED in possible:
            return DeviceState.QUARANTINED
        if score >= policy.watched_score and DeviceState.WATCHED in possible:
            return DeviceState.WATCHED
        return None

    def scores(self, now: int, signals: Mapping[str, Signal]) -> dict[str, float]:
        """What is left of each part, by signal."""
        return {name: _faded(part, now, signals[name]) for name, part in self.parts.items() if name in signals}

    def quarantined_until(self, now: int, policy: Policy) -> int:
        """When the score will be below that of quarantine if nothing is added, or somewhat later (Unix ms): as if all
        of it faded like the part that fades most slowly."""
        scores = self.scores(now, policy.signals)
        over = sum(scores.values()) / policy.quarantined_score
        if over <= 1:
            return now
        slowest_s = max(policy.signals[name].half_life_seconds for name in scores)
        return now + int(math.log2(over) * slowest_s * 1000)

    def untroubled(self, now: int, policy: Policy) -> bool:
        """Whether the next signal is the beginning of trouble."""
        return self.score(now, policy) < policy.watched_score * UNTROUBLED_SHARE

    def relaxed(self, now: int, policy: Policy) -> bool:
        """Whether a watched device has behaved for so long that it is trusted again."""
        if self.state is not DeviceState.WATCHED:
            return False
        return self.score(now, policy) < policy.watched_score * RELAXED_SHARE

    def adopt(self, view: View) -> bool:
        """Takes over what the records say (a person's decision, another edge's step) where it stands over what is
        known; whether that is another state. A decision forgives what led to it."""
        stands = merge(View(self.state, self.state_at, self.decided_at), view)
        if stands.decided_ms > self.decided_at:
            self.parts.clear()
        changed = stands.state is not self.state
        self.state, self.state_at, self.decided_at = stands
        return changed


def _faded(part: Part, now: int, signal: Signal) -> float:
    """What is left of it; nothing grows when the clock goes back."""
    elapsed_s = max(0, now - part.at) / 1000
    return min(part.score, signal.at_most) * float(0.5 ** (elapsed_s / signal.half_life_seconds))
