"""Whom a handshake is charged to that has just shown a verified certificate.

Decides that one which is refused, as far as this edge knows, uses up nothing of its device, tenant or issuer: else
whoever stole a certificate that was revoked would keep out its victim, which has another. It gets a bucket of its own.
Whether a certificate is refused is decided by `vetting` and by the records; what is said to it then, by the listeners.
"""

from __future__ import annotations

from fleetgate.accept.fleet import Fleet
from fleetgate.accept.known import KnownDevice, issuer_of
from fleetgate.accept.limits import Limits
from fleetgate.accept.registry import Registry
from fleetgate.accept.strangers import Strangers, who
from fleetgate.accept.vetting import NobodyKnows, Vetting
from fleetgate.clock import Clock
from fleetgate.control.profile import CertificateIdentity, ProfileError


class Handshakes:
    """Those of both listeners, counted together."""

    def __init__(self, limits: Limits, vetting: Vetting, registry: Registry, fleet: Fleet, clock: Clock) -> None:
        self._limits = limits
        self._vetting = vetting
        self._registry = registry
        self._fleet = fleet
        self._clock = clock
        self._strangers = Strangers()

    def admits(self, identity: CertificateIdentity) -> bool:
        """Whether one more was not one too many; it is charged then."""
        known, now_s = self._fleet.get((identity.tenant, identity.device_id)), self._clock.monotonic()
        if self._is_listed(identity) or (known is not None and self._is_refused(known, identity)):
            return not self._strangers.take(who(identity, ""), 1, now_s)
        whose = identity.tenant, identity.device_id, issuer_of(identity)
        if not self._limits.admit_handshake(*whose, now_s):
            return False
        if known is None:  # who says nothing after the handshake would never be looked up

            def found(known: KnownDevice | None) -> None:
                if known is not None and self._is_refused(known, identity):
                    self._limits.return_handshake(*whose, self._clock.monotonic())
                    self._strangers.take(who(identity, ""), 1, self._clock.monotonic())

            self._registry.find(identity, found, lambda: None)
        return True

    def _is_listed(self, identity: CertificateIdentity) -> bool:
        try:
            return self._vetting.refusal(identity) is not None
        except NobodyKnows:
            return False  # all of its CA are told to come back: none of them is known to be refused
        except ProfileError:
            return True

    def _is_refused(self, known: KnownDevice, identity: CertificateIdentity) -> bool:
        """By the records, or by what this edge was told before: the whole device, or this credential of it."""
        if known.device.refusal is not None or not self._fleet.admits(known, identity, self._clock.now_ms()):
            return True
        return known.credentials[identity.key_digest].refusal is not None
