"""`python -m fleetsim` is the command `fleetsim`."""

from fleetsim.cli import main

main()
