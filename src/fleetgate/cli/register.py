"""The register of commands: under which name which module's command is called.

A command's module is imported when it is called, or told of by `--help`: all of them together take half a second, and
longer than most of them work. What a command takes and does is decided by its module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Any

import typer
from typer.main import get_group

PLACES = {
    "up": "up:up",
    "edge": "edge:edge",
    "load": "load:load",
    "signer": "signer:signer",
    "prove": "proof:prove",
    "demo": "demo:demo",
    "gaps": "gaps:gaps",
    "schema": "schema:schema",
    "doctor": "doctor:doctor",
    "judge": "judge:judge",
    "ca": "ca:app",
    "device": "device:app",
    "vehicle": "vehicle:app",
    "keyring": "keyring:app",
    "quarantine": "quarantine:app",
    "breaker": "breaker:app",
    "audit": "audit:app",
    "config": "config:app",
    "db": "db:app",
    "spool": "spool:app",
    "verify": "verify:app",
    "heads": "proof:app",
    "alerts": "alerts:app",
}
"""In the order of `--help`. A module of `cli`, and there a function that is one command or a group of commands."""


class Register(Mapping[str, Any]):
    """Commands by their names (of typer's own copy of click, whose type has no public name), made when asked for."""

    def __getitem__(self, name: str) -> Any:
        found = resolve_name(f"{__package__}.{PLACES[name]}")
        made = typer.Typer(rich_markup_mode=None)
        if isinstance(found, typer.Typer):
            made.add_typer(found, name=name)
        else:
            made.command(name)(found)
        return get_group(made).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)
