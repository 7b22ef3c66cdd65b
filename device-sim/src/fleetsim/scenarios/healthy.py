"""Decides an ordinary day: few cars at night, two rushes, and a little of everything that goes wrong with honest units.

No device may be quarantined for it, and no alert may open. `disorders` is the same in an hour, with more of each, and
with one unit in twenty that really repeats what it captured or is a copy: the classes side by side.
"""

import random
from collections.abc import Iterator

from fleetsim.scenarios import attacks, disorders
from fleetsim.scenarios.disorders import HOUR_S, MINUTE_S
from fleetsim.scenarios.scenario import Scenario, everybody_drives
from fleetsim.scenarios.world import Pace, World

DAY_S = 24 * HOUR_S
# A run ends at noon: night, rush and day, and as many looks of the watch, one in ten seconds, as a quarter of an hour
# has room for.
UNTIL_NOON_S = 8 * HOUR_S
# Share of the cars on the road in each hour of the day; a run begins with hour 4.
RHYTHM = (
    *(0.10, 0.08, 0.07, 0.07, 0.10, 0.18, 0.35, 0.52, 0.55, 0.42, 0.36, 0.36),
    *(0.40, 0.40, 0.38, 0.44, 0.54, 0.58, 0.50, 0.38, 0.28, 0.22, 0.17, 0.13),
)
FIRST_HOUR = 4
# A drive: at least so long, and so long on average.
SHORTEST_DRIVE_S, DRIVE_S = 600.0, 3600.0
LOOK_S = 900.0
SHARE_OF_EACH = 0.02
CLASSES = ("duplicate", "late", "gap", "rollback", "replay", "clone", "reset")


def share_driving(after_s: float) -> float:
    """How much of the fleet is on the road so long after the start, between the hours in a straight line."""
    hour, within = divmod(after_s / HOUR_S, 1)
    now, then = (RHYTHM[(FIRST_HOUR + int(hour) + i) % 24] for i in (0, 1))
    return now + (then - now) * within


def drives(rng: random.Random, seconds: float) -> Iterator[tuple[float, float]]:
    """One vehicle's day: when it sets out and when it stops, in seconds after the start."""
    at_s = 0.0 if rng.random() < share_driving(0.0) else _stands(rng, 0.0, seconds)
    while at_s < seconds:
        until_s = at_s + SHORTEST_DRIVE_S + rng.expovariate(1 / (DRIVE_S - SHORTEST_DRIVE_S))
        yield at_s, until_s
        at_s = _stands(rng, until_s, seconds)


def _stands(rng: random.Random, at_s: float, seconds: float) -> float:
    """Until when: it looks every quarter of an hour or so whether it is its turn, as the time of day says."""
    while at_s < seconds:
        at_s += LOOK_S * (0.5 + rng.random())
        share = share_driving(at_s)
        if rng.random() < LOOK_S / DRIVE_S * share / (1 - share):
            break
    return at_s


def live_a_day(world: World, index: int) -> None:
    """One vehicle drives and stands in turn."""
    device = world.devices[index]
    for from_s, until_s in drives(world.rng, world.pace.seconds):
        world.at(from_s or world.rng.random() * MINUTE_S, device.wake)
        world.at(until_s, device.sleep)


def healthy_day(world: World) -> None:
    """2 % of the vehicles with each disorder, over MQTT and over HTTPS alike; nobody has two."""
    for index in world.vehicles():
        live_a_day(world, index)
    left = set(world.vehicles())
    for what in disorders.ALL:
        share = SHARE_OF_EACH * len(world.vehicles()) / len(left)
        found = world.pick(share, sorted(left))
        left -= set(found)
        disorders.befall(world, what, found, HOUR_S / 2, world.pace.seconds - HOUR_S / 2)


def all_disorders(world: World) -> None:
    """Every benign disorder, beside units that replay and units that are cloned."""
    everybody_drives(world)
    left = set(world.vehicles())
    for what in disorders.ALL:
        found = sorted(left)[:: max(1, len(left) // (len(world.vehicles()) // 16))]
        left -= set(found)
        disorders.befall(world, what, found, 300.0, world.pace.seconds)
    world.truth.notes["classes"] = " ".join(CLASSES)
    guilty = sorted(left)
    attacks.replays(world, guilty[0:12:2])
    attacks.clones(world, guilty[1:12:2])


SCENARIOS = (
    Scenario(
        "healthy-day",
        "an honest fleet from 4 to 12 o'clock, with 2 % of each benign disorder; nobody is quarantined, no alert opens",
        Pace(vehicles=2000, interval_s=90.0, before_s=UNTIL_NOON_S, trouble_s=0.0, speed=36.0),
        healthy_day,
    ),
    Scenario(
        "disorders",
        "every benign disorder and its hostile look-alike, side by side in one hour",
        Pace(vehicles=200, interval_s=15.0, before_s=300.0, trouble_s=3300.0, speed=40.0),
        all_disorders,
    ),
)
