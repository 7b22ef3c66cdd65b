"""The table of signals: what raises a device's score, by how much, how fast that fades, and how much of the score it
can make. The `[policy]` section lays its own figures over it; why they are what they are is told in
docs/explanation/quarantine.md.

A signal whose `at_most` lies below `policy.quarantined_score` puts no device into quarantine by itself. Those that
befall an honest device, or that others can bring about, do not together either, whatever the figures: `total`. When a
signal is raised, and for whom, is decided by `accept`; what follows from a score, by `accept.standing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct


class Signal(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`weight` is the score of one event. In a file, what is not named is as in the table below."""

    weight: Annotated[float, Meta(ge=0)] = -1.0
    half_life_seconds: Annotated[float, Meta(gt=0)] = -1.0
    at_most: Annotated[float, Meta(ge=0)] = -1.0


class Default(NamedTuple):
    signal: Signal
    meaning: str


_HOUR: Final = 3_600.0
_DAY: Final = 86_400.0


def _row(weight: float, half_life_seconds: float, at_most: float, meaning: str) -> Default:
    return Default(Signal(weight=weight, half_life_seconds=half_life_seconds, at_most=at_most), meaning)


SIGNALS: Final[Mapping[str, Default]] = MappingProxyType(
    {
        "malformed_envelope": _row(10.0, 6 * _HOUR, 200.0, "A message that is no envelope."),
        "unsupported_version": _row(10.0, 6 * _HOUR, 200.0, "An envelope of a version that there is not."),
        "malformed_body": _row(10.0, 6 * _HOUR, 200.0, "A signed body that breaks the format."),
        "oversized": _row(5.0, 6 * _HOUR, 90.0, "A packet or request above the limit that the gate had named."),
        "identity_mismatch": _row(35.0, _DAY, 200.0, "A message addressed as another device's."),
        "bad_mac": _row(35.0, _DAY, 200.0, "A message that the device of the certificate has not signed."),
        "unknown_key": _row(10.0, 6 * _HOUR, 200.0, "A key id that the device was never given."),
        "equivocation": _row(40.0, _DAY, 200.0, "Other content under a used number while the device goes on."),
        "epoch_overlap": _row(50.0, _DAY, 200.0, "A message signed in an epoch that had ended minutes before."),
        "overlapping_sessions": _row(20.0, 6 * _HOUR, 80.0, "A session that went on sending when another took over."),
        "rollback": _row(30.0, 6 * _HOUR, 60.0, "An episode of used numbers: a backup was restored."),
        "reset": _row(20.0, 6 * _HOUR, 60.0, "An episode of used numbers from 0 on: the counter was lost."),
        "replay": _row(5.0, 6 * _HOUR, 200.0, "The device's own message again, after it had its answer."),
        "implausible_data": _row(10.0, _HOUR, 55.0, "Readings out of bounds, or jumping."),
        "impossible_travel": _row(20.0, 6 * _HOUR, 44.0, "Two places that no vehicle can be at within that time."),
        "protocol_abuse": _row(10.0, _HOUR, 90.0, "A connection of the device that broke MQTT or TLS."),
        "rate_excess": _row(1.0, 600.0, 40.0, "A message above the device's own limit."),
    }
)  # fmt: skip
"""Every signal by its name."""

FROM_LOAD: Final = frozenset({"implausible_data", "impossible_travel"})
"""Those that load raises, which sees values: `control.suspicions`. The others are seen by the edge alone."""

ON_THE_WAY: Final = frozenset({"overlapping_sessions", "protocol_abuse", "rate_excess"})
"""Those that come of when bytes arrive and how connections end, as well as of what the device did."""

MISHAPS: Final = frozenset({"oversized", "reset", "rollback"})
"""Those of faults that a device's own makers and workshops cause."""

LOAD_SHARE: Final = 0.6
"""Of `policy.quarantined_score`, the most that the signals of load make together: a spoofed receiver, and one mishap
on the way beside it, are not enough."""

OTHERS_SHARE: Final = 0.9
"""The same for them, those on the way and mishaps: none of it needs somebody who has the device's credential, so it is
not enough."""


def total(parts: Mapping[str, float], quarantined_score: float) -> float:
    """The score that these parts make, by signal."""
    load = min(_sum_of(FROM_LOAD, parts), LOAD_SHARE * quarantined_score)
    others = min(load + _sum_of(ON_THE_WAY | MISHAPS, parts), OTHERS_SHARE * quarantined_score)
    return others + _sum_of(parts.keys() - FROM_LOAD - ON_THE_WAY - MISHAPS, parts)


def _sum_of(names: Set[str], parts: Mapping[str, float]) -> float:
    return sum(score for name, score in parts.items() if name in names)


def listed(signals: Iterable[str]) -> str:
    """What several signals are called together: the `why` of a transition and of a case, the leading one first."""
    return ", ".join(signals)


def listed_in(why: str) -> list[str]:
    """The signals that are named there."""
    return why.split(", ")


def laid_over(said: Mapping[str, Signal]) -> dict[str, Signal]:
    """The table with what a file says laid over it. Raises ValueError for the name of a signal that there is not."""
    unknown = sorted(said.keys() - SIGNALS.keys())
    if unknown:
        raise ValueError(f"there is no signal {', '.join(unknown)}; the signals are {', '.join(SIGNALS)}")
    table = {}
    for name, (default, _) in SIGNALS.items():
        given = msgspec.structs.asdict(said.get(name, default))
        table[name] = msgspec.structs.replace(default, **{key: value for key, value in given.items() if value >= 0})
    return table
