"""This machine's clock beside the gate's, by the bounds of the judge's step 4."""

from __future__ import annotations

from datetime import UTC, datetime

from fleetgate.doctor.findings import Check, Finding, good, wrong
from fleetgate.judge.freshness import LATE_MS, MAX_AGE_MS, MAX_AHEAD_MS, SKEW_MS

CLOCK = "clock"


def check_clock(here_ms: int, gate_ms: int) -> Check:
    """Both in Unix ms, of one moment but for the time on the way."""
    ahead_ms = here_ms - gate_ms
    if ahead_ms > MAX_AHEAD_MS:
        return wrong(CLOCK, Finding.CLOCK_OFF, f"{_shown(ahead_ms)} ahead of the gate: all is refused as clock_ahead")
    if ahead_ms < -MAX_AGE_MS:
        return wrong(CLOCK, Finding.CLOCK_OFF, f"{_shown(-ahead_ms)} behind the gate: all is refused as too_old")
    if ahead_ms < -LATE_MS:
        what = f"{_shown(-ahead_ms)} behind the gate: messages bear a wrong time, and the flag late"
        return wrong(CLOCK, Finding.CLOCK_OFF, what)
    if ahead_ms > SKEW_MS:
        return good(CLOCK, f"{_shown(ahead_ms)} ahead of the gate: messages are taken, and flagged clock_skew")
    told = datetime.fromtimestamp(gate_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return good(CLOCK, f"within {SKEW_MS // 1000} s of the gate's, which says {told}")


def _shown(ms: int) -> str:
    seconds = ms // 1000
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
