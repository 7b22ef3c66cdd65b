"""`fleetgate judge`: one captured message before the judge, and the step that refuses it.

Decides options and output. The verdict is the judge's, on the device as `doctor.recall` finds it on this machine's
disks; nothing is claimed, and a running edge is not disturbed.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from fleetgate.cli.console_output import AsJson, cell, print_json, print_table, say, say_wrapped, show
from fleetgate.cli.session import session_of
from fleetgate.control.records import is_id
from fleetgate.control.roster import list_devices
from fleetgate.control.store import Store
from fleetgate.doctor.capture import Capture, read_capture
from fleetgate.errors import CheckFailed, ConfigError, NotFound

if TYPE_CHECKING:  # at run time it comes with the edge's own parts, which take half a second
    from fleetgate.doctor.message import Hearing


def judge(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="The envelope as received, or in hex or base64; - is standard input.")],
    device: Annotated[str, typer.Option(metavar="[TENANT/]DEVICE", help="Who sent it.")],
    tenant: Annotated[str | None, typer.Option(help="Tenant id, where two tenants have such a device.")] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="When it came: ISO 8601 or Unix ms; else now.")] = None,
    topic: Annotated[
        str | None, typer.Option(help="MQTT topic it was sent to; without it, it came over HTTPS.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge one captured message again and say which step refuses it, and why.

    Uses the records, the keyring and the replay windows of this machine. Claims nothing, stores nothing, scores nobody.
    """
    from fleetgate.doctor.message import hear

    session = session_of(context)
    config, clock = session.config, session.clock
    capture = _capture(file)
    at_ms = _time(at) if at is not None else None
    with Store.open(config, clock) as store:
        key = _key(store, device, tenant)
    hearing = hear(config, clock, key, capture, topic.encode() if topic is not None else None, at_ms)
    if as_json:
        print_json(hearing)
    else:
        _tell(hearing)
    if hearing.reason is not None:
        raise CheckFailed(f"the gate refuses it at step {hearing.step}: {hearing.reason}")


def _capture(file: str) -> Capture:
    """Raises ConfigError."""
    if file == "-":
        return read_capture(sys.stdin.buffer, "standard input")
    try:
        with open(file, "rb") as content:
            return read_capture(content, file)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None


def _key(store: Store, device: str, tenant: str | None) -> tuple[str, str]:
    """Tenant and device id. Raises ConfigError, NotFound."""
    before, slash, device_id = device.rpartition("/")
    tenant = before if slash else tenant
    if not is_id(device_id) or (tenant is not None and not is_id(tenant)):
        raise ConfigError(f"--device {device!r}: it must be DEVICE or TENANT/DEVICE, such as acme/car-7-tcu")
    if tenant is not None:
        return tenant, device_id
    tenants = [found.tenant for found in list_devices(store) if found.device_id == device_id]
    if len(tenants) != 1:
        who = f"of {', '.join(tenants)}" if tenants else "in the records"
        raise NotFound(
            f"there is {'more than one' if tenants else 'no'} device {device_id} {who}: name it as TENANT/DEVICE"
        )
    return tenants[0], device_id


def _time(text: str) -> int:
    """Unix ms. Raises ConfigError."""
    try:
        if text.isdecimal():
            return int(text[:15])
        time = datetime.fromisoformat(text)
        return int((time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ConfigError(f"--at {text!r}: write a time such as 2026-11-29T12:00:00Z, or Unix milliseconds") from None


def _tell(hearing: Hearing) -> None:
    at = show("at_ms", hearing.judged_at_ms)
    who = f"{hearing.device_id} of {hearing.tenant}"
    say_wrapped(f"{hearing.bytes} bytes from {who} ({hearing.form}), judged as of {at}", indent="")
    say("")
    rows = [
        (step.number, step.step, step.result.upper() if step.number == hearing.step else step.result, step.what)
        for step in hearing.steps
    ]
    print_table(("", "step", "says", "what was found"), rows, empty="")
    say("")
    flags = f", flags: {', '.join(hearing.flags)}" if hearing.flags else ""
    say(f"outcome: {hearing.outcome}{f', {hearing.reason}' if hearing.reason else ''}{flags}")
    for note in hearing.notes:
        say_wrapped(cell(f"note: {note}"), indent="")
