"""What may happen to a device on record, as the tests of control do it and look at it.

`gate` is that of tests/unit/control/conftest.py; the device is car-tcu of acme unless another is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from fleetgate.control.devices import Enrolment, renew
from fleetgate.control.roster import CredentialDetail, show_device
from fleetgate.control.schema import audit

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

CAR = ("acme", "car-tcu")
HOUR_MS = 3_600_000


def do(gate: Gate, act: Any, *arguments: Any) -> Any:
    """`act` in a transaction of its own."""
    with gate.store.write("test") as write:
        return act(write, *arguments)


def renewed(gate: Gate) -> Enrolment:
    gate.clock.ms += 1000
    made: Enrolment = do(gate, renew, gate.authority, gate.keyring, *CAR)
    return made


def held(gate: Gate, device: str = "car-tcu") -> list[CredentialDetail]:
    """Its credentials, newest first."""
    return show_device(gate.store, "acme", device).credentials


def statuses(gate: Gate) -> list[str]:
    return [credential.status for credential in held(gate)]


def standing(gate: Gate, device: str = "car-tcu") -> str:
    return show_device(gate.store, "acme", device).standing


def actions(gate: Gate) -> list[str]:
    """The audit, oldest first."""
    rows = gate.store.rows(select(audit.c.action, audit.c.tenant, audit.c.object).order_by(audit.c.place))
    return [f"{row.action} {row.tenant} {row.object}" for row in rows]
