"""`fleetgate edge`: runs the vehicles' door in this process until SIGTERM."""

from __future__ import annotations

import os

import typer

from fleetgate import fault, log
from fleetgate.cli.session import OTHERS_NOTHING, session_of
from fleetgate.clock import clock_from_environment


def edge(context: typer.Context) -> None:
    """Receive telemetry from vehicles into the spool (MQTT 5 and HTTPS)."""
    from fleetgate.accept.edge import serve  # the listeners' libraries take a second: other commands do without

    session = session_of(context)
    config = session.config
    log.configure("edge", config.log_level)
    os.umask(OTHERS_NOTHING)
    fault.arm(config.testing)
    serve(config, clock_from_environment(config.testing), file=session.file)
