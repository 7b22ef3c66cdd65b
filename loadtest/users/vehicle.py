"""Decides how a vehicle of the load test lives: a schedule that nothing delays, a device core, and what happens to it.

The schedule is open: messages become due at fixed times, whatever the gate does, and their response time runs from
there (`book`). So a gate that stalls for a second is charged for every message of that second, not for one: this is
what is called coordinated omission where it is missing. How bytes travel is the subclasses' (`mqtt`, `https`).

What a vehicle records while it is offline by plan becomes due when it comes back, under a name of its own (`backlog`).
A restart (`update`) waits until everything has its answer, as a vehicle that is parked for an update does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import ClassVar

from gevent.event import Event
from loadtest.book import Book, Due
from loadtest.clock import now_s
from loadtest.content import STYLES, StyleName
from loadtest.generator import running
from loadtest.scenario import MAX_BACKLOG, SOFTWARE, Action
from locust import User, task

from fleetsim.bundle import tls_context
from fleetsim.clock import stream
from fleetsim.core import DeviceCore
from fleetsim.outbox import Draft

TURN_S = 1.0  # locust asks a user to stop between two turns
DRAIN_S = 10.0  # how long a user that stops waits for its answers
REBOOT_S = 1.0


class Refused(Exception):
    """Why a message failed, as the statistics show it."""


class Vehicle(User):
    """Subclasses say `kind` (protocol, name in the statistics), `style` of content, and `every` how many intervals a
    message of `events` events, or `count` messages at once, is due."""

    abstract = True
    protocol: ClassVar[str]
    kind: ClassVar[str]
    style: ClassVar[StyleName] = "rows"

    def on_start(self) -> None:
        """Becomes a device. Raises PoolError, BundleError, which end this user."""
        self.shared = shared = running()
        self.lease = shared.pool.take()
        device = self.lease.device
        self.tls = tls_context(device, shared.plan.gate.server_name)
        self.wake = Event()
        journalled = shared.journal.device(device.tenant, device.device_id, f"{self.protocol.lower()}-{self.kind}")
        self.book = Book(shared.journal, journalled, self._tell, now_s)
        self._rng = stream(shared.plan.seed, device.name)
        self.core = self._fresh_core()
        self.waiting: deque[tuple[Draft, Due]] = deque()
        self.software = SOFTWARE
        self.offline = False
        self._update: str | None = None  # the version that a restart waits for
        self._away_until_s = 0.0
        self._actions = deque(shared.scenario.actions(self.lease.number))
        self._catch_up()
        self.interval_s = self.every * shared.scenario.traffic.seconds_between
        self._due_s = now_s() + self._rng.random() * self.interval_s

    @property
    def every(self) -> int:
        """After how many of the scenario's intervals it speaks."""
        return 1

    @property
    def shots(self) -> tuple[int, int]:
        """(messages, events in each) that are due at once."""
        return 1, self.shared.scenario.traffic.events

    # -- what the subclasses do ---------------------------------------------------------------------------------

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether there is a connection."""

    @abstractmethod
    def connect(self) -> None:
        """Bring up a connection and tell the core; how that went is told with `tell_connect`."""

    @abstractmethod
    def send(self) -> None:
        """Send what the core has to send."""

    @abstractmethod
    def drop(self) -> None:
        """Lose the connection, and tell the core."""

    # -- a turn -------------------------------------------------------------------------------------------------

    @task
    def turn(self) -> None:
        """Until something is due or has come, then all that is to be done about it."""
        now = now_s()
        self._act(now)
        self._speak(now)
        self._go_on()
        self.wake.wait(max(0.0, self._next_s() - now_s()))
        self.wake.clear()

    def _go_on(self) -> None:
        """Connects when it may and sends what it can."""
        if not self.connected and not self.offline and self._may_connect():
            self.connect()
        if self.connected:
            self.sign()
            self.send()
        if self._update is not None and not self.waiting and not self.core.open_messages:
            self._restart()

    def sign(self) -> None:
        """Gives numbers to what waits, as far as the core allows."""
        while self.waiting:
            draft, due = self.waiting[0]
            self.book.next_due = due
            if not self.core.submit(draft):
                return
            self.waiting.popleft()

    def _speak(self, now: float) -> None:
        while self._due_s <= now:
            if self._update is None:
                self._record(self._due_s)
            self._due_s += self.interval_s

    def _record(self, due_s: float) -> None:
        count, events = self.shots
        span_s = self.interval_s / count
        for number in range(count):
            at_s = due_s - (count - 1 - number) * span_s
            draft = self.shared.content.draft(self.lease.number, at_s, span_s, events, self.software, self.style)
            if len(self.waiting) >= MAX_BACKLOG:
                oldest, since = self.waiting.popleft()
                self.book.lost(since, len(oldest.events), "lost_in_the_vehicle")
            self.waiting.append((draft, Due("backlog" if self.offline else self.kind, due_s)))

    def _next_s(self) -> float:
        found = [self._due_s, now_s() + TURN_S]
        if self._actions:
            found.append(self.shared.unix_s(self._actions[0].at_s))
        if not self.connected and not self.offline:
            found.append(max(self._away_until_s, self.core.pace.away_until_ms / 1000))
        elif self.core.pace.quiet_until_ms > now_s() * 1000:
            found.append(self.core.pace.quiet_until_ms / 1000)
        return min(found)

    def _may_connect(self) -> bool:
        return now_s() >= max(self._away_until_s, self.core.pace.away_until_ms / 1000)

    # -- what happens to it -------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """A user that begins late takes the state of one that was there from the start."""
        while self._actions and self._actions[0].at_s <= self.shared.at_s():
            action = self._actions.popleft()
            if action.does in ("offline", "online"):
                self.offline = action.does == "offline"
            elif action.does == "update":
                self.software = action.software

    def _act(self, now: float) -> None:
        """What was to happen by now, in its order with what was to be said: a busy turn changes nothing of it."""
        while self._actions and (at_s := self.shared.unix_s(self._actions[0].at_s)) <= now:
            self._speak(at_s)
            self._happen(self._actions.popleft())

    def _happen(self, action: Action) -> None:
        at_s = self.shared.unix_s(action.at_s)
        match action.does:
            case "reconnect":
                self.drop()
            case "offline":
                self.drop()
                self.offline = True
            case "online":
                self.offline = False
                self._away_until_s = 0.0
                self.core.pace.resume()
                self.waiting = deque((draft, due._replace(at_s=max(due.at_s, at_s))) for draft, due in self.waiting)
            case "update":
                self._update = action.software
            case "attack" | "rest":
                pass  # an attacker's affair

    def _restart(self) -> None:
        """A new process of the device: the next epoch, after a pause. Everything it had to say is acknowledged."""
        assert self._update is not None
        self.software, self._update = self._update, None
        self.drop()
        self.core = self._fresh_core()
        self._away_until_s = now_s() + REBOOT_S
        self._due_s = max(self._due_s, self._away_until_s)

    def _fresh_core(self) -> DeviceCore:
        return DeviceCore(
            self.lease.device,
            self.shared.pool.memory,
            self.book,
            lambda: now_s() * 1000,
            self._rng,
            form=STYLES[self.style].form,
            packet_overhead=len(self.lease.device.topic) + 16,
        )

    # -- its end ------------------------------------------------------------------------------------------------

    def on_stop(self) -> None:
        """Waits for the answers that are still to come; what has none then has failed."""
        deadline = now_s() + DRAIN_S
        self.offline = False
        while (self.waiting or self.core.open_messages) and now_s() < deadline:
            self._go_on()
            self.wake.wait(0.1)
            self.wake.clear()
        self.book.give_up((due, len(draft.events)) for draft, due in self.waiting)
        self.waiting.clear()
        self.farewell()
        self.shared.pool.give_back(self.lease)

    @abstractmethod
    def farewell(self) -> None:
        """Close the connection politely."""

    # -- what locust hears --------------------------------------------------------------------------------------

    def tell_connect(self, began_s: float, failure: str | None = None) -> None:
        """A connection came up or did not."""
        self._tell("connect", (now_s() - began_s) * 1000, failure)

    def tell_loss(self, failure: str) -> None:
        """The other side ended the connection: a failure of its own, however well its messages fare afterwards."""
        self._tell("disconnect", 0.0, failure)

    def _tell(self, name: str, response_ms: float, failure: str | None) -> None:
        self.environment.events.request.fire(
            request_type=self.protocol,
            name=name,
            response_time=response_ms,
            response_length=0,
            exception=None if failure is None else Refused(failure),
            context={},
        )
