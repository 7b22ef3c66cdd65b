"""The car of the fault suite that has a hostile part: the oracle knows what each of its acts deserves."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.cars import MqttDriver, Shot


class Suspect(MqttDriver):
    """A car with a hostile part: soon in quarantine, where what it signs properly is held.

    While it is `proper` it has no such part. `outdated`, where a fault sets it, is a (key id, MAC key) whose root is
    retired; `belated_signed` counts what it signed with it.
    """

    proper = False
    outdated: tuple[int, bytes] | None = None
    belated_signed = 0

    def _burst(self, most: int) -> list[Shot]:
        shots = super()._burst(3)
        if self.proper:
            return shots
        for _ in range(self._rng.randint(1, 3)):
            act = self._rng.choice(_PLAIN if self.plain else _HOSTILE)
            shots.insert(self._rng.randint(0, len(shots)), act(self))
        return shots

    def forged(self) -> Shot:
        return self._signed("bad_mac", key=bytes(32)), ""

    def garbled(self) -> Shot:
        return self._signed("malformed_body", enc=1, body=b"\xc1" + self._rng.randbytes(20)), ""

    def garbage(self) -> Shot:
        return self._written("malformed_envelope", 0, 0, b"\x98" + self._rng.randbytes(30)), ""

    def misaddressed(self) -> Shot:
        return self._signed("identity_mismatch"), "fleet/v1/globex/car-1-tcu/telemetry"

    def belated(self) -> Shot:
        if self.outdated is None:
            return self.forged()
        kid, key = self.outdated
        self.belated_signed += 1
        return self._signed("unknown_key", kid=kid, key=key), ""

    def cloned(self) -> Shot:
        if not self._remembered:
            return self.forged()
        known = self._remembered[-1]
        return self._signed("equivocation", epoch=known.epoch, seq=known.seq), ""


_PLAIN: tuple[Callable[[Suspect], Shot], ...] = (
    Suspect.forged,
    Suspect.garbled,
    Suspect.garbage,
    Suspect.misaddressed,
    Suspect.belated,
)
_HOSTILE = (*_PLAIN, Suspect.early, Suspect.cloned)
