"""Decides how options are written that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

State = Annotated[Path, typer.Option(help="Directory of what the devices keep: epochs and signed messages.")]
Seed = Annotated[int, typer.Option(help="The same seed makes the same vehicles and the same attacks.")]
LedgerFile = Annotated[Path, typer.Option(help="SQLite file for everything sent and its verdict.")]
Mqtt = Annotated[str, typer.Option(help="HOST:PORT of the gate's MQTT listener.")]
Https = Annotated[str, typer.Option(help="HOST:PORT of the gate's HTTPS listener.")]
ServerName = Annotated[str, typer.Option(help="The name in the gate's certificate.")]
