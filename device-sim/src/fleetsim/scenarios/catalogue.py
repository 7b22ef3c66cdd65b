"""Decides which scenarios there are, and how one is run."""

from collections.abc import Sequence

from fleetsim.bundle import Bundle
from fleetsim.clock import Clock
from fleetsim.gate import Gate, InputError, RunError
from fleetsim.scenarios import attacks, clock_waves, healthy, outages, readings, releases
from fleetsim.scenarios.scenario import Scenario
from fleetsim.scenarios.world import Pace, World
from fleetsim.vehicles import Vehicles, generator

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for family in (healthy, attacks, releases, outages, readings, clock_waves)
    for scenario in family.SCENARIOS
}


def find(name: str) -> Scenario:
    """Raises RunError that names those there are."""
    scenario = SCENARIOS.get(name)
    if scenario is None:
        raise RunError(f"there is no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    return scenario


def run(scenario: Scenario, pace: Pace, gate: Gate, bundles: Sequence[Bundle], clock: Clock, seed: int) -> World:
    """The world after the run, with its truth. Raises BundleError, RunError; InputError for a fleet that is too small
    for the alert that is due."""
    physics = Vehicles(len(bundles), generator(seed))
    physics.settle()
    world = World(gate, bundles, clock, seed, pace, physics)
    scenario.play(world)
    if world.affected < scenario.least_affected:
        raise InputError(
            f"{scenario.name} needs at least {scenario.least_affected} vehicles that it befalls, and of "
            f"{len(bundles)} it befalls {world.affected}: take {scenario.least_vehicles} vehicles or more"
        )
    world.truth.notes |= {"scenario": scenario.name, "seed": seed} | pace._asdict()
    world.run()
    return world
