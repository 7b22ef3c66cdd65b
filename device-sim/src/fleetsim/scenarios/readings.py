"""Decides how readings go wrong in many vehicles at once: positions that somebody else makes, a sensor that says one
thing, a speed in another unit. The messages are valid and signed, and their units honest."""

from collections.abc import Callable, Sequence
from functools import partial

from fleetsim.encode import Event, Name
from fleetsim.outbox import Draft
from fleetsim.scenarios.device import Change
from fleetsim.scenarios.scenario import CELL_OF_JUMPS, COHORT, WATCHED, Scenario, everybody_drives
from fleetsim.scenarios.world import World
from fleetsim.signals import BY_NUMBER

SPEED, LATITUDE, LONGITUDE, OUTSIDE = 1, 7, 8, 40
# A second region, far enough that no cell on a map holds both.
REGION_LATITUDE, REGION_LONGITUDE, REGION_SPREAD = 53.55, 10.0, 0.08
REGION_SHARE = 0.25
# An airport 60 km away, as spoofers like it: receivers there are told to refuse to work.
AIRPORT = (53.05, 8.79)
# What a bus says where no sensor answers: raw 0 with an offset of -40.
NO_SENSOR = -40.0
MILES = 0.621371
OLDER_SOFTWARE = "2026.40.3"


Rewrite = Callable[[float], float]


def with_values(number: int, of: Rewrite) -> Change:
    """Changes one signal's value in every event that has it."""
    names: tuple[Name, Name] = (number, BY_NUMBER[number].path)

    def change(draft: Draft) -> Draft:
        events = []
        for event in draft.events:
            name = next((name for name in names if name in event.signals), None)
            if name is None:
                events.append(event)
            else:
                events.append(Event(event.at, event.kind, event.signals | {name: of(event.signals[name])}, event.texts))
        return draft._replace(events=tuple(events))

    return change


def second_region(world: World) -> list[int]:
    """A quarter of the fleet drives elsewhere."""
    found = world.pick(REGION_SHARE)
    for index in found:
        world.physics.latitude[index] = world.rng.gauss(REGION_LATITUDE, REGION_SPREAD)
        world.physics.longitude[index] = world.rng.gauss(REGION_LONGITUDE, REGION_SPREAD)
    return found


def spoofed_gps(world: World) -> None:
    """Every receiver of the region finds itself at an airport."""
    found = second_region(world)
    everybody_drives(world)

    def begin() -> None:
        world.change(found, with_values(LATITUDE, lambda value: AIRPORT[0] + value % 0.001))
        world.change(found, with_values(LONGITUDE, lambda value: AIRPORT[1] + value % 0.001))

    world.trouble(begin)
    _truth(world, found, "spoofed_gps")
    world.truth.alert_due("spoofed_gps", "position_jumps", world.trouble_ms)


def sensor_stuck(world: World) -> None:
    """The older software's sensor of outside air says what a bus says without one."""
    everybody_drives(world)
    found = running(world, OLDER_SOFTWARE)
    world.trouble(partial(world.change, found, with_values(OUTSIDE, lambda _: NO_SENSOR)))
    _truth(world, found, "sensor_stuck")
    world.truth.alert_due(
        "sensor_stuck", "median spread stuck", world.trouble_ms, cohort=OLDER_SOFTWARE, signal=BY_NUMBER[OUTSIDE].path
    )


def unit_mixup(world: World) -> None:
    """The older software is told by its backend to speak in miles per hour, and still says km/h."""
    everybody_drives(world)
    found = running(world, OLDER_SOFTWARE)
    world.trouble(partial(world.change, found, with_values(SPEED, lambda value: round(value * MILES, 2))))
    _truth(world, found, "unit_mixup")
    world.truth.alert_due(
        "unit_mixup", "median spread", world.trouble_ms, cohort=OLDER_SOFTWARE, signal=BY_NUMBER[SPEED].path
    )


def running(world: World, software: str) -> list[int]:
    """The vehicles that run a version."""
    return [index for index in world.vehicles() if world.software(index) == software]


def _truth(world: World, indices: Sequence[int], what: str) -> None:
    world.affected = len(indices)
    for index in indices:
        world.truth.befalls(world.devices[index], what, world.trouble_ms)


# A quarter of the fleet in all tenants together; and the region's vehicles are in up to four cells.
SCENARIOS = (
    Scenario(
        "spoofed-gps",
        "every vehicle of a region reports one place, 60 km away",
        WATCHED,
        spoofed_gps,
        least_affected=CELL_OF_JUMPS,
        least_vehicles=80,
    ),
    Scenario(
        "sensor-stuck",
        "one software's outside temperature sticks at -40",
        WATCHED,
        sensor_stuck,
        least_affected=COHORT,
        least_vehicles=160,
    ),
    Scenario(
        "unit-mixup",
        "one software reports its speed in miles per hour",
        WATCHED,
        unit_mixup,
        least_affected=COHORT,
        least_vehicles=600,  # 300 are too few: such a change of speeds is small beside their scatter
    ),
)
