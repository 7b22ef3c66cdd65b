"""Decides how a scenario runs: one thread, one epoll set, one calendar, all on the virtual clock.

The physics goes on in steps, and who is awake speaks when it is its turn; between steps the wires are served, and what
the calendar says is done. What happens to whom is the scenario's (`families`), what a device then does its own.
"""

import heapq
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import NamedTuple

from fleetsim import clock as clocks
from fleetsim import vehicles
from fleetsim.bundle import Bundle, tls_context
from fleetsim.clock import Clock
from fleetsim.fleet import HTTPS_EVERY
from fleetsim.gate import Gate, RunError
from fleetsim.scenarios.device import Change, Device
from fleetsim.scenarios.links import Link, MqttLink, Told
from fleetsim.scenarios.truth import Truth
from fleetsim.swarm_loop import Loop
from fleetsim.swarm_wire import Phase
from fleetsim.traffic import STEPS, Fleet

# Connections on their way in at once: the gate takes 8 handshake steps in a turn.
ON_THEIR_WAY = 64
# A connection that is not up by then is given up (real seconds).
CONNECT_S = 20.0
# How long the last answers may take (real seconds); who was told to stop is not waited for.
DRAIN_S = 10.0
LONGEST_TURN_S = 0.02
_ON_ITS_WAY = (Phase.DIALLING, Phase.SHAKING, Phase.GREETING)
# Four configurations, so that a cohort of one is large enough to be a cohort.
_CONFIGS = tuple(f"cfg-{letter}" for letter in "abcd")


class Pace(NamedTuple):
    """How a run goes: vehicles, virtual seconds between two messages of one, and virtual seconds before the trouble and
    with it; the gate's clock runs `speed` times as fast as the machine's."""

    vehicles: int
    interval_s: float
    before_s: float
    trouble_s: float
    speed: float

    @property
    def seconds(self) -> float:
        """Virtual seconds of the whole run."""
        return self.before_s + self.trouble_s


class World:
    """The fleet of one run. `rng` is the scenario's chance; times are virtual but where it says real."""

    def __init__(
        self,
        gate: Gate,
        bundles: Sequence[Bundle],
        clock: Clock,
        seed: int,
        pace: Pace,
        physics: vehicles.Vehicles | None = None,
    ) -> None:
        self.pace, self.truth = pace, Truth()
        self.rng = clocks.stream(seed, "scenario")
        self.physics = physics or vehicles.Vehicles(len(bundles), vehicles.generator(seed))
        self._traffic = Fleet(len(bundles), self.physics, clocks.stream(seed, "traffic"))
        self._gate, self._clock, self._seed = gate, clock, seed
        self._loop: Loop[Link] = Loop(self._came_up, self._answered)
        self._followers: defaultdict[int, list[Device]] = defaultdict(list)
        self._waiting: deque[Device] = deque()
        self._calendar: list[tuple[float, int, Callable[[], object]]] = []
        self._ticket = count()
        self.devices = [self._device(bundle, _transport(i)) for i, bundle in enumerate(bundles)]
        self.config = [_CONFIGS[i // 2 % len(_CONFIGS)] for i in range(len(bundles))]
        self.affected = len(bundles)  # of the vehicles, those that a fleet-wide trouble is about
        self.start_ms = clock.now_ms()

    def _device(self, bundle: Bundle, transport: str) -> Device:
        context = tls_context(bundle, self._gate.server_name)
        return Device(bundle, context, transport, self, clocks.stream(self._seed, f"{bundle.name}/{transport}"))

    def another(self, device: Device, transport: str) -> Device:
        """A second unit with the same identity and key."""
        twin = self._device(device.bundle, transport)
        self.devices.append(twin)
        return twin

    def follow(self, device: Device, index: int) -> None:
        """A second unit records what the vehicle at this place does."""
        self._followers[index].append(device)

    def inject(self, link: MqttLink, raw: bytes, told: Told) -> None:
        """Send bytes that no core knows of."""
        self._loop.attempt(link, link.inject, raw, told)

    def software(self, index: int) -> str:
        """The version that a vehicle runs."""
        return self._traffic.software(index)

    # What a scenario asks for.

    @property
    def trouble_ms(self) -> float:
        """When the trouble begins."""
        return self.start_ms + self.pace.before_s * 1000

    def vehicles(self) -> range:
        """The places of all vehicles."""
        return range(len(self._traffic))

    def pick(self, share: float, among: Sequence[int] | None = None, at_least: int = 1) -> list[int]:
        """So many of the vehicles, at random."""
        found = list(self.vehicles()) if among is None else list(among)
        return sorted(self.rng.sample(found, min(len(found), max(at_least, round(share * len(found))))))

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        """Do it so long after the start."""
        heapq.heappush(self._calendar, (self.start_ms + seconds * 1000, next(self._ticket), act))

    def trouble(self, act: Callable[[], object], *, over_s: float = 0.0) -> None:
        """Do it when the trouble begins, or some time in the first `over_s` of it."""
        self.at(self.pace.before_s + self.rng.random() * over_s, act)

    def change(self, indices: Sequence[int], change: Change) -> None:
        """From now on these vehicles' messages are changed."""
        for index in indices:
            self.devices[index].changes.append(change)

    # What a device asks for (`device.Surroundings`).

    def now_ms(self) -> float:
        """True time."""
        return self._clock.now_ms()

    def dial(self, device: Device) -> None:
        """Connect soon."""
        self._waiting.append(device)

    def drop(self, link: Link) -> None:
        """End a link."""
        if link.phase is Phase.DOWN:  # it waits for its turn to connect
            link.close(Phase.ENDED)
        else:
            self._loop.drop(link, Phase.ENDED)

    def send(self, device: Device) -> None:
        """Have its link send."""
        if device.link is not None:
            self._loop.attempt(device.link, device.link.pump)

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Do it so much later."""
        heapq.heappush(self._calendar, (self.now_ms() + seconds * 1000, next(self._ticket), act))

    # The run.

    def run(self) -> None:
        """From the start to the last answer. Raises RunError when the gate is not there."""
        step_ms = self.pace.interval_s * 1000 / STEPS
        end_ms = self.start_ms + self.pace.seconds * 1000
        next_ms = self.start_ms + step_ms
        patrol_s = time.monotonic()
        while next_ms <= end_ms:
            self._serve(next_ms)
            self._speak(next_ms, step_ms / 1000)
            next_ms += step_ms
            if time.monotonic() > patrol_s:
                patrol_s = time.monotonic() + 1.0
                self._give_up_slow_ones()
        off_ms = self.now_ms()
        lag_s = round(max(0.0, self.now_ms() - end_ms) / 1000, 1)
        self._drain()
        self.truth.notes |= {
            "started_ms": self.start_ms,
            "trouble_ms": self.trouble_ms if self.pace.trouble_s else 0,
            "ended_ms": self.now_ms(),
            "off_ms": off_ms,
            "lag_s": lag_s,
        }
        if not any(device.notes.answers for device in self.devices):
            raise RunError(f"no message got an answer ({dict(self._loop.failed)}): is the gate up?")

    def _serve(self, until_ms: float) -> None:
        """Wires and calendar, until the next step is due; at least one turn."""
        while True:
            self._do_due()
            while self._waiting and self._loop.on_their_way < ON_THEIR_WAY:
                self._dial(self._waiting.popleft())
            now_ms = self.now_ms()
            next_ms = min(until_ms, self._calendar[0][0] if self._calendar else until_ms)
            self._loop.turn(min(LONGEST_TURN_S, max(0.0, (next_ms - now_ms) / 1000 / self._clock.speed)))
            if self.now_ms() >= until_ms:
                return

    def _do_due(self) -> None:
        now_ms = self.now_ms()
        while self._calendar and self._calendar[0][0] <= now_ms:
            heapq.heappop(self._calendar)[2]()

    def _speak(self, at_ms: float, dt_s: float) -> None:
        for index in self._traffic.drive(at_ms, dt_s):
            units = [unit for unit in (self.devices[index], *self._followers.get(index, ())) if unit.awake]
            if units:
                draft = self._traffic.speak(index)._replace(config=self.config[index])
                for unit in units:
                    unit.offer(draft)

    def _dial(self, device: Device) -> None:
        link = device.link
        if link is None or link.phase is not Phase.DOWN:
            return  # it was hung up meanwhile
        self._loop.dial(link, self._gate.mqtt if device.transport == "mqtt" else self._gate.https)

    def _came_up(self, link: Link) -> None:
        link.owner.go_on()

    def _answered(self, link: Link, _answers: int) -> None:
        link.owner.go_on()

    def _give_up_slow_ones(self) -> None:
        now_s = time.perf_counter()
        for device in self.devices:
            link = device.link
            if link is not None and link.phase in _ON_ITS_WAY and now_s - link.dialled_s > CONNECT_S:
                self.drop(link)

    def _drain(self) -> None:
        """Everybody is switched off; who can sends what it has left."""
        for device in self.devices:
            device.sleep()
        deadline_s = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline_s and any(device.hopes for device in self.devices):
            self._serve(self.now_ms() + 100 * self._clock.speed)


def _transport(index: int) -> str:
    return "https" if index % HTTPS_EVERY == HTTPS_EVERY - 1 else "mqtt"
