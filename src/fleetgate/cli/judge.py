"""`fleetgate judge`: one captured message before the judge, and the step that refuses it.

Decides options and output. The verdict is the judge's, on the device as `doctor.recall` finds it on this machine's
disks; nothing is claimed, and a running edge is not disturbed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from fleetgate.cli.console_output import AsJson, cell, print_json, print_table, say, say_wrapped, show
from fleetgate.cli.session import session_of
from fleetgate.control.keyring import Keyring
from fleetgate.control.records import is_id
from fleetgate.control.roster import certificates_of, list_devices, show_device
from fleetgate.control.store import Store
from fleetgate.doctor.capture import read_capture
from fleetgate.doctor.evidence import Case
from fleetgate.doctor.message import Hearing, Result, hear
from fleetgate.doctor.recall import recall
from fleetgate.errors import CheckFailed, ConfigError, NotFound


def judge(
    context: typer.Context,
    file: Annotated[
        typer.FileBinaryRead,
        typer.Argument(help="The envelope as received, or in hex or base64; - reads standard input."),
    ],
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
    session = session_of(context)
    config, clock = session.config, session.clock
    capture = read_capture(file, file.name)
    now_ms = _time(at) if at is not None else clock.now_ms()
    path = config.path(config.edge.keyring)
    keyring, roots = Keyring.load(path), Keyring.proving_roots(path)
    with Store.open(config, clock) as store:
        key = _key(store, device, tenant)
        recalled = recall(config, clock, keyring, store, key)
        try:
            detail = show_device(store, *key)
        except NotFound:
            detail = None
        case = Case(
            key,
            capture,
            topic.encode() if topic is not None else None,
            now_ms,
            at is not None,
            recalled,
            recalled.peer(now_ms, json_allowed=topic is None),
            detail,
            roots,
            [kid for kid, root in sorted(keyring.roots.items()) if root is not None],
            certificates_of(store, *key),
        )
    hearing = hear(case, config)
    if as_json:
        print_json(hearing)
    else:
        _tell(hearing)
    if hearing.reason is not None:
        raise CheckFailed(f"the gate refuses it at step {hearing.step}: {hearing.reason}")


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
    say(cell(f"{hearing.bytes} bytes from {hearing.device_id} of {hearing.tenant} ({hearing.form}), judged as of {at}"))
    say("")
    rows = [
        (step.number, step.step, step.result.upper() if step.result is Result.REFUSED else step.result, step.what)
        for step in hearing.steps
    ]
    print_table(("", "step", "says", "what was found"), rows, empty="")
    say("")
    flags = f", flags: {', '.join(hearing.flags)}" if hearing.flags else ""
    say(f"outcome: {hearing.outcome}{f', {hearing.reason}' if hearing.reason else ''}{flags}")
    for note in hearing.notes:
        say_wrapped(cell(f"note: {note}"), indent="")
