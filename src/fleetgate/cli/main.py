"""The command `fleetgate`: global options, and how an error reaches a person.

Decides that an error is one line on standard error and an exit code (docs/reference/exit-codes.md), never a traceback.
Which commands there are stands in `cli.register`; what a command does is decided by its module.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from fleetgate.cli.console_output import OutputLost, answering
from fleetgate.cli.register import Register
from fleetgate.cli.session import Session, session_of
from fleetgate.errors import FleetgateError

UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h
NO_OUTPUT = 74  # EX_IOERR of it
STANDARD_INPUT, STANDARD_OUTPUT, STANDARD_ERROR = range(3)


class _Commands(TyperGroup):
    """Those of the register. Tells a value that is none of those there are without the words of the library that
    compared it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands: Any = Register()  # nobody adds one to it

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name="fleetgate",
    cls=_Commands,
    help="The gate a fleet's telemetry enters through.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"fleetgate {version('fleetgate')}")
        except PackageNotFoundError:
            typer.echo("fleetgate, not installed (run from its source)")
        raise typer.Exit


@app.callback()
def _begin(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            envvar="FLEETGATE_CONFIG",
            help="Configuration file; by default ./fleetgate.toml where it exists, else the defaults.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Print a traceback with an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    session = session_of(context)
    session.choose(config_file)
    session.debug = debug


def main() -> NoReturn:
    """Runs one command and exits; the entry point of the installed script."""
    session = Session()
    _open_what_is_closed()
    try:
        with answering():
            get_command(app).main(prog_name="fleetgate", obj=session)
    except FleetgateError as error:
        _fail(f"fleetgate: {error}", error.exit_code, session)
    except OutputLost as lost:
        _end_without_output(lost.reason, session)
    except Exception as error:  # whatever is not an error of ours is a fault of ours: said in one line all the same
        kind = type(error).__name__
        _fail(f"fleetgate: unexpected {kind}; `fleetgate --debug ...` shows where", UNEXPECTED, session)
    sys.exit(0)


def _open_what_is_closed() -> None:
    """Of a process that was started without them (`>&-`) Python has None for these streams, and the next file opened
    would get their numbers: an answer printed would stand in it."""
    while (descriptor := os.open(os.devnull, os.O_RDONLY)) <= STANDARD_ERROR:
        pass
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(STANDARD_INPUT, closefd=False)  # noqa: SIM115  until the process ends
    if sys.stdout is None:
        # Not open for writing: that is told at the first flush.
        sys.stdout = open(STANDARD_OUTPUT, "w", closefd=False)  # noqa: SIM115  until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  until the process ends


def _end_without_output(error: OSError, session: Session) -> NoReturn:
    """Who read the answer has gone (`| head`), which needs no word, or the disk it goes to is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_OUTPUT)  # for what Python still has to write at its end
    if isinstance(error, BrokenPipeError):
        sys.exit(NO_OUTPUT)
    _fail(f"fleetgate: cannot write the answer: {error.strerror}", NO_OUTPUT, session)


def _fail(line: str, exit_code: int, session: Session) -> NoReturn:
    if session.debug:
        traceback.print_exc()
    sys.stderr.write(" ".join(line.splitlines()) + "\n")
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
