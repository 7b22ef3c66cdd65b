"""Decides what a bad release does: many units change their version within minutes, and their messages are no good."""

from fleetsim.encode import Event
from fleetsim.outbox import Draft
from fleetsim.scenarios.readings import OLDER_SOFTWARE, running
from fleetsim.scenarios.scenario import COHORT, WATCHED, Scenario, everybody_drives
from fleetsim.scenarios.world import World

NEW_SOFTWARE = "2026.48.0"
ROLLED_OUT_OVER_S = 30.0
UPDATED_SHARE = 0.8
BROKEN_SHARE = 0.8
# The gate cannot know a release from a few units: of the version of each of two tenants, fewer than 20 are quarantined
# before its breaker holds the rest.
TOLERATED = 2 * 19
# The closed set of kinds has no such one: the body is malformed, as anybody can see who reads it.
NO_KIND = "sampel"


def bad_release(world: World) -> None:
    """Most units of the older software are updated; four of five messages of the new one cannot be read."""
    everybody_drives(world)
    found = world.pick(UPDATED_SHARE, running(world, OLDER_SOFTWARE))
    world.affected = len(found)
    for index in found:

        def update(index: int = index) -> None:
            world.change([index], broken)
            world.devices[index].reboot()
            world.truth.befalls(world.devices[index], "bad_release", world.now_ms())
            if not world.truth.alerts:
                world.truth.alert_due("bad_release", "refused breaker", world.now_ms())

        world.trouble(update, over_s=ROLLED_OUT_OVER_S)

    def broken(draft: Draft) -> Draft:
        draft = draft._replace(software=NEW_SOFTWARE)
        if world.rng.random() >= BROKEN_SHARE:
            return draft
        return draft._replace(events=tuple(Event(e.at, NO_KIND, e.signals, e.texts) for e in draft.events))

    world.truth.notes["tolerated"] = TOLERATED


SCENARIOS = (
    Scenario(
        "bad-release",
        "a fifth of the fleet is updated within half a minute to a release that sends four malformed messages of five",
        WATCHED._replace(trouble_s=900.0),
        bad_release,
        least_affected=COHORT,
        least_vehicles=400,  # in each of two tenants four fifths of a quarter are 40: 20 are too late
    ),
)
