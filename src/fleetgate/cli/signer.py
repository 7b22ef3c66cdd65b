"""`fleetgate signer`: signs heads of chains, and certificates that devices renew, in this process until SIGTERM."""

from __future__ import annotations

import os

import typer

from fleetgate import fault, log
from fleetgate.cli.session import OTHERS_NOTHING, session_of
from fleetgate.clock import clock_from_environment
from fleetgate.control.signer import serve


def signer(context: typer.Context) -> None:
    """Sign heads of the chains of segments, and renewed certificates; alone reads the audit key and the issuing key."""
    config = session_of(context).config
    log.configure("signer", config.log_level)
    os.umask(OTHERS_NOTHING)
    fault.arm(config.testing)
    serve(config, clock_from_environment(config.testing))
