"""Thousands of vehicles from one process: the second driver, one epoll set instead of a task for each device.

A load generator: it must cost less than what it measures. So its hot path does not go through `core` for each message
(4 us of bookkeeping) but sends frames prepared before the clock starts. It is honest all the same: every connection
has its own certificate, every message its own number and tag, an answer counts only when it names the message it
answers, nothing is sent twice, and what was refused or lost is said. What a device does on a refusal is the agents'
business: a lane that the gate ends stays ended, and is counted. Decides when lanes connect and when they may send; a
lane's bytes are `swarm_lane`'s.
"""

import gc
import json
import random
import select
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

from fleetsim.bundle import Bundle, tls_context
from fleetsim.gate import RunError
from fleetsim.swarm_lane import READ_BYTES, HttpsLane, Lane, LaneError, MqttLane, Phase
from fleetsim.swarm_plan import Plan, figures
from fleetsim.swarm_tally import Histogram, Tally
from fleetsim.swarm_work import Work, bodies

MAX_EVENTS = 1024
# Handshake steps of one turn: 1 ms each, so that answers are read within 16 ms while a herd comes in.
MAX_SHAKES = 16
DRAIN_S = 10.0
PREPARED_BYTES = 1 << 30
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_now_s = time.perf_counter

Say = Callable[[str], None]
"""Told of `connected`, `measuring`, `measured` and `interval {JSON}` as they happen: moments for others to look."""


class Swarm:
    """The lanes of one plan. `bundles` are the devices; HTTPS connections may share one, MQTT sessions cannot."""

    def __init__(self, plan: Plan, bundles: Sequence[Bundle], say: Say) -> None:
        if not bundles or (not plan.batch and len(bundles) < plan.connections):
            raise RunError(f"{plan.connections} connections need as many devices, and there are {len(bundles)}")
        self._plan, self._say = plan, say
        self._tally = Tally()
        self._epoll = select.epoll()
        self._connecting = Histogram()
        self._failed: Counter[str] = Counter()
        self._live = 0
        self._idle: deque[Lane] = deque()
        self._firing = self._finishing = False
        self._requests_per_s = plan.rate / max(1, plan.batch)
        self._released = 0  # requests sent because the rate said so
        self._start_s = 0.0
        self._by_fd: dict[int, Lane] = {}
        try:
            made = bodies(plan.shape, random.Random(plan.seed))
        except ValueError as error:
            raise RunError(str(error)) from None
        # One TLS context and one sequence of numbers for each identity, made before anything is measured: 0.9 ms and
        # 32 KB each. HTTPS connections of one device share them.
        identities = [
            (tls_context(bundle, plan.server_name), Work(bundle, plan.shape.enc, made, plan.epoch, _unix_ms))
            for bundle in bundles[: plan.connections]
        ]
        self._lanes = [self._lane(*identity) for identity in islice(cycle(identities), plan.connections)]

    def _lane(self, context: ssl.SSLContext, work: Work) -> Lane:
        if self._plan.batch:
            return HttpsLane(context, work, self._tally, self._plan.batch)
        return MqttLane(context, work, self._tally)

    def finish_early(self) -> None:
        """End the measured time now. May be called from a signal handler."""
        self._finishing = True

    # The run.

    def run(self) -> dict[str, Any]:
        """Connect, prepare, send, measure; the figures. Raises RunError when nothing can be measured."""
        plan = self._plan
        report: dict[str, Any] = {"connections": plan.connections, "connect": self._connect()}
        if plan.reconnect:
            for lane in self._lanes:
                self._drop(lane, Phase.DOWN)
            report["reconnect"] = self._connect()
        self._say("connected")
        if plan.hold_s:
            self._until(_now_s() + plan.hold_s, 0.1)
        if plan.seconds:
            report |= self._load()
        report["ended"] = dict(self._failed)
        for lane in self._lanes:
            self._drop(lane, Phase.DOWN)
        self._epoll.close()
        return report

    def _load(self) -> dict[str, Any]:
        plan, tally = self._plan, self._tally
        started = time.process_time()
        self._prepare()
        prepared_s = time.process_time() - started
        gc.collect()
        gc.freeze()  # what was prepared stays: nothing of it is walked through again
        self._firing = True
        self._idle.extend(lane for lane in self._lanes if lane.phase is Phase.LIVE)
        self._start_s = _now_s()
        self._release_all()
        self._until(_now_s() + plan.warm_up_s)
        warm = Counter(tally.answers())
        tally.latency = Histogram()
        wall, cpu = _now_s(), time.process_time()
        self._say("measuring")
        self._measure(wall)
        seconds, cpu_s = _now_s() - wall, time.process_time() - cpu
        self._say("measured")
        overdue = max(0, self._due() - self._released) * max(1, plan.batch)
        answers = Counter(tally.answers()) - warm
        latency = tally.latency.report()
        self._firing = False
        self._until(_now_s() + DRAIN_S, 0.1, lambda: not any(lane.flying for lane in self._lanes))
        return figures(plan, answers, seconds, cpu_s) | {
            "ack_ms": latency,
            "prepared_cpu_s": round(prepared_s, 3),
            "overdue": overdue,
            "answers_in_all": tally.answers(),
            "unanswered": sum(len(lane.flying) * max(1, plan.batch) for lane in self._lanes),
        }

    def _measure(self, started_s: float) -> None:
        """The measured seconds, in intervals if the plan wants to hear of each."""
        plan, tally = self._plan, self._tally
        total, accepted = tally.latency, tally.accepted
        end_s = started_s + plan.seconds
        while (now := _now_s()) < end_s and not self._finishing:
            tally.latency = Histogram()
            self._until(min(end_s, now + (plan.interval_s or plan.seconds)), done=lambda: self._finishing)
            if plan.interval_s:
                seen = {"seconds": _now_s() - now, "accepted": tally.accepted - accepted}
                self._say(f"interval {json.dumps(seen | {'ack_ms': tally.latency.report()})}")
            accepted = tally.accepted
            total.merge(tally.latency)
        tally.latency = total

    def _prepare(self) -> None:
        size = 0
        for lane in self._lanes if self._plan.prepare else ():
            if lane.phase is Phase.LIVE:
                lane.prepare(self._plan.prepare)
                size += sum(len(frame) for frame, _ in lane.ready)
                if size > PREPARED_BYTES:
                    raise RunError(f"--prepare: the messages take more than {PREPARED_BYTES >> 20} MiB; ask for fewer")

    # Connecting: all at once, but only so many on their way in.

    def _connect(self) -> dict[str, Any]:
        waiting = deque(self._lanes)
        self._connecting = Histogram()
        before, failed = self._live, self._failed.total()
        wall, cpu = _now_s(), time.process_time()
        deadline = wall + self._plan.connect_s
        while self._live - before + self._failed.total() - failed < len(self._lanes):
            on_their_way = len(self._by_fd) - self._live
            for _ in range(min(len(waiting), self._plan.handshakes - on_their_way)):
                self._dial(waiting.popleft())
            self._turn(0.05)
            if _now_s() > deadline:
                raise RunError(
                    f"{self._live} of {len(self._lanes)} connections in {self._plan.connect_s:.0f} s: is the gate up?"
                )
        seconds = _now_s() - wall
        if not self._live:
            raise RunError(f"no connection came up: {dict(self._failed)}")
        return {
            "live": self._live,
            "failed": self._failed.total() - failed,
            "seconds": round(seconds, 3),
            "handshakes_per_s": round((self._live - before) / seconds, 1),
            "ms": self._connecting.report(),
            "cpu_s": round(time.process_time() - cpu, 3),
        }

    def _dial(self, lane: Lane) -> None:
        lane.dial(self._plan.address)
        self._by_fd[lane.fd] = lane
        self._epoll.register(lane.fd, _OUT)

    def _came_up(self, lane: Lane) -> None:
        self._connecting.add(_now_s() - lane.dialled_s)
        self._live += 1
        self._epoll.modify(lane.fd, _IN)
        if isinstance(lane, MqttLane) and lane.receive_maximum < self._plan.in_flight:
            raise LaneError("receive_maximum_below_in_flight")

    def _shake(self, lane: Lane) -> None:
        mask = _IN
        try:
            lane.shake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLWantWriteError:
            mask = _OUT
        else:
            if lane.phase is Phase.LIVE:
                self._came_up(lane)
                return
        self._epoll.modify(lane.fd, mask)

    def _drop(self, lane: Lane, phase: Phase) -> None:
        if self._by_fd.pop(lane.fd, None) is None:
            return
        self._live -= lane.phase is Phase.LIVE
        lane.close(phase)  # which takes it out of the epoll set

    # Turns.

    def _until(self, deadline_s: float, wait_s: float = 0.05, done: Callable[[], bool] | None = None) -> None:
        plan = self._plan
        while (left := deadline_s - _now_s()) > 0 and not (done is not None and done()):
            if self._firing and plan.rate:
                self._release_due()
                self._turn(min(left, 0.001))
            else:
                self._turn(min(left, wait_s))
            self._tally.latency.settle()
            if not self._live:
                raise RunError(f"the gate ended every connection: {dict(self._failed)}")

    def _turn(self, wait_s: float) -> None:
        shakes = 0
        lanes = self._by_fd
        for fd, mask in self._epoll.poll(wait_s, MAX_EVENTS):
            lane = lanes[fd]
            try:
                if lane.phase is Phase.LIVE and mask == _IN:
                    if answered := lane.take(lane.read(READ_BYTES) or _closed()):
                        self._answered(lane, answered)
                elif lane.phase in (Phase.DIALLING, Phase.SHAKING):
                    shakes += 1
                    if shakes <= MAX_SHAKES:
                        self._shake(lane)
                else:
                    self._seldom(lane, mask)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                continue
            except (OSError, ValueError, LaneError) as error:
                self._failed[_label(error)] += 1
                self._drop(lane, Phase.ENDED)

    def _answered(self, lane: Lane, count: int) -> None:
        if not self._firing:
            return
        if self._plan.rate:
            self._idle.append(lane)
        else:
            lane.fire(count, _now_s())
            if lane.out:
                self._epoll.modify(lane.fd, _IN | _OUT)

    def _seldom(self, lane: Lane, mask: int) -> None:
        """CONNACK, and what a full socket buffer brings."""
        if mask & _OUT:
            lane.send(lane.out)
            if not lane.out:
                self._epoll.modify(lane.fd, _IN)
        if mask & ~_OUT:
            greeted = lane.phase is Phase.LIVE
            if answered := lane.take(lane.read(READ_BYTES) or _closed()):
                self._answered(lane, answered)
            if lane.phase is Phase.LIVE and not greeted:
                self._came_up(lane)

    # Sending: as answers come, or at a rate.

    def _release_all(self) -> None:
        """The first messages of a run without a rate: as many in flight as the plan says, on every lane."""
        if self._plan.rate:
            return
        while self._idle:
            self._fire(self._idle.popleft(), self._plan.in_flight, _now_s())
            if not len(self._idle) % 64:
                self._turn(0)

    def _release_due(self) -> None:
        """What is due at the plan's rate, on lanes that have nothing in flight. A request that finds none waits, and
        its latency counts from when it was due: a gate that stalls does not slow its clients' clocks."""
        due = self._due()
        while self._released < due and self._idle:
            lane = self._idle.popleft()
            if lane.phase is Phase.LIVE:
                self._fire(lane, 1, self._start_s + self._released / self._requests_per_s)
                self._released += 1

    def _due(self) -> int:
        return int((_now_s() - self._start_s) * self._requests_per_s)

    def _fire(self, lane: Lane, count: int, due_s: float) -> None:
        try:
            lane.fire(count, due_s)
            if lane.out:
                self._epoll.modify(lane.fd, _IN | _OUT)
        except OSError as error:
            self._failed[_label(error)] += 1
            self._drop(lane, Phase.ENDED)


def _unix_ms() -> float:
    return time.time() * 1000


def _closed() -> bytes:
    raise LaneError("closed")


def _label(error: Exception) -> str:
    if isinstance(error, LaneError):
        return str(error)
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or type(error).__name__)
