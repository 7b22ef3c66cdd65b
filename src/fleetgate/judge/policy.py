"""What the judge is told from outside: the policy's version, the catalogue's numbers, standing flags."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class Policy(Struct, frozen=True):
    """`numbers` maps each VSS path of the catalogue to its number. `standing_flags` are set on every accepted message
    while something about the gate itself is remarkable (stale_revocation)."""

    version: str
    numbers: Mapping[str, int]
    standing_flags: int = 0
