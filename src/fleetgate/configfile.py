"""Reads the configuration: one TOML file, the environment laid over it, unknown names refused and those meant named.

Which settings there are is declared in `config`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from fleetgate.config import Config, settings
from fleetgate.converting import converter
from fleetgate.errors import ConfigError
from fleetgate.rates import HOW

ENVIRONMENT_PREFIX = "FLEETGATE_"
_NOT_SETTINGS = {"FLEETGATE_TEST_CLOCK", "FLEETGATE_TEST_FAULT", "FLEETGATE_CONFIG"}
_WRONG = re.compile(r"(?P<what>.*) - at `\$\.(?P<where>[^`]*)`", re.DOTALL)
_LIMIT = re.compile(r"(?P<key>[a-z]+): (?P<what>.*)", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `\$\.(?P<table>[^`]*)`)?")


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Config:
    """Read the file (none: defaults), lay the environment over it, check every name and type.

    A variable FLEETGATE_EDGE_MQTT_LISTEN sets `edge.mqtt_listen`; its value is read as TOML, else as text. Raises
    ConfigError naming the setting or file.
    """
    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = msgspec.toml.decode(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}") from None
    _overlay(raw, environment)
    base = path.resolve().parent if path is not None else Path.cwd()
    raw["home"] = str((base / str(raw.get("home", "."))).resolve())
    try:
        return _config(raw)
    except msgspec.ValidationError as error:
        where = path or "the environment"
        raise ConfigError(f"{where}: {_told(str(error))}") from None


def _overlay(raw: dict[str, Any], environment: Mapping[str, str]) -> None:
    names = {ENVIRONMENT_PREFIX + name.upper().replace(".", "_"): name for name, _, _ in settings()}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _NOT_SETTINGS:
            continue
        if variable not in names:
            meant = _meant(variable, names)
            raise ConfigError(f"the variable {variable} names no setting{meant}; see `fleetgate config show`")
        *tables, key = names[variable].split(".")
        table = raw
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = _toml_value(text)


def _toml_value(text: str) -> Any:
    try:
        return msgspec.toml.decode(f"value = {text}")["value"]
    except msgspec.DecodeError:
        return text


def _told(error: str) -> str:
    """The error in the file's own words: behind the whole name of its setting, as `config show` has it."""
    unknown = _UNKNOWN.fullmatch(error)
    if unknown is None:
        wrong = _WRONG.fullmatch(error)
        return error if wrong is None else _wrong(wrong["where"], wrong["what"])
    name = ".".join(filter(None, (unknown["table"], unknown["key"])))
    known = [name for name, _, _ in settings()]
    tables = {name.rpartition(".")[0] for name in known} - {""}
    return f"there is no setting {name}{_meant(name, [*known, *tables])}"


def _wrong(where: str, what: str) -> str:
    """Of a limit the table is known where its text is wrong (`config.Sending`), the key where it is no text."""
    if where.startswith("limits."):
        limit = _LIMIT.fullmatch(what)
        return f"{where}.{limit['key']}: {limit['what']}" if limit is not None else f"{where}: {what}: {HOW}"
    return f"{where}: {what}"


def _meant(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.75)
    return f" (was {close[0]} meant?)" if close else ""


_config = converter(Config)
