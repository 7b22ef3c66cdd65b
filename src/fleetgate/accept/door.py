"""The door of the MQTT listener: who may begin a session, and whose session ends.

The certificate's identity goes to the registry; the answer begins the session (and takes over the device's former one),
or turns it away with the reason. When the records, the issuers or the revocation lists change, what is refused now ends
now.
"""

from __future__ import annotations

from collections.abc import Callable

from mqtt5 import DisconnectReasonCode as Code

from fleetgate import log
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.intake import Intake
from fleetgate.accept.known import Caller, KnownDevice
from fleetgate.accept.lines import LONGEST_PAUSE_SECONDS
from fleetgate.accept.mqtt import Phase, Session
from fleetgate.accept.registry import Registry
from fleetgate.accept.room import Room
from fleetgate.accept.strangers import stranger_log
from fleetgate.accept.vetting import NobodyKnows, Vetting
from fleetgate.clock import Clock
from fleetgate.config import Config
from fleetgate.control.profile import CertificateIdentity, ProfileError
from fleetgate.judge import Peer, Reason

_log = log.get("accept.door")


class Door:
    """`on_answer` is called with a session that has something new to send."""

    def __init__(
        self,
        registry: Registry,
        vetting: Vetting,
        fleet: Fleet,
        room: Room,
        intake: Intake,
        config: Config,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._vetting = vetting
        self._fleet = fleet
        self._room = room
        self._intake = intake
        self._counts = intake.counts
        self._edge_id = config.edge.id
        self._policy_version = config.policy.version
        self._clock = clock
        self._stranger_log = stranger_log(_log, clock)
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
        try:
            refusal = peer.device.refusal or peer.credential.refusal or self._vetting.refusal(identity)
        except NobodyKnows:
            return session.turn_away(None)
        except ProfileError as error:
            return session.refuse_certificate(str(error))
        if refusal is not None:
            return self._turn_away(session, identity, refusal)
        if not self._room.open or session.phase is Phase.ENDED:
            return session.turn_away(None)
        peer.flags = self._vetting.flags(identity)
        caller = self._caller(session, known, peer)
        if self._intake.admit_connection(caller, now_ms):
            return session.slow_down()
        wait_s = self._intake.shared_wait(self._intake.senders(caller))
        if wait_s > LONGEST_PAUSE_SECONDS:
            return session.refuse_for_quota()
        if known.session is not None:
            known.session.give_way(session, now_ms)
            self.on_answer(known.session)
        known.session = session
        self._counts.connections["mqtt"] += 1
        return session.welcome(caller, now_ms, waits=wait_s > 0)

    def _caller(self, session: Session, known: KnownDevice, peer: Peer) -> Caller:
        return Caller(known, peer, session.address, "mqtt", self._edge_id, self._policy_version)

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
        if session.decided_ms:
            self._counts.took_effect(self._clock.now_ms() - session.decided_ms)
        known = session.caller.known
        if known.session is session:
            known.session = None
            known.idle_since = self._clock.monotonic()

    def device_changed(self, known: KnownDevice, decided_ms: int = 0) -> None:
        """Ends the live session of a device that may no longer send; renews what the spool says of one that may.
        `decided_ms` is when somebody decided so, 0 where it was the edge itself."""
        session = known.session
        if session is None or session.caller is None:
            return
        peer = session.caller.peer
        refusal = peer.device.refusal or peer.credential.refusal
        if refusal is not None:
            session.decided_ms = decided_ms
            self._end(session, refusal)
        elif not self._still_admits(session):
            self._end(session, Reason.UNKNOWN_DEVICE)
        elif session.caller.sender.facts.vehicle_id != peer.device.vehicle_id:
            session.caller = self._caller(session, known, peer)

    def look_again(self, session: Session) -> None:
        """Ends a live session under a former credential once none could begin under it: time passes, and the device may
        have sent under the newer one elsewhere. Asked each second of each session."""
        caller = session.caller  # nearly all are under a current credential
        if caller is None or caller.peer.credential.ended_at_ms is None:
            return
        if not self._still_admits(session):
            self._end(session, Reason.UNKNOWN_DEVICE)

    def _still_admits(self, session: Session) -> bool:
        if session.caller is None or session.identity is None:
            return True
        return self._fleet.admits(session.caller.known, session.identity, self._clock.now_ms())

    def _end(self, session: Session, refusal: Reason) -> None:
        self._counts.refused_connections[refusal] += 1
        session.end(Code.NOT_AUTHORIZED, refusal.value)
        self.on_answer(session)

    def vet_again(self) -> None:
        """Issuers or revocation lists are others, or older, than when the sessions began."""
        for known in self._fleet.all():
            session = known.session
            if session is not None and session.caller is not None and session.identity is not None:
                self._vet(session, session.identity, session.caller.peer)

    def _vet(self, session: Session, identity: CertificateIdentity, peer: Peer) -> None:
        try:
            refusal = self._vetting.refusal(identity)
        except NobodyKnows:
            session.end(Code.SERVER_BUSY, "come back later")
            self.on_answer(session)
        except ProfileError as error:
            session.end(Code.NOT_AUTHORIZED, f"certificate: {error}")
            self.on_answer(session)
        else:
            peer.flags = self._vetting.flags(identity)
            if refusal is not None:
                self._end(session, refusal)

    def replace_policy(self, version: str) -> None:
        """From the next message on the spool says that it was judged under this one."""
        if version == self._policy_version:
            return
        self._policy_version = version
        for known in self._fleet.all():
            if known.session is not None and known.session.caller is not None:
                known.session.caller = self._caller(known.session, known, known.session.caller.peer)
