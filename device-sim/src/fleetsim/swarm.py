"""Thousands of vehicles from one process: the second driver, one epoll set instead of a task for each device.

A load generator: it must cost less than what it measures. So its hot path does not go through `core` for each message
(4 us of bookkeeping) but sends records signed and encrypted before the clock starts. It is honest all the same: every
connection has its own certificate, every message its own number and tag, an answer counts only when it names the
message it answers, nothing is sent twice, and what was refused or lost is said. What a device does on a refusal is the
agents' business. Decides when lanes connect, when they may send and what is measured; how they share a socket set is
`swarm_loop`'s.
"""

import gc
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle, islice, repeat
from math import inf
from typing import Any

from fleetsim.bundle import Device
from fleetsim.gate import RunError
from fleetsim.swarm_drive import DrivingFleet
from fleetsim.swarm_https import HttpsLane
from fleetsim.swarm_lane import Lane
from fleetsim.swarm_loop import Loop
from fleetsim.swarm_mqtt import MqttLane
from fleetsim.swarm_plan import Plan, figures
from fleetsim.swarm_tally import Histogram, Tally
from fleetsim.swarm_tls import SharedTls, Tls
from fleetsim.swarm_wire import LaneError, Phase
from fleetsim.swarm_work import Content, Work, bodies, repeated

DRAIN_S = 10.0
PREPARED_BYTES = 2 * 1024**3
# At a rate, what is due and what was answered is looked at this often, not once for each answer. A latency
# comes out up to 1 ms too long for it, never too short.
TICK_S = 0.001
_now_s = time.perf_counter

Say = Callable[[str], None]
"""Told of `connected`, `measuring`, `measured` and `interval {JSON}` as they happen: moments for others to look."""


class Swarm:
    """The lanes of one plan. HTTPS connections may share one, MQTT sessions cannot."""

    def __init__(self, plan: Plan, devices: Sequence[Device], say: Say) -> None:
        if not devices or (not plan.batch and len(devices) < plan.connections):
            raise RunError(f"{plan.connections} connections need as many devices, and there are {len(devices)}")
        self._plan, self._say = plan, say
        self._tally = Tally()
        self._loop: Loop[Lane] = Loop(self._came_up, self._idled if plan.rate else self._answered)
        self._connecting = Histogram()
        self._idle: deque[Lane] = deque()
        self._firing = self._finishing = False
        self._requests_per_s = plan.rate / max(1, plan.batch)
        self._released = 0  # requests sent because the rate said so
        self._start_s = 0.0
        self._end_s = inf  # of the measured time: nothing is due after it
        enc, contents = _contents(plan)
        # One sequence of numbers for each identity; HTTPS connections of one device share it.
        tls = SharedTls(plan.server_name)
        identities = [
            (tls.of(device), Work(device, enc, content, plan.epoch, _unix_ms))
            for device, content in zip(devices[: plan.connections], contents, strict=False)
        ]
        self._works = [work for _, work in identities]
        self._lanes = [self._lane(*identity) for identity in islice(cycle(identities), plan.connections)]

    def _lane(self, tls: Tls, work: Work) -> Lane:
        if self._plan.batch:
            return HttpsLane(tls, work, self._tally, self._plan.batch)
        return MqttLane(tls, work, self._tally)

    def finish_early(self) -> None:
        """Once connected: end the hold, the measured time or what leads to it now; the report has what there is. May be
        called from a signal handler."""
        self._finishing = True

    def _is_finishing(self) -> bool:
        return self._finishing

    # The run.

    def run(self) -> dict[str, Any]:
        """Connect, prepare, send, measure; the figures. Raises RunError when nothing can be measured."""
        plan = self._plan
        report: dict[str, Any] = {"connections": plan.connections, "connect": self._connect()}
        if plan.reconnect:
            self._drop_all()
            report["reconnect"] = self._connect()
        self._say("connected")
        if plan.hold_s:
            self._until(_now_s() + plan.hold_s, self._is_finishing)
        if plan.seconds and not self._finishing:
            report |= self._load()
        report["ended"] = dict(self._loop.failed)
        self._drop_all()
        self._loop.close()
        return report

    def _drop_all(self) -> None:
        for lane in self._lanes:
            self._loop.drop(lane, Phase.DOWN)

    def _load(self) -> dict[str, Any]:
        plan, tally = self._plan, self._tally
        started = time.process_time()
        self._prepare()
        prepared_s = time.process_time() - started
        gc.collect()
        gc.freeze()  # what was prepared stays: nothing of it is walked through again
        self._firing = True
        self._start_s = _now_s()
        self._begin()
        self._until(_now_s() + plan.warm_up_s, self._is_finishing)
        if self._finishing:
            return {}
        warm = Counter(tally.answers())
        tally.latency = Histogram()
        signed = self._signed()
        wall, cpu = _now_s(), time.process_time()
        self._say("measuring")
        self._measure(wall)
        seconds, cpu_s = _now_s() - wall, time.process_time() - cpu
        self._say("measured")
        answers = Counter(tally.answers()) - warm
        overdue, unanswered = self._drain()
        return figures(plan, answers, seconds, cpu_s) | {
            "ack_ms": tally.latency.report(),
            "prepared_cpu_s": round(prepared_s, 3),
            "late_messages": self._signed() - signed,  # while the clock ran: their cost is in every wall-clock figure
            "overdue": overdue,
            "answers_in_all": tally.answers(),
            "unanswered": unanswered,
        }

    def _signed(self) -> int:
        return sum(work.next_seq for work in self._works)

    def _drain(self) -> tuple[int, int]:
        """(messages that were due and not sent when the measured time ended, messages without an answer in the end).

        At a rate the former are sent now. Every latency counts, and of what is never answered its age, that on lanes
        which ended too: a gate that stalls at the end has no better percentiles than one that stalls in between.
        """
        each = max(1, self._plan.batch)
        self._end_s = _now_s()
        self._firing = bool(self._plan.rate)
        overdue = self._waiting()
        self._until(_now_s() + DRAIN_S, lambda: not self._waiting() and not any(map(_is_awaiting, self._lanes)))
        self._firing = False
        flying = [due_s for lane in self._lanes for due_s in lane.flying]
        unsent = [self._start_s + number / self._requests_per_s for number in range(self._released, self._due())]
        now_s = _now_s()
        for due_s in (*flying, *unsent):
            self._tally.latency.add(now_s - due_s)
        return overdue * each, (len(flying) + len(unsent)) * each

    def _measure(self, started_s: float) -> None:
        """The measured seconds, in intervals if the plan wants to hear of each."""
        plan, tally = self._plan, self._tally
        total, accepted = tally.latency, tally.accepted
        end_s = started_s + plan.seconds
        while (now := _now_s()) < end_s and not self._finishing:
            tally.latency = Histogram()
            self._until(min(end_s, now + (plan.interval_s or plan.seconds)), self._is_finishing)
            if plan.interval_s:
                seen = {"seconds": _now_s() - now, "accepted": tally.accepted - accepted}
                self._say(f"interval {json.dumps(seen | {'ack_ms': tally.latency.report()})}")
            accepted = tally.accepted
            total.merge(tally.latency)
        tally.latency = total

    def _prepare(self) -> None:
        size = 0
        for lane in self._lanes if self._plan.prepare else ():
            if self._finishing:
                return
            if lane.phase is Phase.LIVE:
                size += lane.prepare(self._plan.prepare)
                if size > PREPARED_BYTES:
                    raise RunError(f"--prepare: the messages take more than {PREPARED_BYTES >> 20} MiB; ask for fewer")

    # Connecting: all at once, but only so many on their way in.

    def _connect(self) -> dict[str, Any]:
        waiting, loop = deque(self._lanes), self._loop
        self._connecting = Histogram()
        before, failed = loop.live, loop.failed.total()
        wall, cpu = _now_s(), time.process_time()
        deadline = wall + self._plan.connect_s
        while loop.live - before + loop.failed.total() - failed < len(self._lanes):
            for _ in range(min(len(waiting), self._plan.handshakes - loop.on_their_way)):
                loop.dial(waiting.popleft(), self._plan.address)
            loop.turn(0.05)
            if _now_s() > deadline:
                raise RunError(
                    f"{loop.live} of {len(self._lanes)} connections in {self._plan.connect_s:.0f} s: is the gate up?"
                )
        seconds = _now_s() - wall
        if not loop.live:
            raise RunError(f"no connection came up: {dict(loop.failed)}")
        return {
            "live": loop.live,
            "failed": loop.failed.total() - failed,
            "seconds": round(seconds, 3),
            "handshakes_per_s": round((loop.live - before) / seconds, 1),
            "ms": self._connecting.report(),
            "cpu_s": round(time.process_time() - cpu, 3),
        }

    def _came_up(self, lane: Lane) -> None:
        self._connecting.add(_now_s() - lane.dialled_s)
        if isinstance(lane, MqttLane) and lane.receive_maximum < self._plan.in_flight:
            raise LaneError("receive_maximum_below_in_flight")

    # Sending: as answers come, or at a rate.

    def _until(self, deadline_s: float, done: Callable[[], bool] = lambda: False) -> None:
        loop, rate = self._loop, self._plan.rate
        while (left_s := deadline_s - _now_s()) > 0 and not done():
            if self._firing and rate:
                self._release_due()
                self._await_next(left_s)
            else:
                loop.turn(min(left_s, 0.05))
            self._tally.latency.settle()
            if not loop.live:
                raise RunError(f"the gate ended every connection: {dict(loop.failed)}")

    def _begin(self) -> None:
        """The first messages: as many in flight as the plan says on every lane, or none when a rate says when."""
        live = [lane for lane in self._lanes if lane.phase is Phase.LIVE]
        if self._plan.rate:
            self._idle.extend(live)
            return
        for number, lane in enumerate(live, 1):
            self._loop.attempt(lane, lane.fire, self._plan.in_flight, _now_s())
            if not number % 64:
                self._loop.turn(0)

    def _answered(self, lane: Lane, count: int) -> None:
        if self._firing:
            lane.fire(count, _now_s())

    def _idled(self, lane: Lane, count: int) -> None:
        self._idle.append(lane)

    def _release_due(self) -> None:
        """What is due at the plan's rate, on lanes that have nothing in flight. A request that finds none waits, and
        its latency counts from when it was due: a gate that stalls does not slow its clients' clocks."""
        due = self._due()
        while self._released < due and self._idle:
            lane = self._idle.popleft()
            if lane.phase is Phase.LIVE:
                self._loop.attempt(lane, lane.fire, 1, self._start_s + self._released / self._requests_per_s)
                self._released += 1

    def _await_next(self, left_s: float) -> None:
        """Until the next request is due: answers one by one while there is time, else all those of a tick."""
        next_s = self._start_s + (self._released + 1) / self._requests_per_s - _now_s()
        if next_s > TICK_S:
            self._loop.turn(min(left_s, next_s, 0.05))
        else:
            time.sleep(TICK_S)
            self._loop.turn(0)

    def _due(self) -> int:
        return int((min(_now_s(), self._end_s) - self._start_s) * self._requests_per_s)

    def _waiting(self) -> int:
        return max(0, self._due() - self._released)


def _is_awaiting(lane: Lane) -> bool:
    """An answer can still come."""
    return lane.phase is Phase.LIVE and bool(lane.flying)


def _contents(plan: Plan) -> tuple[int, Iterator[Content]]:
    """(encoding, what each device says)"""
    if plan.drive:
        fleet = DrivingFleet(plan.connections, int(_unix_ms()), plan.seed)
        return fleet.enc, map(fleet.content, count())
    try:
        return plan.shape.enc, repeat(repeated(plan.bodies or bodies(plan.shape, random.Random(plan.seed))))
    except ValueError as error:
        raise RunError(str(error)) from None


def _unix_ms() -> float:
    return time.time() * 1000
