"""Decides how a fleet has lived before anybody looks: the same diaries, but trips as long as such trips take, unseen.

Driving a day for an instant's sake would cost a minute. Who is on its way when the looking begins goes on from there,
and soon drives as everybody does.
"""

import numpy as np

from fleetsim.drive.battery import Battery
from fleetsim.drive.driver import Doing, Drivers
from fleetsim.drive.kinds import Index
from fleetsim.drive.moves import Motion

# Roads are longer than the crow flies, and trips faster the longer they are: metres a second, by straight metres.
DETOUR = 1.1
_FAR_M, _SPEED_MS = np.array([500.0, 5_000, 20_000, 60_000]), np.array([4.5, 8.5, 14, 20])


def live(drivers: Drivers, motion: Motion, battery: Battery, until_ms: float) -> None:
    """From each vehicle's time until `until_ms`."""
    everybody: Index = np.arange(len(motion.at_ms))
    begin_ms, latitude, longitude = motion.at_ms.copy(), motion.latitude.copy(), motion.longitude.copy()
    while len(due := np.flatnonzero(motion.end_ms <= until_ms)):
        motion.at_ms[due] = motion.end_ms[due]
        arrived = due[drivers.doing[due] == Doing.ARRIVING]
        drivers.stay(arrived, battery.charge[arrived])
        battery.plug_in(arrived, drivers.at_home[arrived])
        leaving = np.setdiff1d(due, arrived)
        _rest(leaving, drivers, motion, battery)
        begin_ms[leaving], latitude[leaving], longitude[leaving] = (
            motion.at_ms[leaving],
            motion.latitude[leaving],
            motion.longitude[leaving],
        )
        drivers.set_out(leaving)
        metres = DETOUR * drivers.straight_m[leaving]
        motion.place(leaving, drivers.to_latitude[leaving], drivers.to_longitude[leaving])
        motion.odometer_m[leaving] += metres
        battery.spend(leaving, metres / 1_000)
        drivers.doing[leaving] = Doing.ARRIVING
        motion.stand(leaving, motion.at_ms[leaving] + metres / np.interp(metres, _FAR_M, _SPEED_MS) * 1_000)
    # Halfway, as far as their time goes.
    under_way = everybody[drivers.doing == Doing.ARRIVING]
    share = (until_ms - begin_ms[under_way]) / (motion.end_ms[under_way] - begin_ms[under_way])
    north, east = (
        start[under_way] + share * (now[under_way] - start[under_way])
        for start, now in ((latitude, motion.latitude), (longitude, motion.longitude))
    )
    motion.place(under_way, north, east)
    motion.odometer_m[under_way] -= (1 - share) * DETOUR * drivers.straight_m[under_way]
    drivers.doing[under_way] = Doing.WAITING
    motion.at_ms[:] = until_ms
    motion.end_ms[under_way] = until_ms
    _rest(np.flatnonzero(drivers.doing == Doing.PARKED), drivers, motion, battery)


def _rest(which: Index, drivers: Drivers, motion: Motion, battery: Battery) -> None:
    at_ms = motion.at_ms[which]
    battery.rest(which, np.zeros(len(which), dtype=np.bool_), (at_ms - drivers.parked_ms[which]) / 1_000, at_ms)
