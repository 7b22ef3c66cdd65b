"""Decides what driving, climate and charging do to the battery, and how it ages. Also the heat of motor, cabin, tyres.

Force at the wheels to power, power to current, voltage, charge and heat; temperatures go exponentially to where they
would settle. Ageing follows what Geotab found in 22,700 electric vehicles: see docs/explanation/simulated-fleet.md.
"""

import numpy as np

from fleetsim.drive.driver import CHARGES_BELOW
from fleetsim.drive.kinds import Array, Flags, Index, Makes
from fleetsim.drive.moves import Stretch
from fleetsim.drive.regions import DAY_MS, Homes

AIR_KG_M3, GRAVITY = 1.2, 9.81
EFFICIENCY = 0.9
YEAR_MS = 365.25 * DAY_MS
AWAKE_W, ASLEEP_W = 180.0, 6.0
COMFORT = 21.0
OLDEST = 9.5  # years
# Thermal masses and losses of a pack by its size; above WARM its coolant circulates.
PACK_J_PER_K_WH, PACK_W_PER_K_WH, WARM, COOLED = 6.0, 5.5e-4, 32.0, 6.0
MOTOR_J_PER_K_KG, MOTOR_W_PER_K_KG = 22.0, 0.02
CABIN_S, CABIN_PARKED_S, TYRE_S = 400.0, 2_400.0, 1_200.0
# Percent lost in the first year, and how it goes on: quicker at first.
FADE, FADE_POWER = 2.85, 0.84
# Cells age faster in the heat and by use: per kelvin of the climate above 11 degrees, per 100,000 km.
FADE_PER_K, FADE_PER_100_000_KM = 0.018, 0.9
# Who comes home with less plugs in for certain, others often.
PLUG_IN_BELOW, PLUG_IN_SHARE, FAST_CHARGE_TO = 55.0, 0.35, 70.0
TAPER_FROM = 80.0
CONSUMPTION_WH_KM = 0.42  # for a mass of one kilogram; it grows with the mass to the power of 0.8


class Battery:
    """The battery of each vehicle: charge and health in percent, temperatures in degrees celsius."""

    def __init__(self, makes: Makes, homes: Homes, at_ms: float, rng: np.random.Generator) -> None:
        n = len(makes.kind)
        self._makes, self._homes, self._rng = makes, homes, rng
        everybody = np.arange(n)
        now = np.full(n, at_ms)
        self.built_ms = at_ms - (0.05 + OLDEST * rng.beta(1.6, 3.2, n)) * YEAR_MS
        years = self.years(now)
        self.first_km = makes["km_a_year"] * years * rng.lognormal(-0.06, 0.35, n) + 15
        self._luck = np.clip(rng.normal(1.0, 0.22, n), 0.4, 2.0)
        self.health = np.full(n, 100.0)
        self.age(everybody, now, self.first_km)
        self.charge = rng.uniform(35, 92, n)
        self.charging_w = np.zeros(n)  # at the plug; zero: none
        self._full = np.full(n, 80.0)
        self.power = np.zeros(n)  # W out of the pack, now
        self.force = np.zeros(n)  # N at the wheels, by the motor
        air = homes.air(everybody, now)
        self.pack = air + rng.uniform(0, 4, n)
        self.motor, self.cabin = air.copy(), air.copy()
        self.tyre = air.copy()

    def years(self, at_ms: Array) -> Array:
        """Age of each vehicle."""
        return (at_ms - self.built_ms) / YEAR_MS

    def age(self, which: Index, at_ms: Array, km: Array) -> None:
        """State of health by age, climate and use."""
        years = (at_ms - self.built_ms[which]) / YEAR_MS
        hot = 1 + FADE_PER_K * (self._homes.climate()[which] - 11)
        lost = FADE * years**FADE_POWER * hot * self._luck[which] + FADE_PER_100_000_KM * km / 100_000
        self.health[which] = np.clip(100.5 - lost, 55.0, 100.0)

    def drive(self, stretch: Stretch, at_ms: Array) -> None:
        """What a stretch of road takes."""
        which, makes = stretch.which, self._makes
        moving = stretch.speed > 0.01
        slope = stretch.climbed_m / np.maximum(stretch.metres, 1.0)
        mass = makes["mass_kg"][which]
        force = mass * (stretch.acceleration + moving * GRAVITY * (makes["rolling"][which] + slope))
        force += 0.5 * AIR_KG_M3 * makes["drag_area_m2"][which] * stretch.speed**2
        # Recuperation fades out with the speed; friction brakes do what motors cannot.
        force = np.maximum(force, -makes["recuperate_n"][which] * np.minimum(1.0, stretch.speed / 4))
        self.force[which] = force[-1]
        mechanical = force * stretch.speed
        air = self._homes.air(which, at_ms)
        aside = makes["auxiliary_w"][which] + self._climate_w(which, air)
        power = np.where(mechanical > 0, mechanical / EFFICIENCY, mechanical * EFFICIENCY) + aside
        mean = (stretch.weights * power).sum(axis=0)
        self.power[which] = power[-1]
        self.charging_w[which] = 0.0
        self._drain(which, mean, stretch.seconds)
        volts = self.open_voltage(which)
        heat = (stretch.weights * power**2).sum(axis=0) / volts**2 * self.ohm(which)
        lost = (stretch.weights * np.abs(mechanical)).sum(axis=0) * (1 - EFFICIENCY)
        self._warm(which, stretch.seconds, air, heat, lost)
        settled = air + 0.09 * 3.6 * stretch.speed[-1]
        self._approach(self.cabin, which, np.full(len(which), COMFORT), stretch.seconds, CABIN_S)
        self._approach(self.tyre, which, settled, stretch.seconds, TYRE_S)

    def rest(self, which: Index, awake: Flags, seconds: Array, at_ms: Array) -> None:
        """What standing parked does: charging, and everything slowly as warm as the air."""
        plugged = self.charging_w[which]
        taper = np.clip((101 - self.charge[which]) / (101 - TAPER_FROM), 0.1, 1.0)
        power = np.where(awake, AWAKE_W, ASLEEP_W) - plugged * np.where(plugged > 50_000, taper, 1.0) * 0.92
        self.power[which], self.force[which] = power, 0.0
        room = (self._full[which] - self.charge[which]) / 100 * self.capacity_wh(which)
        done = (power < 0) & (-power * seconds / 3600 >= room)
        self._drain(which, np.where(done, -room * 3600 / np.maximum(seconds, 1e-3), power), seconds)
        self.charging_w[which[done]] = 0.0
        air = self._homes.air(which, at_ms)
        heat = (power / self.open_voltage(which)) ** 2 * self.ohm(which)
        self._warm(which, seconds, air, heat, np.zeros(len(which)))
        self._approach(self.cabin, which, air, seconds, CABIN_PARKED_S)
        self._approach(self.tyre, which, air, seconds, TYRE_S)

    def spend(self, which: Index, km: Array) -> None:
        """A trip that nobody has seen."""
        self._drain(which, self.consumption(which) * km, np.full(len(which), 3600.0))

    def consumption(self, which: Index) -> Array:
        """Wh/km that the display reckons with."""
        wh_km: Array = self._makes["mass_kg"][which] ** 0.8 * CONSUMPTION_WH_KM
        return wh_km

    def plug_in(self, which: Index, at_home: Flags) -> None:
        """They have parked: some charge, and who is nearly empty charges fast."""
        charge, makes = self.charge[which], self._makes
        wants = at_home & ((charge < PLUG_IN_BELOW) | (self._rng.random(len(which)) < PLUG_IN_SHARE))
        urgent = ~at_home & (charge < CHARGES_BELOW)
        self.charging_w[which] = np.select(
            [urgent, wants], [makes["fast_charger_w"][which], makes["charger_w"][which]], 0.0
        )
        self._full[which] = np.where(urgent, FAST_CHARGE_TO, self._rng.choice([80.0, 80.0, 90.0, 100.0], len(which)))

    def capacity_wh(self, which: Index) -> Array:
        """What the pack holds at its age."""
        watt_hours: Array = self._makes["pack_wh"][which] * self.health[which] / 100
        return watt_hours

    def open_voltage(self, which: Index) -> Array:
        """Without a load."""
        return self._makes["empty_v"][which] + self._makes["span_v"][which] * self.charge[which] / 100

    def ohm(self, which: Index) -> Array:
        """Inner resistance: more in the cold, and more with age."""
        cold = np.exp(np.clip(20 - self.pack[which], 0, 45) / 32)
        ohm: Array = self._makes["ohm"][which] * cold * (1 + (100 - self.health[which]) / 40)
        return ohm

    def _climate_w(self, which: Index, air: Array) -> Array:
        """Heating and cooling; people and sun make up for the first kelvins of cold."""
        away = COMFORT - air
        w_per_k = self._makes["climate_w_per_k"][which]
        return np.clip(np.where(away > 0, away - 4, -away), 0, 45) * w_per_k

    def _drain(self, which: Index, power: Array, seconds: Array) -> None:
        used = power * seconds / 3600 / self.capacity_wh(which) * 100
        self.charge[which] = np.clip(self.charge[which] - used, 1.0, 100.0)

    def _warm(self, which: Index, seconds: Array, air: Array, heat: Array, motor_heat: Array) -> None:
        size, mass = self._makes["pack_wh"][which], self._makes["mass_kg"][which]
        away = size * PACK_W_PER_K_WH
        settled = air + heat / away
        settled = np.where(settled > WARM, WARM + (settled - WARM) / COOLED, settled)
        self._approach(self.pack, which, settled, seconds, PACK_J_PER_K_WH / PACK_W_PER_K_WH)
        away = mass * MOTOR_W_PER_K_KG
        self._approach(self.motor, which, air + motor_heat / away, seconds, MOTOR_J_PER_K_KG / MOTOR_W_PER_K_KG)

    @staticmethod
    def _approach(what: Array, which: Index, settled: Array, seconds: Array, tau_s: Array | float) -> None:
        what[which] += (settled - what[which]) * -np.expm1(-seconds / tau_s)
