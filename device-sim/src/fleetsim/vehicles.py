"""Decides how the simulated vehicles drive: a whole fleet's physics at once, in numpy.

A battery-electric car of 1.9 t on a drive cycle of stops, towns and roads. Plausible, not exact: every value lies
within the bounds and rates of the catalogue, and they fit each other (position follows speed and heading, current
follows power, temperature follows current). What of it goes into a message is `traffic`'s.

All of them drive all the time, and the fleet as a whole never changes: whatever changes in a scenario is the
scenario's, and can be scored. Days, nights, charging, ageing and faults are those of `drive`, the fleet of load tests.
"""

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

MASS_KG = 1_900.0
WHEEL_RADIUS_M = 0.34
GEAR_RATIO = 9.0
DRAG_AREA_M2 = 0.62  # Cd x frontal area
ROLLING = 0.011
AIR_KG_M3, GRAVITY = 1.2, 9.81
PACK_WH, PACK_OHM, PACK_CELL_V = 75_000.0, 0.06, 350.0
PACK_J_PER_K, MOTOR_J_PER_K = 400_000.0, 40_000.0
EFFICIENCY = 0.9
AUX_W = 450.0
# Percent of charge: who is below the first charges until the second; slower than what a sensor would be doubted for.
EMPTY, FULL, CHARGES_PER_S = 15.0, 85.0, 1.0
SETTLING_S = 3 * 3600.0
LONGEST_STEP_S = 1.5  # a driver corrects the speed within 1.5 s: longer steps would overshoot
METRES_PER_DEGREE = 111_320.0

# Comfort limits: they keep speed, current and voltage well within the catalogue's rates.
ACCELERATE_MS2, BRAKE_MS2, JERK_MS3, LATERAL_MS2 = 2.2, 3.0, 2.0, 3.0
# km/h to drive at, and for how long at least and at most (s): a stop, town, road, fast road.
_CYCLE = np.array([[0, 4, 15], [30, 8, 25], [50, 15, 40], [80, 20, 60], [110, 30, 90]], dtype=np.float64)
_CYCLE_WEIGHTS = [0.22, 0.2, 0.33, 0.17, 0.08]


class Vehicles:
    """`n` vehicles. `step(dt_s)` moves them all; `sample()` reads them: {signal number: array of n values}."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n = n
        self._rng = rng
        self.speed = rng.choice([0.0, 8.0, 13.9, 22.0], n)  # m/s
        self.acceleration = np.zeros(n)
        self.heading = rng.uniform(0, 360, n)
        self.yaw = np.zeros(n)  # degrees/s, clockwise
        self.latitude = 48.1 + rng.normal(0, 0.15, n)
        self.longitude = 11.5 + rng.normal(0, 0.2, n)
        self.altitude = 520 + rng.normal(0, 15, n)
        self.odometer_km = rng.uniform(500, 120_000, n)
        self.charge = rng.uniform(35, 95, n)  # percent
        self.health = rng.uniform(86, 100, n)
        self.ambient = rng.uniform(4, 24, n)
        self.pack_temperature = self.ambient + rng.uniform(4, 12, n)
        self.motor_temperature = self.ambient + rng.uniform(10, 30, n)
        self.cabin_wanted = rng.uniform(18, 23, n)
        self.cabin = self.cabin_wanted.copy()
        self.tyres = rng.normal(250, 6, (4, n))
        self.hdop = rng.uniform(0.5, 1.1, n)
        self.power = np.zeros(n)  # W out of the pack
        self.current = np.zeros(n)  # A out of the pack
        self.voltage = self._open_voltage()
        self.torque = np.zeros(n)
        self._target, self._left_s = self.speed.copy(), rng.uniform(0, 10, n)
        self._turn, self._turn_left_s = np.zeros(n), np.zeros(n)
        self._charges = np.zeros(n, dtype=np.bool_)

    def settle(self) -> None:
        """Drive until temperatures and pressures are where driving keeps them: a fleet that is still warming up changes
        from minute to minute as no fleet does."""
        for _ in range(int(SETTLING_S / LONGEST_STEP_S)):
            self.step(LONGEST_STEP_S)
        self.charge = self._rng.uniform(EMPTY, FULL, self.n)

    def step(self, dt_s: float) -> None:
        """Drive for `dt_s` seconds, in steps that the equations bear."""
        steps = max(1, math.ceil(dt_s / LONGEST_STEP_S))
        for _ in range(steps):
            self._choose(dt_s / steps)
            self._drive(dt_s / steps)
            self._draw(dt_s / steps)
            self._drift(dt_s / steps)

    def sample(self) -> dict[int, Array]:
        """Every signal the fleet can report, in the catalogue's units, rounded as a sensor would."""
        moving = self.speed > 0.05
        radians_s = self.speed / WHEEL_RADIUS_M * GEAR_RATIO
        zeros = np.zeros(self.n)
        pedal = np.clip(self.power / 1_200, 0, 100)
        brake = np.clip(-self.acceleration / BRAKE_MS2 * 40, 0, 100)
        steering = np.where(moving, self.yaw / np.maximum(self.speed, 2.0) * 45, 0)
        values = {
            1: self.speed * 3.6,
            2: self.odometer_km,
            3: self.acceleration,
            4: self.speed * np.radians(self.yaw),
            5: GRAVITY + self._rng.normal(0, 0.05, self.n) * moving,
            6: self.yaw,
            7: self.latitude,
            8: self.longitude,
            9: self.altitude,
            10: self.heading,
            11: self.hdop * 2.5,
            12: self.hdop,
            13: self.charge,
            14: self.health,
            15: self.voltage,
            16: self.current,
            17: self.power,
            18: self.pack_temperature,
            19: self.pack_temperature + 1.5,
            20: self.charge / 100 * PACK_WH / 0.16,
            22: zeros,
            23: radians_s * 60 / (2 * np.pi),
            24: self.torque,
            25: self.motor_temperature,
            26: moving.astype(np.float64),
            30: self.tyres[0],
            31: self.tyres[1],
            32: self.tyres[2],
            33: self.tyres[3],
            34: pedal,
            35: brake,
            36: np.clip(steering, -720, 720),
            37: zeros,
            38: zeros,
            39: 13.8 + zeros,
            40: self.ambient,
            41: self.cabin,
            43: 1 + zeros,
        }
        return {number: np.round(value, _DECIMALS.get(number, 2)) for number, value in values.items()}

    def _choose(self, dt_s: float) -> None:
        """Who has driven long enough takes the next piece of the cycle, and the next bend."""
        self._left_s -= dt_s
        due = self._left_s <= 0
        if due.any():
            piece = _CYCLE[self._rng.choice(len(_CYCLE), int(due.sum()), p=_CYCLE_WEIGHTS)]
            self._target[due] = piece[:, 0] / 3.6 * self._rng.uniform(0.92, 1.04, len(piece))
            self._left_s[due] = self._rng.uniform(piece[:, 1], piece[:, 2])
        self._turn_left_s -= dt_s
        bend = self._turn_left_s <= 0
        if bend.any():
            count = int(bend.sum())
            self._turn[bend] = self._rng.choice([0.0, 0.0, 1.0, -1.0], count) * self._rng.uniform(2, 18, count)
            self._turn_left_s[bend] = self._rng.uniform(2, 8, count)

    def _drive(self, dt_s: float) -> None:
        wanted = np.clip((self._target - self.speed) / 1.5, -BRAKE_MS2, ACCELERATE_MS2)
        self.acceleration += np.clip(wanted - self.acceleration, -JERK_MS3 * dt_s, JERK_MS3 * dt_s)
        before = self.speed
        self.speed = np.maximum(0.0, before + self.acceleration * dt_s)
        # The last walking pace of a stop ends; otherwise a car would creep up to its stop line for ever.
        self.speed[(self._target == 0.0) & (self.speed < 0.2)] = 0.0
        self.acceleration = np.where(self.speed == 0.0, np.maximum(0.0, self.acceleration), self.acceleration)
        metres = (before + self.speed) / 2 * dt_s
        most_yaw = np.degrees(LATERAL_MS2 / np.maximum(self.speed, 3.0))
        wanted_yaw = np.clip(self._turn, -most_yaw, most_yaw) * (self.speed > 0.5)
        self.yaw += (wanted_yaw - self.yaw) * min(1.0, dt_s / 0.8)
        self.heading = (self.heading + self.yaw * dt_s) % 360
        north, east = np.cos(np.radians(self.heading)), np.sin(np.radians(self.heading))
        self.latitude += metres * north / METRES_PER_DEGREE
        self.longitude += metres * east / (METRES_PER_DEGREE * np.cos(np.radians(self.latitude)))
        self.altitude += metres * 0.004 * np.sin(self.odometer_km * 2)
        self.odometer_km += metres / 1000

    def _draw(self, dt_s: float) -> None:
        """Force at the wheel to power, current, voltage, charge and heat."""
        force = (
            MASS_KG * self.acceleration
            + (self.speed > 0) * MASS_KG * GRAVITY * ROLLING
            + 0.5 * AIR_KG_M3 * DRAG_AREA_M2 * self.speed**2
        )
        # Recuperation ends with the speed, and the friction brake does what the motor cannot.
        force = np.maximum(force, -np.minimum(4_000.0, 900.0 * self.speed))
        self.torque = force * WHEEL_RADIUS_M / GEAR_RATIO
        mechanical = force * self.speed
        self.power = np.where(mechanical > 0, mechanical / EFFICIENCY, mechanical * EFFICIENCY) + AUX_W
        open_voltage = self._open_voltage()
        self.current = self.power / open_voltage
        self.voltage = open_voltage - self.current * PACK_OHM
        self.charge = np.clip(self.charge - self.power * dt_s / 3600 / PACK_WH * 100, 3.0, 100.0)
        self._charges = (self._charges | (self.charge < EMPTY)) & (self.charge < FULL)
        self.charge += CHARGES_PER_S * dt_s * self._charges
        heat = self.current**2 * PACK_OHM - 60 * (self.pack_temperature - self.ambient)
        self.pack_temperature += heat * dt_s / PACK_J_PER_K
        loss = np.abs(mechanical) * (1 - EFFICIENCY) - 25 * (self.motor_temperature - self.ambient)
        self.motor_temperature += loss * dt_s / MOTOR_J_PER_K

    def _drift(self, dt_s: float) -> None:
        self.ambient += self._rng.normal(0, 0.002, self.n) * dt_s
        self.cabin += (self.cabin_wanted - self.cabin) * dt_s / 600 + self._rng.normal(0, 0.01, self.n) * dt_s
        self.hdop = np.clip(self.hdop + self._rng.normal(0, 0.02, self.n) * dt_s, 0.4, 3.0)
        self.tyres += (250 + self.speed * 0.3 - self.tyres) * dt_s / 3_000

    def _open_voltage(self) -> Array:
        return PACK_CELL_V + self.charge * 0.6


# Decimals of a sensor's reading; two where nothing is said. Six of a degree are eleven centimetres.
_DECIMALS: dict[int, int] = {2: 3, 3: 3, 4: 3, 7: 6, 8: 6, 13: 3, 17: 0, 20: 0, 23: 0, 26: 0}


def generator(seed: int) -> np.random.Generator:
    """The fleet's randomness."""
    return np.random.default_rng(np.random.SeedSequence([seed, 1]))
