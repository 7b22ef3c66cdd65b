"""Decides what a network does to many vehicles at once: a region falls silent, or everybody comes back together."""

from fleetsim.scenarios.readings import second_region
from fleetsim.scenarios.scenario import CELL_OF_SILENCE, COHORT, WATCHED, Scenario, everybody_drives
from fleetsim.scenarios.world import World

AWAY_S = 120.0
BACK_WITHIN_S = 5.0


def silent_region(world: World) -> None:
    """The masts of the second region fall silent, and stay so."""
    found = second_region(world)
    everybody_drives(world)
    world.affected = len(found)
    for index in found:
        device = world.devices[index]
        world.trouble(device.lose_network)
        world.truth.befalls(device, "silent_region", world.trouble_ms)
    world.truth.alert_due("silent_region", "silent", world.trouble_ms)


def thundering_herd(world: World) -> None:
    """A carrier's core is away for two minutes; then everybody connects at once, with what was recorded meanwhile."""
    everybody_drives(world)
    for index in world.vehicles():
        device = world.devices[index]
        world.trouble(device.lose_network)
        back_s = world.pace.before_s + AWAY_S + world.rng.random() * BACK_WITHIN_S
        world.at(back_s, device.find_network)
        world.truth.befalls(device, "thundering_herd", world.trouble_ms)
    world.truth.alert_due("thundering_herd", "silent event_rate", world.trouble_ms)


SCENARIOS = (
    Scenario(
        "silent-region",
        "a quarter of the fleet, all in one region, falls silent",
        WATCHED,
        silent_region,
        least_affected=CELL_OF_SILENCE,
        least_vehicles=160,  # of which 40 are in up to four cells
    ),
    Scenario(
        "thundering-herd",
        "everybody loses the network for two minutes, and is back within 5 s",
        WATCHED,
        thundering_herd,
        least_affected=COHORT,
        least_vehicles=2 * COHORT,  # in two tenants
    ),
)
