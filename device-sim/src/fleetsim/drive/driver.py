"""Decides what the drivers do: set out, speed up, slow down for junctions, wait, turn towards where they want to be,
arrive, and set out again.

How a move is driven is `moves`', where to and when is `diary`'s, what the road is like `roads`'.
"""

from enum import IntEnum

import numpy as np

from fleetsim.drive import roads
from fleetsim.drive.diary import Diary
from fleetsim.drive.kinds import Array, Flags, Index, Makes
from fleetsim.drive.moves import PEAK, Motion
from fleetsim.drive.regions import DAY_MS, METRES_PER_DEGREE, WEEK_MS, Homes, metres_per_longitude


class Doing(IntEnum):
    """What the move that a vehicle is in is for."""

    PARKED = 0
    DRIVING = 1
    BRAKING = 2  # for a junction where it has to wait
    WAITING = 3
    SLOWING = 4  # for a junction where it turns
    TURNING = 5
    ARRIVING = 6


# Nearer than this, it looks for a place to park. Who passes its destination by parks where it is.
_NEAR_M, _PASSED_M = 60.0, 500.0
_DETOUR, _DETOUR_M = 1.7, 3_000.0
# Drivers feel sideways acceleration: they take bends at a third of what tyres would bear.
_LATERAL_MS2 = 2.6
_TURN_RADIUS_M = 11.0
_TURN_MS = 5.2
_MOST_CHANGE_MS = 9.0  # of speed in one move
_STEADY_S = (4.0, 11.0)
# Holding a speed, it still varies: in town more than on a motorway.
_UNSTEADY = 0.04
_SHORTEST_TUNNEL_M = 120.0
# Below this charge (percent) it stops at a fast charger; with a little more it charges where it parks, for so long.
EMPTY, CHARGES_BELOW = 9.0, 24.0
FAST_CHARGE_MS = 30 * 60_000.0


class Drivers:
    """One for each vehicle. `doing` is a Doing."""

    def __init__(self, homes: Homes, makes: Makes, diary: Diary, motion: Motion, rng: np.random.Generator) -> None:
        n = len(makes.kind)
        self._homes, self._makes, self._diary, self._motion, self._rng = homes, makes, diary, motion, rng
        self.doing = np.zeros(n, dtype=np.intp)
        self.at_home = np.ones(n, dtype=np.bool_)
        self.parked_ms = motion.at_ms.copy()
        self._tunnel_to_m = np.zeros(n)  # by the odometer, where the last tunnel ends
        self._hurry = np.clip(rng.normal(1.0, 0.06, n), 0.85, 1.15)
        self._places_left = np.zeros(n)
        self.to_latitude, self.to_longitude = homes.latitude.copy(), homes.longitude.copy()
        self.straight_m, self._start_m = np.zeros(n), np.zeros(n)
        self._nearest_m = np.zeros(n)
        self._junction_m = np.zeros(n)  # by the odometer, where the next one is

    def stay(self, which: Index, charge: Array) -> None:
        """Park them, until the diary says so."""
        motion = self._motion
        at_ms = motion.at_ms[which]
        self.doing[which] = Doing.PARKED
        self.parked_ms[which] = at_ms
        # Who is nearly empty has stopped where it can charge, wherever that is.
        self.at_home[which] &= np.hypot(*self._way(which)) < _PASSED_M
        week_ms = self._homes.week_ms(which, at_ms)
        away_ms = np.maximum(self._diary.stay_ms(which, week_ms), (charge < CHARGES_BELOW) * FAST_CHARGE_MS)
        stay_ms = np.where(self.at_home[which], self._diary.leave_ms(which, week_ms), away_ms)
        motion.stand(which, at_ms + np.maximum(60_000.0, stay_ms))

    def next(self, which: Index, charge: Array) -> None:
        """Their moves have ended: choose the next ones, at this charge (percent) of each of them."""
        doing = self.doing[which]
        arrived = which[doing == Doing.ARRIVING]
        if len(arrived):
            self.stay(arrived, charge[doing == Doing.ARRIVING])
        leaving = which[doing == Doing.PARKED]
        if len(leaving):
            self.set_out(leaving)
        braked = which[doing == Doing.BRAKING]
        if len(braked):
            self._wait(braked)
        slowed = which[doing == Doing.SLOWING]
        if len(slowed):
            self._turn(slowed)
        free = (doing == Doing.DRIVING) | (doing == Doing.WAITING) | (doing == Doing.TURNING) | (doing == Doing.PARKED)
        if free.any():
            self._drive(which[free], charge[free])

    def set_out(self, which: Index) -> None:
        """To the next place of the tour, or home."""
        homes, motion, rng = self._homes, self._motion, self._rng
        fresh = which[self.at_home[which]]
        self._places_left[fresh] = self._diary.places(fresh)
        home = self._places_left[which] < 1
        self._places_left[which] -= 1
        self.at_home[which] = home
        far, bearing = self._diary.far_m(which), rng.uniform(0, 2 * np.pi, len(which))
        latitude = motion.latitude[which] + far * np.cos(bearing) / METRES_PER_DEGREE
        longitude = motion.longitude[which] + far * np.sin(bearing) / metres_per_longitude(motion.latitude[which])
        self.to_latitude[which] = np.where(home, homes.latitude[which], latitude)
        self.to_longitude[which] = np.where(home, homes.longitude[which], longitude)
        north, east = self._way(which)
        self.straight_m[which] = self._nearest_m[which] = np.hypot(north, east)
        self._start_m[which] = motion.odometer_m[which]
        # A car leaves its place in the direction in which it wants to go, more or less.
        motion.heading[which] = (np.degrees(np.arctan2(east, north)) + rng.normal(0, 40, len(which))) % 360
        self._junction_m[which] = motion.odometer_m[which] + rng.exponential(150.0, len(which))

    def _drive(self, which: Index, charge: Array) -> None:
        motion, rng = self._motion, self._rng
        n = len(which)
        north, east = self._way(which)
        left = np.hypot(north, east)
        gone = motion.odometer_m[which] - self._start_m[which]
        self._nearest_m[which] = np.minimum(left, self._nearest_m[which])
        road = roads.road_at(np.minimum(left, gone))
        speed = motion.speed[which]
        gentle = 0.35 + 0.65 * rng.beta(1.6, 2.0, n)
        brake = self._makes["brake"][which] * gentle
        braking_m = PEAK * speed**2 / brake / 2
        there = (
            (left < _NEAR_M + braking_m)
            | ((left > self._nearest_m[which] + 150) & (self._nearest_m[which] < _PASSED_M))
            | (gone > _DETOUR * self.straight_m[which] + _DETOUR_M)
            | (charge < EMPTY)
        )
        # Who stands has passed its junction.
        junction = (motion.odometer_m[which] + braking_m >= self._junction_m[which]) & (speed > 2)
        stops = rng.random(n) < roads.of(road, "stop_share")
        doing = np.where(junction, np.where(stops, Doing.BRAKING, Doing.SLOWING), Doing.DRIVING)
        doing = np.where(there, Doing.ARRIVING, doing)
        self.doing[which] = doing
        self._begin(which, road, gentle, north, east)
        passing = which[junction]
        self._junction_m[passing] = (
            motion.odometer_m[passing]
            + braking_m[junction]
            + 30
            + rng.exponential(roads.of(road[junction], "junction_m"))
        )

    def _begin(self, which: Index, road: Index, gentle: Array, north: Array, east: Array) -> None:
        """The move for what they are doing: to which speed, in which time, along which bend."""
        motion, rng, doing = self._motion, self._rng, self.doing[which]
        n, speed = len(which), motion.speed[which]
        wanted = self._wanted(which, road)
        steady = (doing == Doing.DRIVING) & (np.abs(wanted - speed) < 1.5)
        to_speed = np.select(
            [doing == Doing.DRIVING, doing == Doing.SLOWING],
            [
                speed + np.clip(wanted - speed, -_MOST_CHANGE_MS, _MOST_CHANGE_MS),
                np.minimum(speed, _TURN_MS * rng.uniform(0.85, 1.3, n)),
            ],
            0.0,
        )
        # Motors pull less the faster they turn.
        pull = self._makes["accelerate"][which] * gentle * np.clip(1.15 - speed / 40, 0.3, 1)
        most = np.where(to_speed > speed, pull, self._makes["brake"][which] * gentle)
        seconds = np.maximum(PEAK * np.abs(to_speed - speed) / most, 1.0)
        seconds = np.where(steady, np.maximum(rng.uniform(*_STEADY_S, n), seconds), seconds)
        metres = (speed + to_speed) / 2 * seconds
        motion.begin(
            which, to_speed, seconds, self._bend(which, road, metres, np.maximum(speed, to_speed), north, east)
        )
        self._tunnel(which, road, metres)

    def _wanted(self, which: Index, road: Index) -> Array:
        """The speed that they would like now, in m/s."""
        rng = self._rng
        week_ms = self._homes.week_ms(which, self._motion.at_ms[which])
        crowded = roads.traffic(week_ms % DAY_MS / 3_600_000, week_ms % WEEK_MS >= 5 * DAY_MS)
        limit = roads.of(road, "limit_kmh")
        slower = 1 - crowded * rng.uniform(0.3, 1.6, len(which))
        wanted = np.minimum(limit * self._hurry[which] * slower, self._makes["top_kmh"][which])
        return wanted * (1 + rng.normal(0, _UNSTEADY, len(which)) * np.minimum(1.0, 60 / limit)) / 3.6

    def _bend(self, which: Index, road: Index, metres: Array, speed: Array, north: Array, east: Array) -> Array:
        """How far the road turns on its next metres: mostly towards where it leads, in bends that can be driven."""
        bends = self._rng.normal(0, 1, len(which)) * roads.of(road, "bend") * np.sqrt(metres / 100)
        # The nearer, the more directly: who turned in as slowly as from afar would circle around its destination.
        bends += self._off(which, north, east) * np.minimum(
            0.5, metres / np.clip(np.hypot(north, east) / 2, 150, 1_500)
        )
        tightest = np.degrees(np.minimum(_LATERAL_MS2 / np.maximum(speed, 1.0) ** 2, 1 / 25.0) * metres / PEAK)
        return np.clip(bends, -tightest, tightest)

    def _turn(self, which: Index) -> None:
        """At a junction: left or right where that leads there, else straight on."""
        rng = self._rng
        off = self._off(which, *self._way(which))
        turn = np.clip(np.round(off / 90 + rng.normal(0, 0.25, len(which))), -1, 1) * 90 + rng.normal(0, 5, len(which))
        metres = np.maximum(15.0, np.radians(np.abs(turn)) * _TURN_RADIUS_M * PEAK)
        speed = self._motion.speed[which]
        self.doing[which] = Doing.TURNING
        self._motion.begin(which, speed, metres / np.maximum(speed, 1.0), turn)

    def _wait(self, which: Index) -> None:
        gone = self._motion.odometer_m[which] - self._start_m[which]
        wait_s = roads.of(roads.road_at(np.minimum(gone, np.hypot(*self._way(which)))), "wait_s")
        self.doing[which] = Doing.WAITING
        self._motion.stand(which, self._motion.at_ms[which] + 1_500 + self._rng.exponential(wait_s) * 1_000)

    def _tunnel(self, which: Index, road: Index, metres: Array) -> None:
        rng = self._rng
        odometer = self._motion.odometer_m[which]
        begins = rng.random(len(which)) < metres / 1_000 / roads.of(road, "tunnel_km")
        begins &= (odometer > self._tunnel_to_m[which]) & (self.doing[which] == Doing.DRIVING)
        entering = which[begins]
        length = roads.of(road[begins], "tunnel_m") * np.exp(rng.normal(0, 0.6, len(entering)))
        self._tunnel_to_m[entering] = odometer[begins] + np.maximum(_SHORTEST_TUNNEL_M, length)

    def in_tunnel(self) -> Flags:
        """Who is in a tunnel now."""
        inside: Flags = (self._motion.odometer_m < self._tunnel_to_m) & (self.doing != Doing.PARKED)
        return inside

    def _way(self, which: Index) -> tuple[Array, Array]:
        """Metres north and east to where they want to be."""
        motion = self._motion
        north = (self.to_latitude[which] - motion.latitude[which]) * METRES_PER_DEGREE
        east = (self.to_longitude[which] - motion.longitude[which]) * metres_per_longitude(motion.latitude[which])
        return north, east

    def _off(self, which: Index, north: Array, east: Array) -> Array:
        """Degrees to the right of the present heading, where they want to be."""
        return (np.degrees(np.arctan2(east, north)) - self._motion.heading[which] + 180) % 360 - 180
