"""The limits that a load test is held to: `thresholds.toml`, and what of a run's figures keeps to them.

Decides which figures can be limited, in which direction, and that a figure nobody could count has missed its limit. How
a figure is counted is `figures`'; what the misses together come to is `verdict`'s.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

DEFAULT = Path(__file__).with_name("thresholds.toml")

AT_LEAST = frozenset({"throughput_per_s"})
CORRECTNESS = frozenset({"lost", "duplicated", "unexpected", "false_refusals", "false_quarantines", "attacks_accepted"})
"""These count in an invalid run too: no generator is so slow that it loses what the gate has acknowledged."""

Limit = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(gt=0, le=1)]


class ThresholdsError(Exception):
    """A file of thresholds that cannot be used; the text says where and why."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    throughput_per_s: Limit | UnsetType = UNSET
    ack_p99_ms: Limit | UnsetType = UNSET
    error_share: Limit | UnsetType = UNSET
    unanswered_share: Limit | UnsetType = UNSET
    query_error_share: Limit | UnsetType = UNSET
    lost: Limit | UnsetType = UNSET
    duplicated: Limit | UnsetType = UNSET
    unexpected: Limit | UnsetType = UNSET
    false_refusals: Limit | UnsetType = UNSET
    false_quarantines: Limit | UnsetType = UNSET
    attacks_accepted: Limit | UnsetType = UNSET

    def given(self) -> dict[str, float]:
        found = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in found.items() if value is not UNSET}


NAMES = _Table.__struct_fields__


class Generator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the generator counts as the bottleneck: under this pressure (0 to 1) in more than this share of seconds."""

    pressure: Share
    share_of_seconds: Share


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of thresholds."""

    limits: _Table
    generator: Generator
    shape: dict[str, _Table] = {}

    @classmethod
    def load(cls, path: Path = DEFAULT) -> Thresholds:
        """Raises ThresholdsError. Every figure must have its limit: what is left out would pass unseen."""
        try:
            found = msgspec.toml.decode(path.read_bytes(), type=cls)
        except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
            raise ThresholdsError(f"{path}: {error}; {DEFAULT} is one that can be used") from None
        missing = [name for name in NAMES if name not in found.limits.given()]
        if missing:
            raise ThresholdsError(f"{path}: [limits] has no {', '.join(missing)}")
        tables = {"limits": found.limits} | {f"shape.{shape}": table for shape, table in found.shape.items()}
        for title, table in tables.items():
            for name, value in table.given().items():
                if not math.isfinite(value):  # TOML has inf and nan, which nothing would miss
                    raise ThresholdsError(f"{path}: [{title}] {name} is not a finite number")
        return found

    def require_shapes(self, there: Collection[str]) -> None:
        """Raises ThresholdsError for limits of a shape that there is not: a misspelled name would pass everything."""
        if strange := [name for name in self.shape if name not in there]:
            raise ThresholdsError(f"there is no shape {', '.join(strange)}; there are {', '.join(there)}")

    def of(self, shape: str) -> dict[str, float]:
        """The limits of a shape, by figure."""
        own = self.shape.get(shape)
        return self.limits.given() | (own.given() if own is not None else {})


class Finding(NamedTuple):
    """A figure beside its limit. `value` is None where it could not be counted."""

    name: str
    value: float | None
    limit: float

    @property
    def met(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.limit if self.name in AT_LEAST else self.value <= self.limit

    @property
    def bound(self) -> str:
        return f"{'at least' if self.name in AT_LEAST else 'at most'} {self.limit:g}"


def check(figures: Mapping[str, float | None], limits: Mapping[str, float]) -> list[Finding]:
    """Every limit with what the run has reached, in the order of the file."""
    return [Finding(name, figures.get(name), limits[name]) for name in NAMES]
