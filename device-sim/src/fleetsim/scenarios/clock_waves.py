"""Decides how clocks go wrong together: a receiver's firmware that counts a second too often, in one version."""

from fleetsim.scenarios.readings import OLDER_SOFTWARE, running
from fleetsim.scenarios.scenario import COHORT, WATCHED, Scenario, everybody_drives
from fleetsim.scenarios.world import World

AHEAD_MS = 40_000.0  # flagged, but within what the gate takes
OVER_S = 20.0


def clock_wave(world: World) -> None:
    """The older software's clocks jump ahead by 40 s while its units are connected."""
    everybody_drives(world)
    found = running(world, OLDER_SOFTWARE)
    world.affected = len(found)
    for index in found:
        device = world.devices[index]

        def jump(index: int = index) -> None:
            world.devices[index].clock_error_ms += AHEAD_MS

        world.trouble(jump, over_s=OVER_S)
        world.truth.befalls(device, "clock_wave", world.trouble_ms)
    world.truth.alert_due("clock_wave", "clock_skew", world.trouble_ms, cohort=OLDER_SOFTWARE)


SCENARIOS = (
    Scenario(
        "clock-wave",
        "a quarter of the fleet's clocks jump 40 s ahead",
        WATCHED,
        clock_wave,
        least_affected=COHORT,
        least_vehicles=240,  # in each of two tenants a quarter
    ),
)
