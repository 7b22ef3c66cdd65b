"""`fleetgate doctor`: what is wrong with a device, in plain words, and how to mend it.

Decides options and output: one line for each check, the remedies below. What is looked at is decided by
`doctor.examine`; it works without a configuration too, on the machine of whoever builds a vehicle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetgate.cli.console_output import AsJson, cell, print_json, print_table, say, say_wrapped
from fleetgate.cli.session import session_of
from fleetgate.config import host_and_port
from fleetgate.doctor.files import Paths
from fleetgate.doctor.findings import Check, Says
from fleetgate.errors import CheckFailed, ConfigError


def doctor(
    context: typer.Context,
    directory: Annotated[
        Path | None, typer.Argument(help="The device's files, as `fleetgate device enroll` wrote them.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="Its certificate and the issuing CA's, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    ca: Annotated[Path | None, typer.Option(help="What the gate's certificate is verified with, PEM.")] = None,
    device_json: Annotated[Path | None, typer.Option(help="Its device.json.")] = None,
    mqtt: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Connect; ends a live session of this device.")
    ] = None,
    https: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Connect; sends no message.")] = None,
    keyring: Annotated[
        Path | None, typer.Option(help="Compare the MAC key with this keyring; else edge.keyring.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a device's files or with a host and port, and how to mend it.

    Sends no message, uses up no number. On the gate's machine it looks into records, keyring and trust bundle too.
    """
    import trio  # with what stands on it, half a second: other commands do without

    from fleetgate.doctor.examine import Ports, examine
    from fleetgate.doctor.reach import Target
    from fleetgate.doctor.records import GateMachine

    session = session_of(context)
    paths = _paths(directory, Paths(certificate, key, ca, device_json))
    ports = Ports(
        Target(*host_and_port("--mqtt", mqtt)) if mqtt is not None else None,
        Target(*host_and_port("--https", https)) if https is not None else None,
    )
    if paths == Paths() and ports == Ports():
        raise ConfigError("nothing to look at: name the directory of a device's files, or --mqtt or --https HOST:PORT")
    gate = GateMachine(session.config, session.clock, configured=session.file is not None, keyring=keyring)
    checks = trio.run(examine, paths, ports, gate, session.clock.now_ms)
    if as_json:
        print_json(checks)
    else:
        _tell(checks)
    wrong = [check for check in checks if check.says is Says.WRONG]
    if wrong:
        others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CheckFailed(f"{wrong[0].check}: {wrong[0].finding}{others}")


def _paths(directory: Path | None, named: Paths) -> Paths:
    """What is named by itself stands before what is in the directory."""
    if directory is None:
        return named
    if not directory.is_dir():
        raise ConfigError(f"{directory} is no directory: name the one that `fleetgate device enroll` wrote")
    return Paths(*(mine or its for mine, its in zip(named, Paths.of_bundle(directory), strict=True)))


def _tell(checks: list[Check]) -> None:
    rows = [
        (check.check, check.says.upper() if check.says is Says.WRONG else check.says, check.what) for check in checks
    ]
    print_table(("check", "says", "what was found"), rows, empty="")
    for says, heading in ((Says.WRONG, "how to mend it"), (Says.CANNOT_TELL, "how to find out")):
        advice: dict[str, list[str]] = {}
        for check in checks:
            if check.says is says and check.mend:
                advice.setdefault(cell(check.mend), []).append(check.check)
        if advice:
            say(f"\n{heading}")
        for mend, names in advice.items():
            say_wrapped(f"{', '.join(dict.fromkeys(names))}: {mend}", indent="  ")
