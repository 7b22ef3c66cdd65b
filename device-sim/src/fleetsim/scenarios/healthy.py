"""Decides an ordinary day: few cars at night, two rushes, and a little of everything that goes wrong with honest units.

No device may be quarantined for it, and no alert may open. `disorders` is the same in an hour, with more of each, and
with one unit in twenty that really repeats what it captured or is a copy: the classes side by side.
"""

from fleetsim.scenarios import attacks, disorders
from fleetsim.scenarios.device import Device
from fleetsim.scenarios.scenario import HOUR_S, Scenario, everybody_drives
from fleetsim.scenarios.world import Pace, World
from fleetsim.vehicles import Array

DAY_S = 24 * HOUR_S
# Share of the cars on the road in each hour of the day; a run begins with hour 4.
RHYTHM = (
    *(0.10, 0.08, 0.07, 0.07, 0.10, 0.18, 0.35, 0.52, 0.55, 0.42, 0.36, 0.36),
    *(0.40, 0.40, 0.38, 0.44, 0.54, 0.58, 0.50, 0.38, 0.28, 0.22, 0.17, 0.13),
)
FIRST_HOUR = 4
# A drive: at least so long, and so long on average.
SHORTEST_DRIVE_S, DRIVE_S = 600.0, 3600.0
SHARE_OF_EACH = 0.02
CHARGED = (55.0, 95.0)  # percent, after it stood


def share_driving(after_s: float) -> float:
    """How much of the fleet is on the road so long after the start, between the hours in a straight line."""
    hour, within = divmod(after_s / HOUR_S, 1)
    now, then = (RHYTHM[(FIRST_HOUR + int(hour) + i) % 24] for i in (0, 1))
    return now + (then - now) * within


def live_a_day(world: World, index: int) -> None:
    """One vehicle: drives and stands in turn, as often as its time of day says."""
    device, physics, rng = world.devices[index], world.physics, world.rng
    at_s = 0.0
    drives = rng.random() < share_driving(0.0)
    while at_s < world.pace.seconds:
        if drives:
            world.at(at_s + (rng.random() * 60 if not at_s else 0), lambda: _set_out(device, physics.charge, index))
            at_s += SHORTEST_DRIVE_S + rng.expovariate(1 / (DRIVE_S - SHORTEST_DRIVE_S))
            world.at(at_s, device.sleep)
        else:
            # It stands, a quarter of an hour at a time, until the day says that it is its turn.
            while at_s < world.pace.seconds:
                at_s += 900.0 * (0.5 + rng.random())
                share = min(0.95, share_driving(at_s))
                if rng.random() < 900.0 / DRIVE_S * share / (1 - share):
                    break
        drives = not drives


def _set_out(device: Device, charge: Array, index: int) -> None:
    charge[index] = CHARGED[0] + (index * 7919 % 1000) / 1000 * (CHARGED[1] - CHARGED[0])
    device.wake()


def healthy_day(world: World) -> None:
    """2 % of the vehicles with each disorder, over MQTT and over HTTPS alike; nobody has two."""
    for index in world.vehicles():
        live_a_day(world, index)
    left = set(world.vehicles())
    for what in disorders.ALL:
        share = SHARE_OF_EACH * len(world.vehicles()) / len(left)
        found = world.pick(share, sorted(left))
        left -= set(found)
        disorders.befall(world, what, found, HOUR_S, world.pace.seconds - HOUR_S)


def all_disorders(world: World) -> None:
    """Every benign disorder, beside units that replay and units that are cloned."""
    everybody_drives(world)
    left = set(world.vehicles())
    for what in disorders.ALL:
        found = sorted(left)[:: max(1, len(left) // (len(world.vehicles()) // 16))]
        left -= set(found)
        disorders.befall(world, what, found, 300.0, world.pace.seconds)
    guilty = sorted(left)
    attacks.replays(world, guilty[0:12:2])
    attacks.clones(world, guilty[1:12:2])


SCENARIOS = (
    Scenario(
        "healthy-day",
        "24 hours of an honest fleet with 2 % of each benign disorder; nobody is quarantined, no alert opens",
        Pace(vehicles=2000, interval_s=90.0, before_s=DAY_S, trouble_s=0.0, speed=120.0),
        healthy_day,
    ),
    Scenario(
        "disorders",
        "every benign disorder and its hostile look-alike, side by side in one hour",
        Pace(vehicles=200, interval_s=15.0, before_s=300.0, trouble_s=3300.0, speed=40.0),
        all_disorders,
    ),
)
