"""What a person gets to see of quarantine: the cases, and one device's cases with the decisions on them.

Only reads; who may change what is decided by `control.quarantine`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, and_, select

from fleetgate.control.releases import decision_name
from fleetgate.control.roster import device_is, unknown_device
from fleetgate.control.schema import bindings, decisions, devices, quarantine_cases
from fleetgate.control.store import Store
from fleetgate.errors import NotFound


class CaseSummary(Struct, frozen=True):
    """A line of `quarantine list`. `state` is the device's now; `closed_at_ms` is None while nobody decided."""

    case_id: int
    tenant: str
    device_id: str
    vehicle_id: str | None
    state: str
    why: str
    score: float
    policy_version: str
    opened_at_ms: int
    updated_at_ms: int
    closed_at_ms: int | None


class DecisionDetail(Struct, frozen=True):
    """`name` is what stands in the column `decision` of an event that it released."""

    name: str
    case_id: int | None
    at_ms: int
    decision: str
    classification: str
    actor: str
    comment: str


class CaseFile(Struct, frozen=True):
    """What `quarantine show` tells of one device, newest first."""

    tenant: str
    device_id: str
    status: str
    state: str
    cases: list[CaseSummary]
    decisions: list[DecisionDetail]


def list_cases(store: Store, tenant: str | None = None, *, closed: bool = False) -> list[CaseSummary]:
    """The open cases, with `closed` all of them, newest first."""
    conditions: list[ColumnElement[Any]] = [] if closed else [quarantine_cases.c.closed_at_ms.is_(None)]
    if tenant is not None:
        conditions.append(quarantine_cases.c.tenant == tenant)
    return _cases(store, *conditions)


def show_case_file(store: Store, tenant: str, device_id: str) -> CaseFile:
    """Raises NotFound for a device that is not in the records."""
    found = store.rows(select(devices).where(device_is(devices, tenant, device_id)))
    if not found:
        raise NotFound(unknown_device(tenant, device_id))
    taken = select(decisions).where(device_is(decisions, tenant, device_id))
    return CaseFile(
        tenant=tenant,
        device_id=device_id,
        status=found[0].status,
        state=found[0].state,
        cases=_cases(store, device_is(quarantine_cases, tenant, device_id)),
        decisions=[
            DecisionDetail(
                decision_name(row.decision_id, row.at_ms),
                row.case_id,
                row.at_ms,
                row.decision,
                row.classification,
                row.actor,
                row.comment,
            )
            for row in store.rows(taken.order_by(decisions.c.decision_id.desc()))
        ],
    )


def _cases(store: Store, *conditions: ColumnElement[Any]) -> list[CaseSummary]:
    cases = quarantine_cases
    device = and_(devices.c.tenant == cases.c.tenant, devices.c.device_id == cases.c.device_id)
    binding = and_(
        bindings.c.tenant == cases.c.tenant,
        bindings.c.device_id == cases.c.device_id,
        bindings.c.to_ms.is_(None),
    )
    query = select(cases, devices.c.state, bindings.c.vehicle_id).join(devices, device).outerjoin(bindings, binding)
    return [
        CaseSummary(
            case_id=row.case_id,
            tenant=row.tenant,
            device_id=row.device_id,
            vehicle_id=row.vehicle_id,
            state=row.state,
            why=row.why,
            score=row.score,
            policy_version=row.policy_version,
            opened_at_ms=row.opened_at_ms,
            updated_at_ms=row.updated_at_ms,
            closed_at_ms=row.closed_at_ms,
        )
        for row in store.rows(query.where(*conditions).order_by(cases.c.case_id.desc()))
    ]
