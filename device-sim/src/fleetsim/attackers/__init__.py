"""The hostile part of a fleet: thirteen kinds, each of which the gate must catch.

`wire` speaks, `stage` keeps identity, pace and the ledger; `identity`, `order`, `content` and `fuzz` hold the attacks.
Every hostile body says `attack:<kind>` in its `config`, and no hostile number was ever used by a valid message of the
same device, but in `replay` and `equivocation`, which are just that.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from fleetsim.attackers import content, fuzz, identity, order, wire
from fleetsim.attackers.stage import Stage

__all__ = ["KINDS", "Kind", "Stage", "run"]


class Kind(NamedTuple):
    """An attack: what it does, whether its device deserves quarantine for it, whether it needs another's bundle."""

    attack: Callable[[Stage], Awaitable[None]]
    expects_quarantine: bool
    needs_other: bool = False


KINDS: dict[str, Kind] = {
    "replay": Kind(order.replay, expects_quarantine=False),
    "forged_mac": Kind(identity.forged_mac, expects_quarantine=True),
    "other_credential": Kind(identity.other_credential, expects_quarantine=True, needs_other=True),
    "other_tenant": Kind(identity.other_tenant, expects_quarantine=True, needs_other=True),
    "revoked": Kind(identity.revoked, expects_quarantine=False),
    "malformed_envelope": Kind(content.malformed_envelope, expects_quarantine=True),
    "malformed_body": Kind(content.malformed_body, expects_quarantine=True),
    "future_clock": Kind(order.future_clock, expects_quarantine=False),
    "stale_epoch": Kind(order.stale_epoch, expects_quarantine=False),
    "equivocation": Kind(order.equivocation, expects_quarantine=True),
    "oversized": Kind(content.oversized, expects_quarantine=False),
    "flood": Kind(order.flood, expects_quarantine=False),
    "fuzz": Kind(fuzz.fuzz, expects_quarantine=True),
}


async def run(stage: Stage) -> None:
    """Run the stage's attack to its end. A gate that shuts the device out ends it too."""
    kind = KINDS[stage.kind]
    stage.ledger.attacker(stage.bundle, stage.kind, expects_quarantine=kind.expects_quarantine)
    try:
        await kind.attack(stage)
    except wire.RefusedError as refused:
        stage.record_attempt(refused.label)
