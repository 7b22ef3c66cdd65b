"""Decides how one unit of a scenario lives: awake or asleep, online or not, its clock, its reboots, its disk.

Its rules are the core's, the same as the reference agent's. Here is what happens to the unit from outside: the world
switches it on and off, and a scenario takes its network, its clock or its memory away. It asks the world for nothing
but a connection, and to be called again at a time.
"""

import random
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol

from fleetsim.bundle import Bundle
from fleetsim.core import DeviceCore
from fleetsim.encode import Event
from fleetsim.mqtt_agent import packet_overhead
from fleetsim.outbox import Draft
from fleetsim.scenarios.disk import Disk
from fleetsim.scenarios.links import HttpsLink, Link, MqttLink
from fleetsim.scenarios.notes import Notes
from fleetsim.swarm_wire import Phase

# Drafts that wait for a number; beyond it the oldest is lost, as in a unit whose memory is full.
MAX_BACKLOG = 512
# A modem whose connection broke registers anew before it can connect (virtual seconds, at least and at most). Without
# it two units that take each other's session away would do it as fast as the machine can.
REGISTERS_S = (10.0, 20.0)

Change = Callable[[Draft], Draft]
"""What a fault, a release or an attack makes of a message before it is signed."""


class Surroundings(Protocol):
    """What a device has around it."""

    def now_ms(self) -> float:
        """True time, in Unix ms."""
        ...

    def dial(self, device: "Device") -> None:
        """Connect the device's link, as soon as others that are on their way let it."""
        ...

    def drop(self, link: Link) -> None:
        """End the link."""
        ...

    def send(self, device: "Device") -> None:
        """Have the device's link send what there is."""
        ...

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Call once, that much later."""
        ...


class Device:
    """One unit. `changes` are applied to each of its messages in turn."""

    def __init__(
        self, bundle: Bundle, context: ssl.SSLContext, transport: str, world: Surroundings, rng: random.Random
    ) -> None:
        self.bundle, self.context, self.transport = bundle, context, transport
        self.notes = Notes()
        self.disk = Disk()
        self.awake = False
        self.offline = False
        self.changes: list[Change] = []
        self.clock_error_ms = 0.0
        self.clock_drift = 0.0  # ms per ms
        self.link: Link | None = None
        self._world, self._rng = world, rng
        self._drifts_since_ms = world.now_ms()
        self._backlog: deque[Draft] = deque()
        self._waits = False
        self._registered_ms = 0.0
        self.core = self._new_core()

    def _new_core(self) -> DeviceCore:
        overhead = packet_overhead(self.bundle.topic) if self.transport == "mqtt" else 0
        return DeviceCore(self.bundle, self.disk, self.notes, self.now_ms, self._rng, packet_overhead=overhead)

    def now_ms(self) -> float:
        """What its own clock says."""
        true_ms = self._world.now_ms()
        return true_ms + self.clock_error_ms + (true_ms - self._drifts_since_ms) * self.clock_drift

    def drift(self, rate: float) -> None:
        """From now on the clock gains `rate` ms per ms."""
        self._drifts_since_ms, self.clock_drift = self._world.now_ms(), rate

    # What happens to it.

    def wake(self) -> None:
        """The vehicle is switched on."""
        self.awake = True
        self.go_on()

    def sleep(self) -> None:
        """It is switched off; what is signed still goes out, if the network is there."""
        self.awake = False
        self.go_on()

    def lose_network(self) -> None:
        """It records and signs, and reaches nobody."""
        self.offline = True
        self._hang_up()

    def find_network(self) -> None:
        """It may connect again."""
        self.offline = False
        self.go_on()

    def reboot(self, disk: Disk | None = None) -> None:
        """It starts again from its disk, or from another one."""
        former, self.link = self.link, None
        self.disk = self.disk if disk is None else disk
        self._backlog.clear()
        self.core = self._new_core()
        if former is not None:
            self._world.drop(former)
        self.go_on()

    def become(self, original: "Device") -> None:
        """It is a copy of another unit's memory, taken while that one runs on."""
        self.core = original.core.twin(self.disk, self.notes, self.now_ms, self._rng)

    def lose_next_answer(self) -> None:
        """The connection breaks between the gate's answer and this device; the same bytes go out again."""
        if self.link is not None:
            self.link.loses_answers = True

    # What it says.

    def offer(self, draft: Draft) -> None:
        """What was recorded, with true times; the device knows only its own clock."""
        for change in self.changes:
            draft = change(draft)
        shift_ms = round(self.now_ms() - self._world.now_ms())
        if shift_ms:
            events = tuple(Event(e.at + shift_ms, e.kind, e.signals, e.texts) for e in draft.events)
            draft = draft._replace(events=events)
        if len(self._backlog) >= MAX_BACKLOG:
            self._backlog.popleft()
        self._backlog.append(draft)
        self.go_on()

    @property
    def open_messages(self) -> int:
        """Drafts and messages without an answer."""
        return len(self._backlog) + self.core.open_messages

    @property
    def hopes(self) -> bool:
        """Whether something may still be answered within this drive."""
        return bool(self.open_messages) and not self.offline and self.core.pace.away_until_ms <= self.now_ms()

    def go_on(self) -> None:
        """Do what there is to do: sign, send, connect, hang up."""
        core = self.core
        while self._backlog and core.submit(self._backlog[0]):
            self._backlog.popleft()
        now_ms = self.now_ms()
        if self.link is None:
            if (self.awake or self.open_messages) and not self.offline:
                away_until_ms = max(core.pace.away_until_ms, self._registered_ms)
                if away_until_ms > now_ms:
                    self._again_in(away_until_ms - now_ms)
                else:
                    kind = MqttLink if self.transport == "mqtt" else HttpsLink
                    self.link = kind(self.context, core, self)
                    self._world.dial(self)
        elif self.link.phase is Phase.LIVE:
            self._live(now_ms)

    def _live(self, now_ms: float) -> None:
        core = self.core
        if core.pace.away_until_ms > now_ms or (not self.awake and not self.open_messages) or self._needs_greeting():
            self._hang_up()
        elif core.pace.quiet_until_ms > now_ms:
            self._again_in(core.pace.quiet_until_ms - now_ms)
        else:
            self._world.send(self)

    def _needs_greeting(self) -> bool:
        """Over MQTT the time is told at CONNECT only."""
        return self.transport == "mqtt" and self.core.needs_clock and not self.core.in_flight

    def _hang_up(self) -> None:
        if self.link is not None:
            self._world.drop(self.link)

    def over(self, link: Link) -> None:
        """A link has ended."""
        if link is self.link:  # else it is one of before a reboot
            self.link = None
            if not self.offline:
                self._registered_ms = self.now_ms() + self._rng.uniform(*REGISTERS_S) * 1000
            self.go_on()

    def _again_in(self, ms: float) -> None:
        if not self._waits:
            self._waits = True
            self._world.after(ms / 1000, self._woken)

    def _woken(self) -> None:
        self._waits = False
        self.go_on()
