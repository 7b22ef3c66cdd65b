"""What was promised: a figure of a case and the bound it is held to, as data.

They are for medians of a full run on a quiet machine with two cores. A run says which were met; it does not fail by
them, for a busy machine misses them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from loadtest.bench.context import Figures


class Target(NamedTuple):
    """`bound` is a number, or a multiple of the figure `of` of the same case."""

    figure: str
    sign: str  # "<=" or ">="
    bound: float
    of: str = ""

    def met(self, figures: Figures) -> bool:
        """Raises KeyError when the case lacks a figure."""
        bound = self.bound * figures[self.of] if self.of else self.bound
        return figures[self.figure] <= bound if self.sign == "<=" else figures[self.figure] >= bound

    def __str__(self) -> str:
        bound = f"{self.bound:,.0f}" if self.bound >= 1000 else f"{self.bound:.3g}"
        return f"{self.sign} {bound} {self.of.removesuffix('_us')}".rstrip()


TARGETS: Mapping[str, tuple[Target, ...]] = {
    "judge": (
        Target("ratio_to_floor", "<=", 1.6),
        Target("forged_us", "<=", 1.0, "accepted_us"),
        Target("garbage_us", "<=", 1 / 3, "accepted_us"),
    ),
    "chatty": (Target("edge_cpu_us_per_event", "<=", 30), Target("ratio_to_sketch", "<=", 1.35)),
    "batched": (Target("edge_cpu_us_per_event", "<=", 1.6),),
    "batched_paths": (Target("edge_cpu_us_per_event", "<=", 2.2),),
    "http": (Target("edge_cpu_us_per_event", "<=", 13),),
    "columns": (Target("readings_per_s", ">=", 2_000_000),),
    "columns_40": (Target("readings_per_s", ">=", 4_000_000),),
    "load": (Target("events_per_s_per_core", ">=", 170_000), Target("rss_mb", "<=", 1024)),
    "load_single": (Target("events_per_s_per_core", ">=", 100_000), Target("rss_mb", "<=", 1024)),
    "sustained": (Target("ack_ms_p99", "<=", 25), Target("queryable_ms_p99", "<=", 3_000)),
    "flood": (
        Target("accepted_ratio", ">=", 0.9),
        Target("cpu_ratio", "<=", 1.1),
        Target("ack_ms_p99", "<=", 500),
        Target("spool_kb_per_s", "<=", 1024),
    ),
    "herd": (
        Target("handshakes_failed", "<=", 0),
        Target("kb_per_connection", "<=", 40),
        Target("ack_ms_p99", "<=", 1_000),
    ),
    "tenants": (Target("ratio_beside_to_among", "<=", 0.6), Target("ratio_limited_to_beside", "<=", 0.8)),
    "registry": (Target("start_s", "<=", 3), Target("rss_mb", "<=", 300)),
    "revoke": (Target("effect_ms_p99", "<=", 2_000), Target("decision_ms_p99", "<=", 2_000)),
}


def of(case: str, figure: str) -> Target | None:
    """The target that this figure is held to, if there is one."""
    return next((target for target in TARGETS.get(case, ()) if target.figure == figure), None)
