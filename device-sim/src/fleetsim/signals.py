"""Decides which signals a simulated vehicle can name: its own copy of the catalogue, as a real unit has one.

A device cannot read the gate's files, so this table is kept by hand beside schemas/signals.toml; a test compares the
two. Numbers are append-only there and here.
"""

from typing import NamedTuple


class Signal(NamedTuple):
    """A catalogue entry: bounds in the signal's unit, `rate` in that unit per second; None is no bound."""

    number: int
    path: str
    unit: str
    low: float | None
    high: float | None
    rate: float | None


CATALOGUE: tuple[Signal, ...] = (
    Signal(1, "Vehicle.Speed", "km/h", -250, 500, 80),
    Signal(2, "Vehicle.TraveledDistance", "km", 0, 5000000, 0.2),
    Signal(3, "Vehicle.Acceleration.Longitudinal", "m/s^2", -40, 40, None),
    Signal(4, "Vehicle.Acceleration.Lateral", "m/s^2", -40, 40, None),
    Signal(5, "Vehicle.Acceleration.Vertical", "m/s^2", -60, 60, None),
    Signal(6, "Vehicle.AngularVelocity.Yaw", "degrees/s", -500, 500, None),
    Signal(7, "Vehicle.CurrentLocation.Latitude", "degrees", -90, 90, 0.01),
    Signal(8, "Vehicle.CurrentLocation.Longitude", "degrees", -180, 180, 0.02),
    Signal(9, "Vehicle.CurrentLocation.Altitude", "m", -500, 9000, 100),
    Signal(10, "Vehicle.CurrentLocation.Heading", "degrees", 0, 360, None),
    Signal(11, "Vehicle.CurrentLocation.HorizontalAccuracy", "m", 0, 10000, None),
    Signal(12, "Vehicle.CurrentLocation.GNSSReceiver.HDOP", "", 0, 100, None),
    Signal(13, "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current", "percent", 0, 100, 2),
    Signal(14, "Vehicle.Powertrain.TractionBattery.StateOfHealth", "percent", 0, 110, 0.1),
    Signal(15, "Vehicle.Powertrain.TractionBattery.CurrentVoltage", "V", 0, 1200, 500),
    Signal(16, "Vehicle.Powertrain.TractionBattery.CurrentCurrent", "A", -2000, 2000, None),
    Signal(17, "Vehicle.Powertrain.TractionBattery.CurrentPower", "W", -1000000, 1000000, None),
    Signal(18, "Vehicle.Powertrain.TractionBattery.Temperature.Average", "celsius", -60, 150, 5),
    Signal(19, "Vehicle.Powertrain.TractionBattery.Temperature.Max", "celsius", -60, 200, 5),
    Signal(20, "Vehicle.Powertrain.TractionBattery.Range", "m", 0, 2000000, None),
    Signal(21, "Vehicle.Powertrain.TractionBattery.Charging.ChargeRate", "km/h", 0, 5000, None),
    Signal(22, "Vehicle.Powertrain.TractionBattery.Charging.IsCharging", "bool", 0, 1, None),
    Signal(23, "Vehicle.Powertrain.ElectricMotor.Speed", "rpm", -30000, 30000, None),
    Signal(24, "Vehicle.Powertrain.ElectricMotor.Torque", "Nm", -10000, 10000, None),
    Signal(25, "Vehicle.Powertrain.ElectricMotor.Temperature", "celsius", -60, 250, 20),
    Signal(26, "Vehicle.Powertrain.Transmission.CurrentGear", "", -2, 12, None),
    Signal(27, "Vehicle.Powertrain.CombustionEngine.Speed", "rpm", 0, 12000, None),
    Signal(28, "Vehicle.Powertrain.CombustionEngine.ECT", "celsius", -60, 200, 10),
    Signal(29, "Vehicle.Powertrain.FuelSystem.RelativeLevel", "percent", 0, 100, 10),
    Signal(30, "Vehicle.Chassis.Axle.Row1.Wheel.Left.Tire.Pressure", "kPa", 0, 1500, 100),
    Signal(31, "Vehicle.Chassis.Axle.Row1.Wheel.Right.Tire.Pressure", "kPa", 0, 1500, 100),
    Signal(32, "Vehicle.Chassis.Axle.Row2.Wheel.Left.Tire.Pressure", "kPa", 0, 1500, 100),
    Signal(33, "Vehicle.Chassis.Axle.Row2.Wheel.Right.Tire.Pressure", "kPa", 0, 1500, 100),
    Signal(34, "Vehicle.Chassis.Accelerator.PedalPosition", "percent", 0, 100, None),
    Signal(35, "Vehicle.Chassis.Brake.PedalPosition", "percent", 0, 100, None),
    Signal(36, "Vehicle.Chassis.SteeringWheel.Angle", "degrees", -1440, 1440, 2000),
    Signal(37, "Vehicle.ADAS.ABS.IsEngaged", "bool", 0, 1, None),
    Signal(38, "Vehicle.ADAS.ESC.IsEngaged", "bool", 0, 1, None),
    Signal(39, "Vehicle.LowVoltageBattery.CurrentVoltage", "V", 0, 60, 30),
    Signal(40, "Vehicle.Exterior.AirTemperature", "celsius", -70, 80, 2),
    Signal(41, "Vehicle.Cabin.HVAC.AmbientAirTemperature", "celsius", -60, 120, 5),
    Signal(42, "Vehicle.Body.Lights.Beam.Low.IsOn", "bool", 0, 1, None),
    Signal(43, "Vehicle.Connectivity.IsConnectivityAvailable", "bool", 0, 1, None),
    Signal(44, "Vehicle.OBD.DTCList", "", None, None, None),
)

BY_NUMBER: dict[int, Signal] = {signal.number: signal for signal in CATALOGUE}
BY_PATH: dict[str, Signal] = {signal.path: signal for signal in CATALOGUE}
