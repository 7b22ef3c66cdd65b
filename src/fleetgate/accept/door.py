"""The door of the MQTT listener: who may begin a session, and whose session ends.

The certificate's identity goes to the registry; the answer begins the session (and takes over the device's former one),
or turns it away with the reason. When the records change, what is refused now ends now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mqtt5 import DisconnectReasonCode as Code

from fleetgate import log
from fleetgate.accept.counts import Counts
from fleetgate.accept.fleet import Caller, Fleet, KnownDevice
from fleetgate.accept.mqtt import Phase, Session
from fleetgate.accept.registry import Registry
from fleetgate.accept.room import Room
from fleetgate.clock import Clock
from fleetgate.config import Config
from fleetgate.control.profile import CertificateIdentity
from fleetgate.judge import Reason

STRANGER_LOGS_PER_SECOND: Final = 5

_log = log.get("accept.door")


class Door:
    """`on_answer` is called with a session that has something new to send."""

    def __init__(
        self, registry: Registry, fleet: Fleet, room: Room, counts: Counts, config: Config, clock: Clock
    ) -> None:
        self._registry = registry
        self._fleet = fleet
        self._room = room
        self._counts = counts
        self._config = config
        self._clock = clock
        self._stranger_log = log.Sparse(_log, STRANGER_LOGS_PER_SECOND, clock.monotonic)
        self.on_answer: Callable[[Session], None] = lambda session: None

    def identify(self, session: Session) -> None:
        """Asks the registry who this is; the session is welcomed or turned away at once or later."""
        identity = session.identity
        if identity is None:
            raise ValueError("a session without an identity has been refused before")

        def found(known: KnownDevice | None) -> None:
            self._begin(session, identity, known)
            self.on_answer(session)

        def away() -> None:
            session.turn_away(None)
            self.on_answer(session)

        self._registry.find(identity, found, away)

    def _begin(self, session: Session, identity: CertificateIdentity, known: KnownDevice | None) -> None:
        now_ms = self._clock.now_ms()
        peer = self._fleet.peer(known, identity, now_ms, json_allowed=False) if known is not None else None
        if known is None or peer is None:
            return self._turn_away(session, identity, Reason.UNKNOWN_DEVICE)
        refusal = peer.device.refusal or peer.credential.refusal
        if refusal is not None:
            return self._turn_away(session, identity, refusal)
        if not self._room.open or session.phase is Phase.ENDED:
            return session.turn_away(None)
        if known.session is not None:
            known.session.end(Code.SESSION_TAKEN_OVER, "the device connected again")
            self.on_answer(known.session)
        known.session = session
        self._counts.connections["mqtt"] += 1
        caller = Caller(known, peer, session.address, "mqtt", self._config.edge.id, self._config.policy.version)
        return session.welcome(caller, now_ms)

    def _turn_away(self, session: Session, identity: CertificateIdentity, refusal: Reason) -> None:
        self._counts.refused_connections[refusal] += 1
        self._stranger_log.warning(
            "connection_refused",
            reason=refusal.value,
            tenant=identity.tenant,
            device_id=identity.device_id,
            address=session.address,
        )
        session.turn_away(refusal)

    def leave(self, session: Session) -> None:
        """The session's connection is gone."""
        if session.caller is None:
            return
        self._counts.connections["mqtt"] -= 1
        known = session.caller.known
        if known.session is session:
            known.session = None
            known.idle_since = self._clock.monotonic()

    def device_changed(self, known: KnownDevice) -> None:
        """Ends the live session of a device that may no longer send; renews what the spool says of one that may."""
        session = known.session
        if session is None or session.caller is None:
            return
        peer = session.caller.peer
        refusal = peer.device.refusal or peer.credential.refusal
        if refusal is not None:
            self._counts.refused_connections[refusal] += 1
            session.end(Code.NOT_AUTHORIZED, refusal.value)
            self.on_answer(session)
        elif session.caller.sender.facts.vehicle_id != peer.device.vehicle_id:
            session.caller = Caller(
                known, peer, session.address, "mqtt", self._config.edge.id, self._config.policy.version
            )
