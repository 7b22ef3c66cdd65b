"""Scenarios: an ordinary day, and what may happen to a fleet, each with what is true of it, on a virtual clock.

    catalogue -> world (calendar, physics, wires) -> device -> core -> links -> the gate
    families      |                                    disk, notes
                  +-> truth  ---- score <- what the gate decided

`scenario` is the shape of one; `healthy` with `disorders`, `attacks`, `releases`, `outages`, `readings` and
`clock_waves` are the families, `page` the table of their figures. Thousands of devices in one thread: the rules of each
are those of the reference agent (`fleetsim.core`), the bytes go over the wires of the swarm.
"""
