"""What a device is in quarantine for, of all that its score is made of.

Decides which signals a transition into quarantine names, so that a person who forgives one of them (`quarantine release
--why`) lets out those alone that nothing else keeps there. Pure. Not what tipped the score: which event is the last one
is chosen by whoever sends it. What scores is decided by `standing`, which signals a surge excuses by `breaker`.
"""

from __future__ import annotations

from collections.abc import Mapping

from fleetgate.accept.breaker import NEVER_EXCUSED
from fleetgate.accept.standing import UNTROUBLED_SHARE
from fleetgate.config import Policy
from fleetgate.scoring import total


def causes(scores: Mapping[str, float], policy: Policy) -> list[str]:
    """Signals, the leading first: every clone sign that has not faded, then the largest parts, until what is left of
    the score does not say quarantine. Empty where there is no clone sign and the score does not say it anyway."""
    least = policy.watched_score * UNTROUBLED_SHARE
    signs = {signal for signal in NEVER_EXCUSED & scores.keys() if scores[signal] >= least}
    left, named = dict(scores), list[str]()
    for signal in sorted(scores, key=lambda signal: (signal in signs, scores[signal], signal), reverse=True):
        if signal not in signs and total(left, policy.quarantined_score) < policy.quarantined_score:
            break
        named.append(signal)
        del left[signal]
    return named
