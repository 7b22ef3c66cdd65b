"""How devices are scored, and moved from one state to another.

Adds what is known of a device to its standing, asks the breaker before it goes into quarantine, and records each move
as a `transition` of the spool, once more where control does not show it, or where more is known of what it was for.
Decides when that is done; what a score calls for is decided by `standing`, what a quarantine is for by `causes`, which
cohort is held by `breaker`, which state may follow which by `control.states`. Which event is a signal is decided by
whoever sees it: `intake`, the listeners, load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fleetgate import log
from fleetgate.accept.breaker import Breaker, Wish
from fleetgate.accept.causes import causes
from fleetgate.accept.census import cohorts_of, in_memory
from fleetgate.accept.counts import Counts
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.known import KnownDevice
from fleetgate.clock import Clock
from fleetgate.config import Policy as Settings
from fleetgate.control.records import DeviceState
from fleetgate.control.states import View, moved
from fleetgate.control.suspicions import Suspicion
from fleetgate.scoring import listed
from fleetgate.spool.format import AlertRecord, TransitionRecord
from fleetgate.spool.writer import Writer

_TOLD = (DeviceState.WATCHED, DeviceState.QUARANTINED)

_log = log.get("accept.scorekeeper")


class Scorekeeper:
    """Of one edge. `on_state` gets each device that was moved, `on_record` is called when something was appended that
    the next commit has to put on disk."""

    def __init__(
        self, writer: Writer, fleet: Fleet, breaker: Breaker, settings: Settings, counts: Counts, clock: Clock
    ) -> None:
        self._writer = writer
        self._fleet = fleet
        self._breaker = breaker
        breaker.on_alert = self.alert
        breaker.recount = lambda cohort: in_memory(fleet.all(), cohort)
        self._counts = counts
        self._clock = clock
        self.settings = settings
        self.on_state: Callable[[KnownDevice], None] = lambda known: None
        self.on_record: Callable[[], None] = lambda: None

    def replace_settings(self, settings: Settings) -> None:
        """From the next signal on."""
        self.settings = settings
        self._breaker.threshold = settings.quarantined_score

    def score(self, known: KnownDevice, signal: str, count: int, at: int, now: int) -> None:
        """Scores `count` events of a signal, seen at `at` (Unix ms), and gives the device the state that this calls
        for, or that the breaker leaves it."""
        standing, settings = known.standing, self.settings
        if standing.untroubled(now, settings):
            known.before_trouble = known.software, known.issuer
        if not standing.add(signal, count, at, settings.signals):
            return
        self._fleet.touch(known)
        state = standing.due(now, settings)
        if state is DeviceState.QUARANTINED and self._breaker.holds(self._wish(known, now), now):
            state = None if standing.state is DeviceState.WATCHED else DeviceState.WATCHED
        if state is DeviceState.QUARANTINED:
            self._quarantine(known, now)
        elif state is not None:
            self.move(known, state, now, signal)
        elif standing.state is DeviceState.QUARANTINED:
            self._tell_more(known, now)

    def suspect(self, known: KnownDevice, suspicion: Suspicion) -> None:
        """Scores what load found out about a device. It may have been long ago: load was behind, or control away."""
        now = self._clock.now_ms()
        self.score(known, suspicion.signal, suspicion.count, min(suspicion.at_ms, now), now)

    def _wish(self, known: KnownDevice, now: int) -> Wish:
        standing = known.standing
        scores, until_ms = standing.scores(now, self.settings.signals), standing.quarantined_until(now, self.settings)
        return Wish(known.key, cohorts_of(known), scores, until_ms)

    def abused(self, known: KnownDevice, now: int) -> None:
        """Scores a connection of the device that broke the protocol it speaks."""
        self.score(known, "protocol_abuse", 1, now, now)

    def overlapped(self, known: KnownDevice, now: int) -> None:
        """Scores a session that goes on sending though another one of the device took over."""
        self.score(known, "overlapping_sessions", 1, now, now)

    def relax(self, now: int) -> None:
        """Trusts watched devices again that have behaved since, and lets those go into quarantine that were kept from
        it and are not any more; called every few seconds."""
        loosened = self._breaker.look(now)
        for known in list(self._fleet.all()):
            if known.standing.relaxed(now, self.settings):
                self.move(known, DeviceState.TRUSTED, now, "its score has gone down")
            elif loosened:
                self._reconsider(known, now)

    def taken(self, known: KnownDevice) -> None:
        """Of a device that comes into memory: its cohort may have been held when it went, and not be any more; and
        control may not know how it stands."""
        self.tell_again(known)
        self._reconsider(known, self._clock.now_ms())

    def tell_again(self, known: KnownDevice) -> None:
        """Records the step once more, with its own time, of a device under watch or in quarantine that control shows
        otherwise though nobody decided so: the record may have rotted before load read it, and what is held then has no
        case that a person could decide on. Where control only did not hear of it yet, it takes the step once."""
        standing = known.standing
        if standing.state not in _TOLD or known.record.state is standing.state or known.told_at >= standing.state_at:
            return
        now = self._clock.now_ms()
        self._record_again(known, self._causes(known, now), now)

    def _tell_more(self, known: KnownDevice, now: int) -> None:
        """Records the step into quarantine once more when the device turns out to be there for a signal that was not
        told: its case is to name it before a person forgives the others. Each signal once, whatever a device sends."""
        told = known.told_causes if known.told_at == known.standing.state_at else []
        more = [signal for signal in self._causes(known, now) if signal not in told]
        if more:
            self._record_again(known, told + more, now)

    def _record_again(self, known: KnownDevice, signals: list[str], now: int) -> None:
        """With its own time: it is the same step, and what a person has decided since stands over it."""
        standing = known.standing
        known.told_at, known.told_causes = standing.state_at, signals
        self._writer.transition(
            TransitionRecord(
                *known.key,
                known.record.state.value,
                standing.state.value,
                standing.state_at,
                listed(signals) or "recorded again as control does not show it",
                standing.score(now, self.settings),
                self.settings.version,
                standing.state_at,
            )
        )
        _log.warning("device_state_told_again", tenant=known.key[0], device_id=known.key[1], state=standing.state)
        self.on_record()

    def _causes(self, known: KnownDevice, now: int) -> list[str]:
        return causes(known.standing.scores(now, self.settings.signals), self.settings)

    def _quarantine(self, known: KnownDevice, now: int) -> None:
        signals = self._causes(known, now)
        self.move(known, DeviceState.QUARANTINED, now, listed(signals))
        known.told_causes = signals

    def _reconsider(self, known: KnownDevice, now: int) -> None:
        if self._is_due(known, now) and not self._breaker.holds(self._wish(known, now), now):
            self._quarantine(known, now)

    def _is_due(self, known: KnownDevice, now: int) -> bool:
        """Whether it is watched although its score says quarantine."""
        standing = known.standing
        return standing.state is DeviceState.WATCHED and standing.due(now, self.settings) is DeviceState.QUARANTINED

    def restore(self, alerts: Iterable[AlertRecord], watched: Iterable[KnownDevice]) -> None:
        """After a start: a cohort that was held is held on."""
        now = self._clock.now_ms()
        wishes = (self._wish(known, now) for known in watched if self._is_due(known, now))
        self._breaker.restore(alerts, wishes, now)

    def alert(self, record: AlertRecord) -> None:
        """Records an alert with the next commit."""
        self._writer.alert(record)
        _log.error(
            f"alert_{record.state}", kind=record.kind, tenant=record.tenant, cohort=record.cohort, **record.detail
        )
        self.on_record()

    def move(self, known: KnownDevice, state: DeviceState, now: int, why: str) -> None:
        """Gives a device a new state, from its next message on, and records the transition with the next commit.

        `now` is when the message that led to it was received: what is held for it was not received before, though it
        came in the same turn of the loop, and a release gives back what was held from then on.
        """
        standing = known.standing
        before = standing.state
        standing.state, standing.state_at, _ = moved(View(before, standing.state_at, standing.decided_at), state, now)
        record = TransitionRecord(
            *known.key,
            before.value,
            state.value,
            standing.state_at,
            why,
            standing.score(now, self.settings),
            self.settings.version,
            now,
        )
        self._writer.transition(record)
        known.told_at, known.told_causes = standing.state_at, []
        self._fleet.settle(known)
        self._fleet.touch(known)
        self._counts.transitions[state] += 1
        _log.warning("device_state", tenant=known.key[0], device_id=known.key[1], before=before, after=state, why=why)
        self.on_state(known)
        self.on_record()
