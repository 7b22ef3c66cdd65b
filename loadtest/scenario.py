"""Decides what a load test does, at which moment of it: how many users there are, and what happens to each vehicle.

A scenario is data (scenarios.toml); this reads it and answers questions about it, without a clock and without locust.
Times are shares of the run, so that a shape of three minutes is the same as one of three hours, only faster.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

FILE = Path(__file__).with_name("scenarios.toml")
SOFTWARE = "2026.44.1"

Kind = Literal["mqtt", "https_single", "https_batch", "https_columns", "query", "attacker"]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=1000)]
Weight = Annotated[int, Meta(ge=0)]
# Spreads any share evenly over neighbouring numbers: multiples of the golden ratio, without their whole part.
_GOLDEN = 0.618_033_988_749_895


MAX_BACKLOG = 512
"""Messages that a vehicle keeps while it has no connection; the oldest is lost, and counted."""

IDLE_SECONDS = 100.0
"""So long a connection may be silent; the gate ends one of HTTPS after 120 s."""


class ScenarioError(Exception):
    """A scenario that cannot be used; the text names the file and the place."""


class Traffic(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a vehicle says, and how often."""

    seconds_between: Annotated[float, Meta(gt=0, le=60)]
    events: Count
    batch: Annotated[int, Meta(ge=1, le=500)]
    rows: Annotated[int, Meta(ge=1, le=8000)]
    connections_per_second: Count


class Moment(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename={"start": "from"}):
    """What happens to `share` of the vehicles: all at once at `from`, `offline` and `attack` until `until`; an `update`
    to each at a time of its own between the two."""

    does: Literal["reconnect", "offline", "update", "attack"]
    start: Share
    until: Share = 1.0
    share: Share = 1.0
    software: str = SOFTWARE


class Shape(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How many users there are: `load` is (time, share of the users), straight lines between."""

    says: str
    load: list[tuple[Share, Share]]
    moments: list[Moment] = []
    mix: dict[Kind, Weight] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    traffic: Traffic
    mix: dict[Kind, Weight]
    shape: dict[str, Shape]


class Action(NamedTuple):
    """What one vehicle does at a time of the run, in seconds."""

    at_s: float
    does: Literal["reconnect", "offline", "online", "update", "attack", "rest"]
    software: str


class Scenario:
    """One shape with a size: `users` at its highest, `seconds` long."""

    def __init__(self, traffic: Traffic, mix: dict[Kind, int], shape: Shape, users: int, seconds: float) -> None:
        self.traffic, self.mix = traffic, mix
        self.users = users
        self._shape, self._seconds = shape, seconds

    @property
    def attackers(self) -> int:
        """How many of the users are hostile, at most."""
        return -(-self.users * self.mix.get("attacker", 0) // sum(self.mix.values()))

    def users_at(self, at_s: float) -> int | None:
        """How many users there should be; None when it is over. At least one before."""
        time = at_s / self._seconds
        if time >= 1:
            return None
        for (start, low), (end, high) in pairwise(self._shape.load):
            if start <= time < end:
                return max(1, round(self.users * (low + (high - low) * (time - start) / (end - start))))
        raise AssertionError("a load reaches from 0 to 1")

    def actions(self, number: int) -> list[Action]:
        """What happens to the vehicle of this number, in order."""
        found: list[Action] = []
        place = number * _GOLDEN % 1.0
        for moment in self._shape.moments:
            if place >= moment.share:
                continue
            start_s, until_s = moment.start * self._seconds, moment.until * self._seconds
            match moment.does:
                case "reconnect":
                    found.append(Action(start_s, "reconnect", ""))
                case "offline":
                    found += [Action(start_s, "offline", ""), Action(until_s, "online", "")]
                case "update":
                    at_s = start_s + place / moment.share * (until_s - start_s)
                    found.append(Action(at_s, "update", moment.software))
                case "attack":
                    found += [Action(start_s, "attack", ""), Action(until_s, "rest", "")]
        return sorted(found)


def shapes(file: Path = FILE) -> dict[str, str]:
    """The names in a scenario file, and what each says. Raises ScenarioError."""
    return {name: shape.says for name, shape in _read(file).shape.items()}


def scenario(name: str, users: int, seconds: float, file: Path = FILE) -> Scenario:
    """The shape `name` of a scenario file. Raises ScenarioError."""
    content = _read(file)
    shape = content.shape.get(name)
    if shape is None:
        raise ScenarioError(f"{file} has no shape {name!r}; it has {', '.join(content.shape)}")
    times = [time for time, _ in shape.load]
    if len(times) < 2 or times != sorted(times) or (times[0], times[-1]) != (0, 1):
        raise ScenarioError(f"{file}: the load of {name} has to go from 0 to 1, in order")
    if any(moment.until < moment.start for moment in shape.moments):
        raise ScenarioError(f"{file}: a moment of {name} ends before it begins")
    mix = {kind: weight for kind, weight in (shape.mix or content.mix).items() if weight}
    if not mix:
        raise ScenarioError(f"{file}: the mix of {name} has nobody in it")
    _feasible(content.traffic, shape, users, seconds)
    return Scenario(content.traffic, mix, shape, users, seconds)


def _feasible(traffic: Traffic, shape: Shape, users: int, seconds: float) -> None:
    """Raises ScenarioError for what would fail on any gate."""
    if traffic.batch * traffic.seconds_between > IDLE_SECONDS:
        raise ScenarioError(
            f"a batch of {traffic.batch} every {traffic.batch * traffic.seconds_between:g} s leaves connections silent "
            f"for longer than {IDLE_SECONDS:g} s, and the gate ends them: give a smaller batch or seconds_between"
        )
    for moment in shape.moments:
        away_s = (moment.until - moment.start) * seconds
        if moment.does == "offline" and away_s / traffic.seconds_between > MAX_BACKLOG:
            raise ScenarioError(
                f"offline for {away_s:.0f} s, a vehicle records more than the {MAX_BACKLOG} messages that it keeps: "
                f"give fewer --minutes (at most {MAX_BACKLOG * traffic.seconds_between / away_s * seconds / 60:.0f})"
            )
    points = [(0.0, 0.0), *shape.load]
    ends = [at for at, _ in points[2:]] + [1.0]
    for (before, low), (at, high), after in zip(points, points[1:], ends, strict=False):
        needs_s = (high - low) * users / traffic.connections_per_second
        has_s = (at - before + (after - at) / 2) * seconds
        if needs_s > has_s:
            raise ScenarioError(
                f"{(high - low) * users:.0f} users come within {has_s:.0f} s, and {traffic.connections_per_second} "
                "connections_per_second are too few for that: give fewer --users, more --minutes or more of them"
            )


def _read(file: Path) -> _File:
    try:
        return msgspec.toml.decode(file.read_bytes(), type=_File)
    except OSError as error:
        raise ScenarioError(f"{file}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ScenarioError(f"{file}: {error}") from None
