"""Decides how the gate is named: its two addresses and the name in its certificate."""

from dataclasses import dataclass


class RunError(Exception):
    """A run that cannot start or did not go well; the text says what to do."""


class InputError(RunError):
    """What a command was given cannot be used: no verdict on anything."""


@dataclass(frozen=True)
class Gate:
    """Where the gate listens, and the name its certificate must have."""

    mqtt: tuple[str, int]
    https: tuple[str, int]
    server_name: str


def address(text: str, what: str) -> tuple[str, int]:
    """'host:port' as a pair. Raises RunError that names `what`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise RunError(f"{what}: {text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
