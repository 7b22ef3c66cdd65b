"""What the judge is told from outside: the policy's version, the catalogue's names, standing flags."""

from __future__ import annotations

from msgspec import Struct

from fleetgate.judge.body import Bodies


class Policy(Struct, frozen=True):
    """`bodies` opens bodies by the names of the catalogue. `standing_flags` are set on every accepted message
    while something about the gate itself is remarkable (stale_revocation)."""

    version: str
    bodies: Bodies
    standing_flags: int = 0
