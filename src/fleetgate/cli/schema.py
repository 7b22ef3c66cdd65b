"""`fleetgate schema`: the JSON forms of the wire format as JSON Schema, made from the very types that decode them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from fleetgate.cli.console_output import say
from fleetgate.judge.body import JsonRows
from fleetgate.judge.envelope import JsonEnvelope


class Form(StrEnum):
    ENVELOPE = "envelope"
    BODY = "body"


_TYPES: dict[Form, tuple[type[msgspec.Struct], str]] = {
    Form.ENVELOPE: (JsonEnvelope, "fleetgate envelope, version 1, JSON form (HTTPS)"),
    Form.BODY: (JsonRows, "fleetgate body, rows in JSON (enc 2)"),
}


def json_schema(form: Form) -> bytes:
    """JSON Schema 2020-12. It says shapes and ranges; schemas/envelope.md says what a schema cannot."""
    kind, title = _TYPES[form]
    (document,), definitions = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    whole: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **document,
        "$defs": definitions,
    }
    return msgspec.json.format(msgspec.json.encode(whole, order="sorted")) + b"\n"


def schema(form: Annotated[Form, typer.Argument(help="Which part of a message.")]) -> None:
    """Print the JSON Schema of an envelope or a body."""
    say(json_schema(form).decode().rstrip())
