"""What the judge is told from outside: the policy's version, the catalogue's names, standing flags."""

from __future__ import annotations

from msgspec import Struct

from fleetgate.judge.body import Bodies


class Policy(Struct, frozen=True):
    """`bodies` opens bodies by the names of the catalogue. `standing_flags` are set on every accepted message
    while something about the gate itself is remarkable (stale_revocation). Of what was sent before `fence_ms` (Unix ms)
    the windows may have forgotten something: it is too_old unless its own tag stands in its slot."""

    version: str
    bodies: Bodies
    standing_flags: int = 0
    fence_ms: int = 0
