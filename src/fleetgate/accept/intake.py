"""The road itself: admit, judge, append and claim, count and score; then commit.

One object for both listeners, so a message is treated alike however it came. `receive` is synchronous and never waits;
what it returns may be told to the vehicle only after the next `commit` has returned. All of it runs on the one trio
thread, so between a verdict and its claim nothing else happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from fleetgate import fault, log
from fleetgate.accept.brake import BRAKING
from fleetgate.accept.breaker import Breaker, Wish
from fleetgate.accept.census import cohorts_of
from fleetgate.accept.counts import Counts
from fleetgate.accept.disorder import Disorder, Finding, signal_of
from fleetgate.accept.fleet import Caller, Fleet, KnownDevice
from fleetgate.accept.limits import SENT, Account, Quantity
from fleetgate.accept.standing import Part
from fleetgate.clock import Clock
from fleetgate.config import Policy as PolicySettings
from fleetgate.control.records import DeviceState
from fleetgate.control.suspicions import Suspicion
from fleetgate.errors import SpoolError
from fleetgate.judge import Flag, Outcome, Policy, Reason, Verdict, claim, judge
from fleetgate.spool.format import AlertRecord, RejectionRecord, TransitionRecord
from fleetgate.spool.writer import Sender, Writer

MAX_RANGES = 64
"""(epoch, first, last) ranges kept of one peer's refusals in one commit; beyond it only the count grows."""

UNTROUBLED_SHARE = 0.1
"""Below this share of a watched device's score there is no trouble: the next signal is the first of another one."""

_NO_PART = Part(0.0, 0)
_DUPLICATE = Outcome.DUPLICATE
_NOT_IN_ORDER = {
    Reason.TOO_OLD: Finding(Disorder.LATE),
    Reason.BEHIND_WINDOW: Finding(Disorder.LATE),
    Reason.STALE_EPOCH: Finding(Disorder.ROLLBACK),
}
"""Refusals whose class needs no look at the past. They score nobody: the device is told how to go on."""
_log = log.get("accept.intake")


class Refused:
    """Refusals of one sender for one reason since the last commit."""

    __slots__ = ("count", "first_at", "known", "last_at", "ranges")

    def __init__(self, known: KnownDevice, now: int) -> None:
        self.known = known
        self.count = 0
        self.first_at = self.last_at = now
        self.ranges: list[tuple[int, int, int]] = []

    def record(self, reason: Reason, disorder: str) -> RejectionRecord:
        score, scored_at = self.known.standing.parts.get(signal_of(reason, disorder), _NO_PART)
        times = (self.first_at, self.last_at)
        return RejectionRecord(-1, reason.value, self.count, *times, self.ranges, score, scored_at, disorder)

    def note(self, epoch: int, seq: int) -> None:
        if self.ranges:
            last_epoch, first, last = self.ranges[-1]
            if last_epoch == epoch and last <= seq <= last + 1:
                self.ranges[-1] = (epoch, first, seq)
                return
        if len(self.ranges) < MAX_RANGES:
            self.ranges.append((epoch, seq, seq))


class Intake:
    """Judges what the listeners receive and commits it to the spool."""

    def __init__(
        self,
        writer: Writer,
        fleet: Fleet,
        breaker: Breaker,
        policy: Policy,
        settings: PolicySettings,
        counts: Counts,
        clock: Clock,
    ) -> None:
        self._writer = writer
        self._fleet = fleet
        self._breaker = breaker
        breaker.on_alert = self.alert
        self._settings = settings
        self._clock = clock
        self._refused: dict[tuple[Sender, Reason, str], Refused] = {}
        self._committed = trio.Event()
        self._wanted = trio.Event()
        self._error: SpoolError | None = None
        self._pending = 0
        self.policy = policy
        self.counts = counts
        self.on_state: Callable[[KnownDevice], None] = lambda known: None
        self.on_commit: Callable[[], None] = lambda: None
        self.on_evidence: Callable[[Caller, str, Verdict, bytes, bytes | None, int, str], None] = lambda *_: None

    def replace_policy(self, policy: Policy, settings: PolicySettings) -> None:
        """From the next message on."""
        self.policy, self._settings = policy, settings
        self._breaker.threshold = settings.quarantined_score

    def receive(self, caller: Caller, raw: bytes, topic: bytes | None, now: int) -> Verdict:
        """Judges one message and, if it is to be kept, appends and claims it. `now` in Unix ms."""
        peer = caller.peer
        verdict = judge(raw, peer, now, self.policy, topic)
        outcome, credential, envelope, counts = verdict.outcome, verdict.credential, verdict.envelope, self.counts
        if verdict.reason is not None:
            finding = self._refuse(caller, verdict, verdict.reason, now)
            kind = finding.disorder if finding is not None else ""
            self.on_evidence(caller, verdict.reason.value, verdict, raw, topic, now, kind)
        elif credential is not None and envelope is not None:
            known, finding = caller.known, None
            if outcome is _DUPLICATE:
                finding = caller.repeats.note(credential.windows, envelope.epoch, envelope.seq)
            else:
                if envelope.epoch != peer.device.epoch or known.timeline.astray:
                    highest = credential.windows.highest(envelope.epoch)
                    finding = known.timeline.go_on(
                        envelope.epoch, envelope.seq, envelope.sent_at, peer.device.epoch, highest
                    )
                self._writer.message(caller.sender_of(credential), now, outcome, verdict.flags, raw, verdict.events)
                if claim(verdict, peer.device, now) > 1:
                    counts.disorder[Disorder.GAP] += 1
                known.software = verdict.software
                self._fleet.touch(known)
                counts.events += verdict.events
                if known.account.limits_events:
                    known.account.charge(Quantity.EVENTS, verdict.events, self._clock.monotonic())
                counts.bytes += len(raw)
            if verdict.flags:
                self._note_flags(known, verdict.flags)
            if finding is not None:
                self._note_disorder(known, finding, now)
                if finding.signal:
                    self.on_evidence(caller, finding.signal, verdict, raw, topic, now, finding.disorder)
        counts.outcomes[caller.transport][outcome] += 1
        self._pending += 1
        return verdict

    def _note_flags(self, known: KnownDevice, flags: int) -> None:
        if flags & Flag.CLOCK_SKEW:
            known.ahead_at = self._clock.monotonic()
        if flags & Flag.LATE:
            self.counts.disorder[Disorder.LATE] += 1

    def _note_disorder(self, known: KnownDevice, finding: Finding, now: int) -> None:
        self.counts.disorder[finding.disorder] += 1
        if finding.signal:
            self.score(known, finding.signal, 1, now, now)

    def admit_connection(self, caller: Caller, now: int) -> float:
        """0.0 when a device may begin one more connection, else the seconds to wait: recorded as its refusal where its
        own limit is used up, and not where others may be the cause."""
        known, now_s = caller.known, self._clock.monotonic()
        if wait_s := known.account.wait((Quantity.CONNECTIONS,), now_s):
            self.refuse_unseen(caller, Reason.RATE_LIMITED, now)
            self.wake()
            return wait_s
        limits = self._fleet.limits
        return limits.admit_connection(known.account, known.key[0], known.software, known.issuer, now_s)

    def senders(self, caller: Caller) -> list[Account]:
        """The accounts that what it sends is charged to besides its own."""
        known, limits = caller.known, self._fleet.limits
        return limits.senders(known.key[0], known.software, known.issuer) if limits.shares_sending else []

    def shared_wait(self, senders: list[Account]) -> float:
        """Seconds until all of them have something left; 0.0 when they have."""
        now_s = self._clock.monotonic()
        return max((account.wait(SENT, now_s) for account in senders), default=0.0)

    def refuse_unseen(self, caller: Caller, reason: Reason, now: int, count: int = 1) -> None:
        """Records what admission refused before the judge saw it (oversized, rate_limited)."""
        if reason is Reason.RATE_LIMITED:
            caller.repeats.delayed()
        refused = self._refusals(caller.known, caller.sender, reason, "", now)
        refused.count += count
        self.counts.reasons[caller.transport][reason] += count
        self.score(caller.known, signal_of(reason, ""), count, now, now)
        self._pending += 1

    def _refuse(self, caller: Caller, verdict: Verdict, reason: Reason, now: int) -> Finding | None:
        known, sender, envelope = caller.known, caller.sender, verdict.envelope
        finding = None
        if verdict.credential is not None and envelope is not None:  # step 3 has passed
            sender = caller.sender_of(verdict.credential)
            finding = _NOT_IN_ORDER.get(reason)
            if reason is Reason.EQUIVOCATION:
                finding = known.timeline.conflict(envelope.epoch, envelope.seq, now, caller)
        refused = self._refusals(known, sender, reason, finding.disorder if finding is not None else "", now)
        refused.count += 1
        if verdict.credential is not None and envelope is not None:
            refused.note(envelope.epoch, envelope.seq)
        self.counts.reasons[caller.transport][reason] += 1
        if reason in BRAKING:
            known.brake.refused(self._clock.monotonic(), self._settings)
        if reason is Reason.CLOCK_AHEAD:
            known.ahead_at = self._clock.monotonic()
        if finding is not None:
            self._note_disorder(known, finding, now)
        elif verdict.scores:
            self.score(known, reason.value, 1, now, now)
        return finding

    def _refusals(self, known: KnownDevice, sender: Sender, reason: Reason, disorder: str, now: int) -> Refused:
        key = (sender, reason, disorder)
        refused = self._refused.get(key)
        if refused is None:
            refused = self._refused[key] = Refused(known, now)
        refused.last_at = now
        return refused

    def score(self, known: KnownDevice, signal: str, count: int, at: int, now: int) -> None:
        """Scores `count` events of a signal, seen at `at` (Unix ms), and gives the device the state that this calls
        for, or that the breaker leaves it."""
        standing, settings = known.standing, self._settings
        if standing.score(now, settings.signals) < settings.watched_score * UNTROUBLED_SHARE:
            known.cohorts = cohorts_of(known)
        if not standing.add(signal, count, at, settings.signals):
            return
        self._fleet.touch(known)
        state = standing.due(now, settings)
        if state is DeviceState.QUARANTINED and self._breaker.holds(self._wish(known, now), now):
            state = None if standing.state is DeviceState.WATCHED else DeviceState.WATCHED
        if state is not None:
            self.move(known, state, now, signal)

    def suspect(self, known: KnownDevice, suspicion: Suspicion) -> None:
        """Scores what load found out about a device. It may have been long ago: load was behind, or control away."""
        now = self._clock.now_ms()
        self.score(known, suspicion.signal, suspicion.count, min(suspicion.at_ms, now), now)
        self.wake()

    def _wish(self, known: KnownDevice, now: int) -> Wish:
        standing = known.standing
        scores, until_ms = standing.scores(now, self._settings.signals), standing.quarantined_until(now, self._settings)
        return Wish(known.key, known.cohorts or cohorts_of(known), scores, until_ms)

    def abused(self, known: KnownDevice) -> None:
        """Scores a connection of the device that broke the protocol it speaks."""
        now = self._clock.now_ms()
        self.score(known, "protocol_abuse", 1, now, now)
        self.wake()

    def overlapped(self, known: KnownDevice) -> None:
        """Scores a session that goes on sending though another one of the device took over."""
        now = self._clock.now_ms()
        self.score(known, "overlapping_sessions", 1, now, now)
        self.wake()

    def relax(self, now: int) -> None:
        """Trusts watched devices again that have behaved since, and lets those go into quarantine that were kept from
        it and are not any more; called every few seconds."""
        loosened = self._breaker.look(now)
        for known in list(self._fleet.all()):
            if known.standing.relaxed(now, self._settings):
                self.move(known, DeviceState.TRUSTED, now, "its score has gone down")
                self.wake()
            elif loosened and self._is_due(known, now) and not self._breaker.holds(self._wish(known, now), now):
                self.move(known, DeviceState.QUARANTINED, now, "its cohort is held no more")
                self.wake()

    def _is_due(self, known: KnownDevice, now: int) -> bool:
        """Whether it is watched although its score says quarantine."""
        standing = known.standing
        return standing.state is DeviceState.WATCHED and standing.due(now, self._settings) is DeviceState.QUARANTINED

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
        self._pending += 1
        self.wake()

    def move(self, known: KnownDevice, state: DeviceState, now: int, why: str) -> None:
        """Gives a device a new state, from its next message on, and records the transition with the next commit."""
        standing = known.standing
        before, standing.state, standing.state_at = standing.state, state, max(now, standing.state_at + 1)
        record = TransitionRecord(
            *known.key,
            before.value,
            state.value,
            standing.state_at,
            why,
            standing.score(now, self._settings.signals),
            self._settings.version,
        )
        self._writer.transition(record)
        self._fleet.settle(known)
        self._fleet.touch(known)
        self.counts.transitions[state] += 1
        _log.warning("device_state", tenant=known.key[0], device_id=known.key[1], before=before, after=state, why=why)
        self.on_state(known)
        self._pending += 1

    def commit(self) -> None:
        """Puts everything received so far on disk. When it returns, verdicts may be told. Raises SpoolError."""
        if self._pending:
            started = self._clock.monotonic()
            for (sender, reason, disorder), refused in self._refused.items():
                self._writer.rejection(sender, refused.record(reason, disorder))
            self._refused.clear()
            fault.point("append.claimed")
            self._writer.commit()
            self.counts.commits += 1
            self.counts.commit_seconds.observe(self._clock.monotonic() - started)
            self._pending = 0
            self._committed.set()
            self._committed = trio.Event()
        self.on_commit()
        fault.point("ack.sent")

    async def committed(self) -> None:
        """Waits until everything received so far is on disk."""
        if self._pending:
            self.wake()
            await self._committed.wait()

    def fail(self, error: SpoolError) -> None:
        """Ends the process by `run`: for errors met where a library would swallow them (an HTTPS request)."""
        self._error = error
        self.wake()

    def wake(self) -> None:
        """Has a commit done soon, for what did not arrive in a turn of the socket loop."""
        self._wanted.set()

    async def run(self) -> None:
        """Commits when woken, one scheduler round later: others that are ready by then join the same commit."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            await trio.lowlevel.checkpoint()
            if self._error is not None:
                raise self._error
            self.commit()
