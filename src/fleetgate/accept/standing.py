"""How a device stands: its score, and the state the edge gives it. First form of the quarantine's rules.

Whom a reason may score (design of the quarantine: it must not become a weapon): reasons of steps 1 to 3 score the
authenticated peer that sent the bytes; later ones the device, which by then has proved the bytes to be its own. Both
are the device of the connection's certificate. Time reasons have no weight; a limit scores nobody here. Weights and
thresholds are the `[policy]` section.
"""

from __future__ import annotations

import math

from fleetgate.config import Policy
from fleetgate.control.records import DeviceState
from fleetgate.errors import ConfigError
from fleetgate.judge.verdict import Reason

_SCORED_STATES = frozenset({DeviceState.TRUSTED, DeviceState.WATCHED, DeviceState.RELEASED})


def check_weights(policy: Policy) -> None:
    """Raises ConfigError for the name of a reason that there is not."""
    unknown = sorted(set(policy.weights) - set(Reason))
    if unknown:
        raise ConfigError(f"policy.weights names no reason: {', '.join(unknown)}; the reasons are {', '.join(Reason)}")


def check_scores(policy: Policy) -> None:
    """Raises ConfigError where a device would be quarantined before it is watched."""
    if policy.watched_score > policy.quarantined_score:
        raise ConfigError("policy.watched_score is above policy.quarantined_score: nobody would ever be watched")


class Standing:
    """A device's state since `state_at` and its score as of `scored_at` (Unix ms); the score halves in a half-life."""

    __slots__ = ("score", "scored_at", "signal", "state", "state_at")

    def __init__(self, state: DeviceState, state_at: int, score: float = 0.0, scored_at: int = 0) -> None:
        self.state = state
        self.state_at = state_at
        self.score = score
        self.scored_at = scored_at
        self.signal = ""

    def add(self, reason: Reason, count: int, now: int, policy: Policy) -> DeviceState | None:
        """Scores `count` refusals; the state the device should now have, or None when it keeps its own."""
        weight = policy.weights.get(reason, 0.0)
        if not weight:
            return None
        self.score = self._decayed(now, policy) + weight * count
        self.scored_at, self.signal = now, reason.value
        if self.state not in _SCORED_STATES:
            return None
        return self.due(now, policy)

    def due(self, now: int, policy: Policy) -> DeviceState | None:
        score = self._decayed(now, policy)
        if score >= policy.quarantined_score:
            return DeviceState.QUARANTINED
        if score >= policy.watched_score and self.state is not DeviceState.WATCHED:
            return DeviceState.WATCHED
        return None

    def scores(self, now: int, policy: Policy) -> dict[str, float]:
        return {self.signal: self._decayed(now, policy)}

    def quiet(self, now: int, policy: Policy) -> bool:
        return self._decayed(now, policy) < policy.watched_score / 10

    def quarantined_until(self, now: int, policy: Policy) -> int:
        over = self._decayed(now, policy) / policy.quarantined_score
        return now + int(max(0.0, math.log2(over)) * policy.score_half_life_seconds * 1000)

    def relaxed(self, now: int, policy: Policy) -> bool:
        """Whether a watched device has behaved for so long that its score is half of what made it watched."""
        if self.state is not DeviceState.WATCHED:
            return False
        return self._decayed(now, policy) < policy.watched_score / 2

    def _decayed(self, now: int, policy: Policy) -> float:
        elapsed_s = max(0, now - self.scored_at) / 1000
        return self.score * float(0.5 ** (elapsed_s / policy.score_half_life_seconds))

    def adopt(self, state: DeviceState, state_at: int) -> bool:
        """Takes over a newer state from the records (a person's decision, another edge); whether it did."""
        if state_at <= self.state_at:
            return False
        if state is not self.state and state is DeviceState.RELEASED:
            self.score = 0.0
        self.state, self.state_at = state, state_at
        return True
