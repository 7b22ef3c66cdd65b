"""Whether the gate can trust its own clock. Freshness is judged against it, so a wrong one would refuse or believe
everybody at once.

Two signs: wall time and monotonic time drift apart in a step, or more than half of at least 20 devices heard within
5 minutes are ahead of the gate. While either lasts the edge is not ready and acknowledges nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from fleetgate.accept.known import KnownDevice
from fleetgate.clock import Clock

STEP_MS = 5_000  # as much as a message may be ahead before it is flagged
HEARD_SECONDS = 300.0
LEAST_DEVICES = 20


class Timekeeper:
    """Compares the clock with itself since the start, and with the devices."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._origin_ms = clock.now_ms() - clock.monotonic() * 1000

    def doubt(self, devices: Iterable[KnownDevice]) -> str:
        """Why the clock is not to be trusted; empty when it is. Call it every few seconds."""
        before_s, now_ms, now_s = self._clock.monotonic(), self._clock.now_ms(), self._clock.monotonic()
        # However long we were not running between two looks: only what lies outside of both is a step.
        seen_ms = now_ms - self._origin_ms
        step_ms = seen_ms - min(max(seen_ms, before_s * 1000), now_s * 1000)
        if abs(step_ms) > STEP_MS:
            return f"the machine's clock jumped by {step_ms / 1000:.0f} s: set it right, or restart the edge"
        # A clock that is slewed to the right time moves slowly; only a step is a sign.
        self._origin_ms += step_ms
        heard = [known for known in devices if now_s - known.account.used_at < HEARD_SECONDS]
        ahead = sum(now_s - known.ahead_at < HEARD_SECONDS for known in heard)
        if len(heard) >= LEAST_DEVICES and ahead * 2 > len(heard):
            return f"{ahead} of {len(heard)} devices are ahead of this edge: is its clock behind?"
        return ""
