"""Decides what a vehicle says, and how: which signals, how many events a message, which encoding, which words.

What happens to the vehicle is `vehicles`'; numbers and signatures are `core`'s.
"""

import random
from collections import deque

from fleetsim.encode import COLUMNS, ROWS_JSON, ROWS_MSGPACK, Event, Name
from fleetsim.outbox import Draft
from fleetsim.signals import BY_NUMBER
from fleetsim.vehicles import Vehicles

# Physics steps between two messages of a vehicle; a message has at most one event for each.
STEPS = 10
_SOFTWARE = ("2026.44.1", "2026.44.1", "2026.44.1", "2026.40.3")
_ALWAYS = (1, 2, 7, 8, 10, 13, 15, 16)
_OFTEN = (3, 4, 6, 9, 12, 17, 18, 23, 24, 25, 34, 35, 36)
_SLOW = (11, 14, 19, 20, 22, 26, 30, 31, 32, 33, 39, 40, 41, 43)  # once a message
_FAULTS = ("P0A80", "P1E00", "U0293", "B1342")
# Of twenty vehicles: fourteen by number, two by path, two in JSON, two in columns.
_STYLES = ("number",) * 14 + ("path",) * 2 + ("json",) * 2 + ("columns",) * 2

Samples = dict[int, list[float]]  # one physics step: signal number -> value of each vehicle


class Fleet:
    """All vehicles of a run: one physics, and for each vehicle its habits."""

    def __init__(self, n: int, physics: Vehicles, rng: random.Random) -> None:
        self._physics = physics
        self._history: deque[tuple[float, Samples]] = deque(maxlen=STEPS)
        self._habits = [_Habit(index, rng) for index in range(n)]
        self._steps = 0

    def __len__(self) -> int:
        return len(self._habits)

    def step(self, at_ms: float, dt_s: float) -> list[tuple[int, Draft]]:
        """Drive until `at_ms`; returns (vehicle, draft) for those whose turn it is to speak."""
        return [(index, self.speak(index)) for index in self.drive(at_ms, dt_s)]

    def drive(self, at_ms: float, dt_s: float) -> list[int]:
        """Drive until `at_ms`; returns the vehicles whose turn it is to speak."""
        self._physics.step(dt_s)
        samples = {number: column.tolist() for number, column in self._physics.sample().items()}
        self._history.append((at_ms, samples))
        self._steps += 1
        if len(self._history) < STEPS:
            return []
        turn = self._steps % STEPS
        return [i for i, habit in enumerate(self._habits) if habit.phase == turn]

    def speak(self, index: int) -> Draft:
        """What a vehicle says of the last STEPS steps."""
        return self._habits[index].speak(self._history)

    def software(self, index: int) -> str:
        """The version that a vehicle runs."""
        return self._habits[index].software


class _Habit:
    def __init__(self, index: int, rng: random.Random) -> None:
        self.phase = index % STEPS  # spreads the fleet over the interval
        self._index = index
        self._rng = rng
        self._style = _STYLES[(index * 7 + 3) % len(_STYLES)]
        self._events = rng.randint(1, STEPS)
        self._often = tuple(rng.sample(_OFTEN, rng.randint(2, len(_OFTEN))))
        self.software = rng.choice(_SOFTWARE)
        self._config = f"cfg-{rng.randrange(16**4):04x}"
        self._moved: bool | None = None

    def speak(self, history: deque[tuple[float, Samples]]) -> Draft:
        chosen = [history[STEPS * (i + 1) // self._events - 1] for i in range(self._events)]
        if self._style == "columns":
            events = [self._event(at, samples, "sample", slow=False) for at, samples in chosen]
            return Draft(self.software, self._config, COLUMNS, tuple(events))
        events = [self._event(at, samples, self._kind(samples), slow=i == 0) for i, (at, samples) in enumerate(chosen)]
        enc = ROWS_JSON if self._style == "json" else ROWS_MSGPACK
        return Draft(self.software, self._config, enc, tuple(events))

    def _kind(self, samples: Samples) -> str:
        moves = samples[1][self._index] > 0
        before, self._moved = self._moved, moves
        if before is not None and before != moves:
            return "trip_start" if moves else "trip_end"
        chance = self._rng.random()
        return "fault" if chance < 0.003 else "heartbeat" if chance < 0.006 else "sample"

    def _event(self, at_ms: float, samples: Samples, kind: str, *, slow: bool) -> Event:
        if kind == "heartbeat":
            return Event(int(at_ms), kind, {}, {})
        numbers = _ALWAYS + self._often + (_SLOW if slow else ())
        signals = {self._name(number): samples[number][self._index] for number in numbers}
        texts: dict[Name, str] = {self._name(44): self._rng.choice(_FAULTS)} if kind == "fault" else {}
        return Event(int(at_ms), kind, signals, texts)

    def _name(self, number: int) -> Name:
        return number if self._style in ("number", "columns") else BY_NUMBER[number].path
