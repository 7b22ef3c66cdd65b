"""`fleetgate up`: the whole gate on one machine, with an embedded ClickHouse; its processes are children."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import trio
import typer

from fleetgate import log
from fleetgate.cli.session import OTHERS_NOTHING, Session, session_of
from fleetgate.control.store import Store
from fleetgate.ending import asked_to_end
from fleetgate.errors import ConfigError, ControlAway, first_of
from fleetgate.supervise import Machine


def up(context: typer.Context) -> None:
    """Run signer, edge and load on this machine until Ctrl-C; a process that ends is started again."""
    session = session_of(context)
    config = session.config
    log.configure("up", config.log_level)
    os.umask(OTHERS_NOTHING)
    if not config.path(config.edge.keyring).exists():
        raise ConfigError("there is no keyring yet: run `fleetgate ca init` first")
    with suppress(ControlAway):  # the children wait for it
        Store.open(config, session.clock, write=True).close()  # brings it to this version before the edge reads it
    try:
        trio.run(_run, _config_file(session))
    except BaseExceptionGroup as group:
        raise first_of(group) from group


def _config_file(session: Session) -> Path:
    if session.file is None:
        raise ConfigError("no configuration file: make one (an empty fleetgate.toml will do) or name it with --config")
    return session.file.resolve()


async def _run(config_file: Path) -> None:
    machine, asked = Machine(config_file), asked_to_end()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(machine.run)
        await asked.wait()
        await machine.stop()
        nursery.cancel_scope.cancel()
