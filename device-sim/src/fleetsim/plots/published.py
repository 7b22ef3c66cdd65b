"""Figures that others have measured, and where they are from: what the simulated fleet is held against.

docs/explanation/simulated-fleet.md names the sources in full.
"""

# Car trips in Germany (Mobilität in Deutschland 2002, by bpb.de): km, and the share of trips that are shorter.
TRIP_KM = (1.0, 6.0, 30.0)
TRIP_SHARE = (0.05, 0.50, 0.90)
TRIP_MEAN_KM = 15.0
# How long an average car is in use on an average day (Mobilität in Deutschland 2017).
MINUTES_A_DAY = 45.0
# The test cycle WLTC, made of drives in five regions of the world: standing, and the mean speed with stops.
WLTC_STANDING, WLTC_KMH, WLTC_TOP_KMH = 0.134, 46.5, 131.3
# Health of batteries, lost each year on average, and left after eight (Geotab 2025, 22,700 vehicles); 2024 it was 1.8.
FADE_PERCENT_A_YEAR, FADE_LOW_PERCENT_A_YEAR = 2.3, 1.8
HEALTH_AFTER_8_YEARS = 81.6
# Range by the temperature outside, as a share of the rated one (Geotab 2020, 4,200 vehicles, 5.2 million trips).
RANGE_AT = (-15.0, 10.0, 21.5, 30.0)
RANGE_SHARE = (0.54, 1.0, 1.15, 1.0)
