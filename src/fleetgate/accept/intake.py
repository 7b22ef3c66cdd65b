"""The road itself: admit, judge, append and claim, count; then commit.

One object for both listeners, so a message is treated alike however it came. `receive` is synchronous and never waits;
what it returns may be told to the vehicle only after the next `commit` has returned. All of it runs on the one trio
thread, so between a verdict and its claim nothing else happens. What a device is scored for is decided here and by the
listeners; what follows from it, by `scorekeeper`.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from fleetgate import fault
from fleetgate.accept.brake import BRAKING
from fleetgate.accept.counts import Counts
from fleetgate.accept.disorder import Disorder, Finding, signal_of
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.known import Caller, KnownDevice
from fleetgate.accept.limits import SENT, Account, Quantity
from fleetgate.accept.rejections import Rejections
from fleetgate.accept.scorekeeper import Scorekeeper
from fleetgate.clock import Clock
from fleetgate.config import Policy as PolicySettings
from fleetgate.errors import SpoolError
from fleetgate.judge import Flag, Outcome, Policy, Reason, Verdict, claim, judge
from fleetgate.spool.writer import Writer

_DUPLICATE = Outcome.DUPLICATE
_NOT_IN_ORDER = {
    Reason.TOO_OLD: Finding(Disorder.LATE),
    Reason.BEHIND_WINDOW: Finding(Disorder.LATE),
    Reason.STALE_EPOCH: Finding(Disorder.ROLLBACK),
}
"""Refusals whose class needs no look at the past. They score nobody: the device is told how to go on."""


class Intake:
    """Judges what the listeners receive and commits it to the spool."""

    def __init__(
        self,
        writer: Writer,
        fleet: Fleet,
        scores: Scorekeeper,
        policy: Policy,
        counts: Counts,
        clock: Clock,
    ) -> None:
        self._writer = writer
        self._fleet = fleet
        self.limits = fleet.limits
        self.scores = scores
        scores.on_record = self._recorded
        self._clock = clock
        self._rejections = Rejections()
        self._committed = trio.Event()
        self._wanted = trio.Event()
        self._error: SpoolError | None = None
        self._pending = 0
        self.policy = policy
        self.counts = counts
        self.on_commit: Callable[[], None] = lambda: None
        self.on_evidence: Callable[[Caller, str, Verdict, bytes, bytes | None, int, str], None] = lambda *_: None

    def replace_policy(self, policy: Policy, settings: PolicySettings) -> None:
        """From the next message on."""
        self.policy = policy
        self.scores.replace_settings(settings)

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
                late = verdict.flags & Flag.LATE > 0
                finding = caller.repeats.note(credential.windows, envelope.epoch, envelope.seq, late=late)
            else:
                if envelope.epoch != peer.device.epoch or known.timeline.astray:
                    highest = credential.windows.highest(envelope.epoch)
                    finding = known.timeline.go_on(
                        envelope.epoch, envelope.seq, envelope.sent_at, peer.device.epoch, highest
                    )
                caller.repeats.took(envelope.epoch, envelope.seq)
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
            self.scores.score(known, finding.signal, 1, now, now)

    def admit_connection(self, caller: Caller, now: int) -> float:
        """0.0 when a device may begin one more connection, else the seconds to wait: recorded as its refusal where its
        own limit is used up, and not where others may be the cause. It scores nobody: who cuts its connections makes it
        begin more."""
        known, now_s = caller.known, self._clock.monotonic()
        if wait_s := known.account.wait((Quantity.CONNECTIONS,), now_s):
            self._note_unseen(caller, Reason.RATE_LIMITED, now, 1)
            self.wake()
            return wait_s
        return self.limits.admit_connection(known.account, known.key[0], known.software, known.issuer, now_s)

    def senders(self, caller: Caller) -> list[Account]:
        """The accounts that what it sends is charged to besides its own."""
        known, limits = caller.known, self.limits
        return limits.senders(known.key[0], known.software, known.issuer) if limits.shares_sending else []

    def shared_wait(self, senders: list[Account]) -> float:
        """Seconds until all of them have something left; 0.0 when they have."""
        now_s = self._clock.monotonic()
        return max((account.wait(SENT, now_s) for account in senders), default=0.0)

    def sent(self, transport: str) -> tuple[int, int]:
        """Messages that were judged so far, and their events: what `charge` counts from."""
        return sum(self.counts.outcomes[transport]), self.counts.events

    def charge(self, caller: Caller, before: tuple[int, int], size: int, now_s: float) -> None:
        """Charges what was judged since, and so many bytes, to those with whom it shares limits. What a device is too
        fast with itself is not."""
        messages, events = self.sent(caller.transport)
        for account in self.senders(caller):  # others, where its first message said which software it has
            account.charge_sent(messages - before[0], size, events - before[1], now_s)

    def refuse_unseen(self, caller: Caller, reason: Reason, now: int, count: int = 1) -> None:
        """Records and scores what admission refused before the judge saw it (oversized, rate_limited)."""
        if reason is Reason.RATE_LIMITED:
            caller.repeats.delayed()
        self._note_unseen(caller, reason, now, count)
        self.scores.score(caller.known, signal_of(reason, ""), count, now, now)

    def _note_unseen(self, caller: Caller, reason: Reason, now: int, count: int) -> None:
        self._rejections.note(caller.known, caller.sender, reason, "", now, count)
        self.counts.reasons[caller.transport][reason] += count
        self._pending += 1

    def _refuse(self, caller: Caller, verdict: Verdict, reason: Reason, now: int) -> Finding | None:
        known, sender, envelope = caller.known, caller.sender, verdict.envelope
        finding = None
        if verdict.credential is not None and envelope is not None:  # step 3 has passed
            sender = caller.sender_of(verdict.credential)
            finding = _NOT_IN_ORDER.get(reason)
            if reason is Reason.EQUIVOCATION:
                finding = known.timeline.conflict(envelope.epoch, envelope.seq, now, caller)
        disorder = finding.disorder if finding is not None else ""
        refused = self._rejections.note(known, sender, reason, disorder, now)
        if verdict.credential is not None and envelope is not None:
            refused.note(envelope.epoch, envelope.seq)
        self.counts.reasons[caller.transport][reason] += 1
        if reason in BRAKING:
            known.brake.refused(self._clock.monotonic(), self.scores.settings)
        if reason is Reason.CLOCK_AHEAD:
            known.ahead_at = self._clock.monotonic()
        if finding is not None:
            self._note_disorder(known, finding, now)
        elif verdict.scores:
            self.scores.score(known, reason.value, 1, now, now)
        return finding

    def commit(self) -> None:
        """Puts everything received so far on disk. When it returns, verdicts may be told. Raises SpoolError."""
        if self._pending:
            started = self._clock.monotonic()
            self._rejections.write(self._writer)
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

    def _recorded(self) -> None:
        self._pending += 1
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
