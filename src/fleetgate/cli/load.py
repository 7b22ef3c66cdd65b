"""`fleetgate load`: moves sealed segments into ClickHouse until SIGTERM; owns the embedded one."""

from __future__ import annotations

import os

import typer

from fleetgate import log
from fleetgate.cli.session import OTHERS_NOTHING, session_of
from fleetgate.clock import clock_from_environment


def load(context: typer.Context) -> None:
    """Load the spool's sealed segments into ClickHouse."""
    from fleetgate.load.service import serve  # ClickHouse's library takes a second: other commands do without

    config = session_of(context).config
    log.configure("load", config.log_level)
    os.umask(OTHERS_NOTHING)
    serve(config, clock_from_environment(config.testing))
