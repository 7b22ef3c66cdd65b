"""What the simulated fleet of `drive` looks like beside a recorded drive and published figures.

`draw` says which fleets are looked at, `observe` looks at one for a while, `recorded` reads the drive, `published` has
the figures and where they are from, `pictures` draws. Only `pictures` needs matplotlib: the package's group `plots`.
"""
