"""`fleetgate demo`: the whole gate on this machine, a simulated fleet with attackers in it, and the reckoning.

decisions  what the gate decided, for the score of a scenario
prepare    a gate of its own in a directory: configuration, CA, enrolled devices, the fleet file
stage      runs gate and fleet as processes, kills one when asked, shows what happens
scenario   the same for a scenario of the simulator, on a virtual clock
figures    what the gate says of itself while it runs, and the table on the terminal
examples   two messages of the run, shown whole
reconcile  the simulator's ledger against ClickHouse: what was lost, doubled, let through
"""
