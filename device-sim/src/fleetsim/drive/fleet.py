"""Decides the order of things in a moving fleet: who moves, whose move has ended, who parks, charges, ages and breaks.

Each vehicle has its own time inside `advance`: whoever's move ends takes the next one, until all are where they are
now.
"""

import numpy as np

from fleetsim.drive import kinds, past, releases
from fleetsim.drive.battery import Battery
from fleetsim.drive.diary import Diary
from fleetsim.drive.driver import Doing, Drivers
from fleetsim.drive.faults import Faults
from fleetsim.drive.kinds import Array, Flags, Index, Makes
from fleetsim.drive.moves import Motion
from fleetsim.drive.readings import Sensors
from fleetsim.drive.regions import DAY_MS, HOUR_MS, WEEK_MS, Homes
from fleetsim.drive.releases import Releases

# A parked unit stays awake for so long, to send what it has.
LINGERS_MS = 5 * 60_000.0
# At first all are at home: they live a night and a day before they are looked at, the last minutes of it in full.
_LIVED_MS, _SEEN_MS = 26 * HOUR_MS, HOUR_MS / 3
# Nothing that goes on while parked changes much within this time.
_LONGEST_MS = 2 * HOUR_MS
_CONFIGS = tuple(f"cfg-{letter}" for letter in "abcd")


class Fleet:
    """`vehicles` vehicles at `start_ms` (Unix milliseconds). The same arguments and calls give the same fleet.

    `advance(now_ms)` moves them all; `readings(index)` is one vehicle and `columns()` all of them, by the catalogue's
    numbers and in its units. Latitude and longitude in degrees; `software` and `config` are names.
    """

    def __init__(self, vehicles: int, start_ms: int, seed: int) -> None:
        rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))
        self.now_ms = float(start_ms) - _LIVED_MS
        self._makes = Makes(kinds.choose(vehicles, rng))
        self._homes = Homes(vehicles, rng)
        heading = rng.uniform(0, 360, vehicles)
        homes = self._homes
        self._motion = Motion(homes.latitude, homes.longitude, homes.altitude, heading, self.now_ms)
        self._drivers = Drivers(homes, self._makes, Diary(self._makes.kind, rng), self._motion, rng)
        self._battery = Battery(self._makes, homes, self.now_ms, rng)
        self._sensors = Sensors(self._makes, homes, self._motion, self._drivers, self._battery, rng)
        self._everybody: Index = np.arange(vehicles)
        self._releases = Releases(vehicles, self.now_ms, seed)
        self._faults = Faults(self._battery.years(self._motion.at_ms), self._battery.pack, rng)
        self._drivers.stay(self._everybody, self._battery.charge)
        self._columns: dict[int, Array] | None = None
        self._rows: Array | None = None
        past.live(self._drivers, self._motion, self._battery, start_ms - _SEEN_MS)
        self.now_ms = start_ms - _SEEN_MS
        self.config = [_CONFIGS[i] for i in rng.integers(len(_CONFIGS), size=vehicles)]
        self.advance(start_ms)

    def __len__(self) -> int:
        return len(self._everybody)

    def advance(self, now_ms: float) -> None:
        """Let them live until `now_ms`. Raises ValueError for a time before the last one."""
        if now_ms < self.now_ms:
            raise ValueError(f"a fleet lives forwards: {now_ms} is before {self.now_ms}")
        while self.now_ms < now_ms:
            before_ms, self.now_ms = self.now_ms, min(float(now_ms), self.now_ms + _LONGEST_MS)
            self._live()
            years = self._battery.years(self._motion.at_ms)
            self._faults.pass_time(years, self._battery.pack, (self.now_ms - before_ms) / DAY_MS)
        self._columns = self._rows = None

    @property
    def kind(self) -> list[str]:
        """What each vehicle is: car, van or truck."""
        return [kinds.KINDS[place].name for place in self._makes.kind.tolist()]

    @property
    def years(self) -> Array:
        """How old each vehicle is."""
        return self._battery.years(self._motion.at_ms)

    def week_hour(self) -> Array:
        """What clock and calendar show where each vehicle is at home, in hours since Monday, midnight."""
        return self._homes.week_ms(self._everybody, self._motion.at_ms) % WEEK_MS / HOUR_MS

    @property
    def driving(self) -> Flags:
        """Who is on a trip, if only waiting at a light."""
        driving: Flags = self._drivers.doing != Doing.PARKED
        return driving

    @property
    def awake(self) -> Flags:
        """Whose unit is on: it drives, charges, or has parked moments ago."""
        just_parked = self.now_ms - self._drivers.parked_ms < LINGERS_MS
        return self.driving | just_parked | (self._battery.charging_w > 0)

    @property
    def online(self) -> Flags:
        """Whom the gate can hear: awake, and not in a tunnel."""
        return self.awake & ~self._drivers.in_tunnel()

    @property
    def latitude(self) -> Array:
        """Degrees north."""
        return self._motion.latitude

    @property
    def longitude(self) -> Array:
        """Degrees east."""
        return self._motion.longitude

    @property
    def software(self) -> list[str]:
        """The version that each vehicle runs."""
        names = {int(release): releases.name(int(release)) for release in np.unique(self._releases.release)}
        return [names[release] for release in self._releases.release.tolist()]

    def faults(self, index: int) -> list[str]:
        """The trouble codes that a vehicle shows."""
        return self._faults.of(index)

    def columns(self) -> dict[int, Array]:
        """Every signal of every vehicle, now."""
        if self._columns is None:
            self._columns = self._sensors.read(self.now_ms, self.driving, self.awake)
        return self._columns

    def readings(self, index: int) -> dict[int, float]:
        """Every signal of one vehicle, now."""
        columns = self.columns()
        if self._rows is None:
            self._rows = np.stack(list(columns.values()), axis=1)
        return dict(zip(columns, self._rows[index].tolist(), strict=True))

    def _live(self) -> None:
        end_ms = self._motion.end_ms
        while len(due := np.flatnonzero(end_ms <= self.now_ms)):
            self._go(due, end_ms[due])
            self._drivers.next(due, self._battery.charge[due])
            parked = due[self._drivers.doing[due] == Doing.PARKED]
            if len(parked):
                self._battery.plug_in(parked, self._drivers.at_home[parked])
                self._battery.age(parked, self._motion.at_ms[parked], self._km(parked))
                self._releases.install(parked, self.now_ms)
        self._go(self._everybody, np.full(len(self), self.now_ms))

    def _go(self, which: Index, to_ms: Array) -> None:
        parked = self._drivers.doing[which] == Doing.PARKED
        moving, standing = which[~parked], which[parked]
        if len(moving):
            stretch = self._motion.advance(moving, to_ms[~parked])
            self._battery.drive(stretch, to_ms[~parked])
        if len(standing):
            seconds = (to_ms[parked] - self._motion.at_ms[standing]) / 1_000
            awake = to_ms[parked] - self._drivers.parked_ms[standing] < LINGERS_MS
            self._battery.rest(standing, awake, seconds, to_ms[parked])
            self._motion.at_ms[standing] = to_ms[parked]

    def _km(self, which: Index) -> Array:
        return self._battery.first_km[which] + self._motion.odometer_m[which] / 1_000
