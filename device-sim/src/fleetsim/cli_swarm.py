"""Decides the options of `fleetsim swarm`, which of them make sense together, and what a signal does.

Ctrl-C ends it at once, with exit status 130 and no report. SIGTERM does so too until all are connected; from then on it
ends the hold or the measured time early, and the report comes. The run is `swarm`'s.
"""

import json
import signal
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from fleetsim.cli_options import Https, Mqtt, Seed, ServerName
from fleetsim.gate import RunError, address
from fleetsim.identities import devices_in
from fleetsim.swarm import Swarm
from fleetsim.swarm_plan import Plan
from fleetsim.swarm_work import Shape, read_bodies

_OF_A_BODY = ("events", "signals", "by_path")
_OF_THE_LOAD = (
    *_OF_A_BODY,
    "columns",
    "bodies",
    "drive",
    "warm_up",
    "in_flight",
    "rate",
    "prepare",
    "interval",
    "seed",
)


def swarm(
    context: typer.Context,
    devices: Annotated[
        Path, typer.Argument(metavar="DEVICES", help="Directory of device bundles, in order of name, or of identities.")
    ],
    connections: Annotated[int, typer.Option(help="How many connect; over MQTT each as a device of its own.", min=1)],
    seconds: Annotated[float, typer.Option(help="How long is measured; 0: only connect.", min=0)] = 10.0,
    warm_up: Annotated[float, typer.Option(help="Seconds of load before that.", min=0)] = 1.0,
    events: Annotated[int, typer.Option(help="Events (rows) in a message.", min=1)] = 1,
    signals: Annotated[int, typer.Option(help="Signals of an event.", min=1)] = 8,
    by_path: Annotated[bool, typer.Option("--by-path", help="Name signals by VSS path, not by number.")] = False,
    columns: Annotated[bool, typer.Option("--columns", help="Bodies in columns, not in rows.")] = False,
    in_flight: Annotated[int, typer.Option(help="Unacknowledged messages of a connection.", min=1, max=128)] = 1,
    rate: Annotated[float, typer.Option(help="Messages a second in all; 0: as fast as answers come.", min=0)] = 0.0,
    batch: Annotated[int, typer.Option(help="Envelopes in a POST over HTTPS; 0: MQTT.", min=0, max=500)] = 0,
    prepare: Annotated[int, typer.Option(help="Messages signed for each connection before the clock starts.")] = 0,
    handshakes: Annotated[int, typer.Option(help="Connections on their way in at once.", min=1)] = 256,
    connect_seconds: Annotated[float, typer.Option(help="Deadline for all of them to be in.", min=1)] = 120.0,
    epoch: Annotated[int, typer.Option(help="Over HTTPS: above that of earlier runs with these devices.", min=1)] = 1,
    reconnect: Annotated[bool, typer.Option("--reconnect", help="Drop all at once, and connect all again.")] = False,
    hold: Annotated[float, typer.Option(help="Seconds to stay connected before any load.", min=0)] = 0.0,
    wait: Annotated[
        bool, typer.Option("--wait", help="Prepare, say so, and connect when a line comes on stdin.")
    ] = False,
    interval: Annotated[float, typer.Option(help="Seconds between latencies told on stderr; 0: never.", min=0)] = 0.0,
    bodies: Annotated[
        Path | None, typer.Option(help="Send these instead: a file with a MessagePack array of encoded bodies.")
    ] = None,
    drive: Annotated[bool, typer.Option("--drive", help="Send what vehicles say that drive, one event each.")] = False,
    mqtt: Mqtt = "127.0.0.1:8883",
    https: Https = "127.0.0.1:8443",
    server_name: ServerName = "localhost",
    seed: Seed = 1,
) -> None:
    """Load a gate from thousands of connections; prints JSON, its phases on stderr.

    SIGTERM ends it early, with a report; Ctrl-C at once.
    """
    _refuse_unused(context)
    plan = Plan(
        address(https, "--https") if batch else address(mqtt, "--mqtt"),
        server_name,
        connections,
        Shape(events, signals, "path" if by_path else "number", "columns" if columns else "rows"),
        seconds,
        warm_up,
        in_flight,
        rate,
        batch,
        prepare,
        handshakes,
        connect_seconds,
        epoch,
        reconnect,
        hold,
        interval,
        seed,
        read_bodies(bodies) if bodies else (),
        drive,
    )

    def say(phase: str) -> None:
        if phase == "connected":  # before that there is nothing to report
            signal.signal(signal.SIGTERM, lambda *_: swarming.finish_early())
        typer.echo(phase, err=True)

    swarming = Swarm(plan, list(islice(devices_in(devices), connections)), say)
    if wait:
        typer.echo("prepared", err=True)
        sys.stdin.readline()
    typer.echo(json.dumps(swarming.run(), indent=2))


def _refuse_unused(context: typer.Context) -> None:
    """Raises RunError for an option that another one makes void: who gave it expects something of it."""
    chosen = context.params
    rules = (
        (not chosen["seconds"], "with --seconds 0 nothing is sent", _OF_THE_LOAD),
        (chosen["drive"], "with --drive the vehicles choose what they say", (*_OF_A_BODY, "columns", "bodies")),
        (chosen["bodies"], "with --bodies they are sent as they are", (*_OF_A_BODY, "seed")),
        (chosen["columns"], "columns name signals by number", ("by_path",)),
        (chosen["rate"], "at a --rate each connection has one message in flight", ("in_flight",)),
    )
    for applies, why, void in rules:
        for name in void if applies else ():
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                raise RunError(f"--{name.replace('_', '-')} would do nothing: {why}")
