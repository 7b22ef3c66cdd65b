"""Decides the shape of a scenario: a name, a sentence, how it goes, and what it does to the world."""

from collections.abc import Callable
from typing import NamedTuple

from fleetsim.scenarios.world import Pace, World

HOUR_S = 3600.0
# A quarter of an hour of an ordinary fleet for whoever wants to know what is usual, then five minutes with the trouble.
# At ten times the machine's time a second of the gate's work is ten of the fleet's: sixty are enough to see it in.
WATCHED = Pace(vehicles=600, interval_s=20.0, before_s=900.0, trouble_s=300.0, speed=5.0)


# From so many vehicles on the gate compares a software version or a tenant; a cell of its map, where they jump, and
# where they fall silent. Of what is shared out by chance (the version, the place) a scenario wants some more.
COHORT, CELL_OF_JUMPS, CELL_OF_SILENCE = 20, 5, 10


class Scenario(NamedTuple):
    """`play` puts everything into the world's calendar, and what is true of it into its truth.

    `least_affected` vehicles are the least that its alert can be about; with fewer than `least_vehicles` in all it may
    not come, or come late.
    """

    name: str
    says: str
    pace: Pace
    play: Callable[[World], None]
    least_affected: int = 1
    least_vehicles: int = 1


def everybody_drives(world: World, over_s: float = 60.0) -> None:
    """All vehicles are on the road from the first minute on."""
    for index in world.vehicles():
        world.at(world.rng.random() * over_s, world.devices[index].wake)
