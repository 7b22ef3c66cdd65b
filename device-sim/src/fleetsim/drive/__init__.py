"""A fleet that looks like one: vehicles that drive, park, charge, age and break, all of them at once in numpy arrays.

    from fleetsim.drive import Fleet
    fleet = Fleet(vehicles=10_000, start_ms=1_767_225_600_000, seed=1)
    fleet.advance(now_ms); fleet.readings(17)

    diary -> driver -> moves -> battery -> readings
    (when)   (which    (how)    (what it   (what the
              move)              takes)     sensors say)

`kinds` are the vehicles there are, `regions` where and in which weather they live, `roads` what they drive on; `past`
is what they did before, `faults` and `releases` what breaks and which software runs; `fleet` puts it in order.
What a vehicle says of it, and when, is its driver's (the swarm, the load test); nothing here knows a gate.
"""

from fleetsim.drive.fleet import Fleet

__all__ = ["Fleet"]
