"""What every command begins with: the configuration it works on, the clock, and who is asking.

Decides where the configuration is looked for. Each command opens what it needs itself, and nothing else.
"""

from __future__ import annotations

import getpass
import os
from pathlib import Path

import typer

from fleetgate.clock import Clock, clock_from_environment
from fleetgate.config import Config
from fleetgate.configfile import load

DEFAULT_FILE = Path("fleetgate.toml")
OTHERS_NOTHING = 0o027
"""The umask of the processes: spool and ClickHouse are for their user and group, telemetry is nobody else's."""


class Session:
    """One call of the command line. The configuration is read when first asked for, so that `--help` needs none."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self.debug = False
        self._config: Config | None = None

    def choose(self, file: Path | None) -> None:
        """The file that was asked for, else ./fleetgate.toml where there is one, else none: the defaults."""
        self.file = file if file is not None else (DEFAULT_FILE if DEFAULT_FILE.exists() else None)

    @property
    def config(self) -> Config:
        """Raises ConfigError."""
        if self._config is None:
            self._config = load(self.file)
        return self._config

    @property
    def clock(self) -> Clock:
        return clock_from_environment(self.config.testing)

    @property
    def pki(self) -> Path:
        return self.config.path(self.config.signer.authority)


def session_of(context: typer.Context) -> Session:
    session = context.find_object(Session)
    assert session is not None  # made by the callback of `cli.main` before any command
    return session


def actor() -> str:
    """Who stands in the audit: the user of the shell, on this machine."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"cli:uid-{os.geteuid()}"
