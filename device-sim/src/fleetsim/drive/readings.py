"""Decides what the sensors say: every signal that an electric vehicle has, rounded as a sensor would."""

import numpy as np

from fleetsim.drive.battery import GRAVITY, Battery
from fleetsim.drive.driver import Drivers
from fleetsim.drive.kinds import Array, Flags, Makes
from fleetsim.drive.moves import Motion
from fleetsim.drive.regions import DAY_MS, Homes

# Decimals of a reading; two where nothing is said. Six of a degree are eleven centimetres.
_DECIMALS = {2: 3, 3: 3, 4: 3, 7: 6, 8: 6, 12: 1, 13: 3, 17: 0, 20: 0, 21: 1, 23: 0, 26: 0}
_KELVIN, _AIR_KPA, _TYRES_AT = 273.15, 101.3, 20.0
# A tyre loses so much a day on average, and is filled up again after so many days.
_LEAK_KPA_DAY, _FILLED_DAYS = 0.09, 120.0
_SATELLITES_MS, _STREET_M = 400_000.0, 90.0
_STEERING_RATIO, _WHEELBASE_M = 15.0, 2.9


class Sensors:
    """Reads a fleet: `read` gives {signal number: value of each vehicle}."""

    def __init__(
        self, makes: Makes, homes: Homes, motion: Motion, drivers: Drivers, battery: Battery, rng: np.random.Generator
    ) -> None:
        n = len(makes.kind)
        self._makes, self._homes, self._motion, self._drivers, self._battery = makes, homes, motion, drivers, battery
        self._rng, self._everybody = rng, np.arange(n)
        self._tyre_luck = rng.normal(1.0, 0.02, (4, n))
        self._filled_days = rng.uniform(0, _FILLED_DAYS, (4, n))
        self._sky = rng.normal(0, 1, n)

    def read(self, now_ms: float, moving: Flags, awake: Flags) -> dict[int, Array]:
        """Everything, now. `moving`: on a trip, if only waiting at a light."""
        makes, motion, battery = self._makes, self._motion, self._battery
        n, everybody = len(moving), self._everybody
        speed, now = motion.speed, np.full(n, now_ms)
        air = self._homes.air(everybody, now)
        volts = battery.open_voltage(everybody)
        current = battery.power / volts
        turning = np.radians(motion.yaw)
        charging = battery.charging_w > 0
        tunnel = self._drivers.in_tunnel()
        hdop = self._hdop(now_ms, tunnel)
        wheel = makes["wheel_m"]
        hour = self._homes.hour(everybody, now)
        capacity = battery.capacity_wh(everybody)
        consumption = battery.consumption(everybody)
        range_m = battery.charge / 100 * capacity / consumption * 1_000
        signals = {
            1: speed * 3.6,
            2: battery.first_km + motion.odometer_m / 1_000,
            3: motion.acceleration,
            4: speed * turning,
            5: GRAVITY + self._rng.normal(0, 0.05, n) * np.minimum(speed / 8, 1.5),
            6: motion.yaw,
            7: motion.latitude,
            8: motion.longitude,
            9: motion.altitude,
            10: motion.heading % 360,
            11: hdop * 2.5,
            12: hdop,
            13: battery.charge,
            14: battery.health,
            15: volts - current * battery.ohm(everybody),
            16: current,
            17: battery.power,
            18: battery.pack,
            19: battery.pack + 1.5,
            20: range_m,
            21: np.where(charging, -battery.power / consumption, 0),
            22: charging,
            23: speed / wheel * makes["gear"] * 60 / (2 * np.pi),
            24: battery.force * wheel / makes["gear"],
            25: battery.motor,
            26: moving,
            34: np.clip(battery.force / makes["mass_kg"] / makes["accelerate"] * 70, 0, 100) * (speed > 0.05),
            35: np.where(moving & (speed < 0.05), 25.0, np.clip(-motion.acceleration / makes["brake"] * 40, 0, 100)),
            36: np.clip(
                np.degrees(np.arctan(_WHEELBASE_M * turning / np.maximum(speed, 1.0))) * _STEERING_RATIO, -720, 720
            ),
            37: np.zeros(n),
            38: np.zeros(n),
            39: np.where(moving | charging, 13.9, 12.75) - 0.012 * np.maximum(0, 10 - air),
            40: air,
            41: battery.cabin,
            42: moving & ((hour < 7) | (hour > 19) | tunnel),
            43: awake & ~tunnel,
        }
        signals |= dict(zip((30, 31, 32, 33), self._tyres(now_ms), strict=True))
        return {
            number: np.round(signals[number].astype(np.float64), _DECIMALS.get(number, 2)) for number in sorted(signals)
        }

    def _tyres(self, now_ms: float) -> Array:
        """Four pressures: gas grows with its temperature, and leaks."""
        kelvin = (self._battery.tyre + _KELVIN) / (_TYRES_AT + _KELVIN)
        leaked = (now_ms / DAY_MS + self._filled_days) % _FILLED_DAYS * _LEAK_KPA_DAY
        return (self._makes["tyre_kpa"] * self._tyre_luck + _AIR_KPA - leaked) * kelvin - _AIR_KPA

    def _hdop(self, now_ms: float, tunnel: Flags) -> Array:
        """Around 0.6, as satellites pass and houses hide them; without the sky, whatever the receiver makes up."""
        passing = np.sin(now_ms / _SATELLITES_MS + 7 * self._sky)
        hidden = np.sin(self._motion.odometer_m / _STREET_M + 20 * self._sky)
        sky = 0.75 * self._sky + 0.65 * (passing + hidden)
        return np.where(tunnel, 20.0, np.clip(0.58 * np.exp(0.22 * sky), 0.4, 3.0))
