"""`fleetgate load`: moves sealed segments into ClickHouse until SIGTERM; owns the embedded one."""

from __future__ import annotations

import os
from contextlib import suppress

import typer

from fleetgate import fault, log
from fleetgate.cli.session import OTHERS_NOTHING, session_of
from fleetgate.clock import clock_from_environment


def load(context: typer.Context) -> None:
    """Load the spool's sealed segments into ClickHouse."""
    _yield_to_the_edge()
    from fleetgate.load.service import serve  # ClickHouse's library takes a second: other commands do without

    config = session_of(context).config
    log.configure("load", config.log_level)
    os.umask(OTHERS_NOTHING)
    fault.arm(config.testing)
    serve(config, clock_from_environment(config.testing))


def _yield_to_the_edge() -> None:
    """Lets every other process of the machine go first: vehicles wait for the edge, only people for load.

    ClickHouse inserts and merges in bursts of several threads, and the edge then waits for a core. At 17,000 messages a
    second on two cores, runs of 22 s on a machine that was not quiet: ack p99 211 and 891 ms beside an ordinary load,
    52 to 95 ms with nice 10 (388 in one run), 26 and 100 ms with SCHED_IDLE, which is preempted at once; 0.3 s more
    until a message is queryable. Load starves while others use every core; the edge alone uses little more than one,
    and in the end takes no more for want of room. Between systemd units or containers their CPU weights count.
    """
    with suppress(OSError):  # in a sandbox that refuses it: slower acknowledgements, nothing lost
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # before ClickHouse's library starts threads
