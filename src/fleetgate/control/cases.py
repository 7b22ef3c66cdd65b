"""What a person gets to see of quarantine: the cases, and one device's case file.

Decides which time a case is about: from the end of the device's case before it, and at most a week before it was
opened, until it is closed or the latest decision was made, of a banned device until now; and which names a question
about cases may have. Only reads; who may change what is decided by `control.quarantine`. The samples are `evidence`'s,
the exact counts ClickHouse's (`load.casefile`).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, and_, func, select

from fleetgate.control.audit import AuditEntry, Unreadable, is_of, rows_of
from fleetgate.control.records import DeviceState
from fleetgate.control.releases import decision_name
from fleetgate.control.roster import device_is, unknown_device, unknown_tenant
from fleetgate.control.schema import audit, bindings, decisions, devices, quarantine_cases, tenants
from fleetgate.control.states import Classification, Decision
from fleetgate.control.store import TRANSITION, Store
from fleetgate.converting import converter
from fleetgate.errors import ConfigError, NotFound
from fleetgate.scoring import SIGNALS, listed_in

LEAD_MS = 7 * 24 * 3600 * 1000
"""How long before a case was opened what led to it may lie: seven times the longest half-life of a score."""

BAN = "ban"
CLONE_SIGN = "clone_sign"
"""What a case may be for that is no signal of a score: a person's ban, and two keys from one certificate."""


class CaseSummary(Struct, frozen=True):
    """A line of `quarantine list`. `state` is the device's now; `why` names the signals that keep it there, listed as
    `scoring` does; `closed_at_ms` is None while nobody decided. A ban of a device that had no case is one without a
    number, which begins and ends with it."""

    case_id: int | None
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


class TransitionDetail(Struct, frozen=True):
    """A change of state that an edge or the records made at `at_ms`; `outcome` is what became of it in the records."""

    at_ms: int
    before: str
    after: str
    why: str
    score: float | None
    policy_version: str | None
    outcome: str


class CaseFile(Struct, frozen=True):
    """What the records tell of one device: all its cases and the decisions on them, newest first; and the transitions,
    oldest first, of the time from `shown_from_ms` to `shown_to_ms` that its newest case is about, or its last week.
    `unreadable` are rows of the audit that may have been transitions of that time."""

    tenant: str
    device_id: str
    status: str
    state: str
    shown_from_ms: int
    shown_to_ms: int
    cases: list[CaseSummary]
    decisions: list[DecisionDetail]
    transitions: list[TransitionDetail]
    unreadable: list[Unreadable]


def list_cases(
    store: Store, tenant: str | None = None, *, why: str | None = None, closed: bool = False
) -> list[CaseSummary]:
    """The open cases, with `closed` all of them and the bans without one, newest first; only those of this tenant, and
    those whose `why` is this and nothing besides, where one is given."""
    conditions: list[ColumnElement[Any]] = [] if closed else [quarantine_cases.c.closed_at_ms.is_(None)]
    if tenant is not None:
        conditions.append(quarantine_cases.c.tenant == tenant)
    if why is not None:
        conditions.append(quarantine_cases.c.why == why)
    cases = _cases(store, *conditions)
    if not closed or why not in (None, BAN):
        return cases
    return sorted([*cases, *_bans_without_case(store, tenant)], key=lambda case: case.opened_at_ms, reverse=True)


def require_known(store: Store, tenant: str | None, why: str | None) -> None:
    """For whoever was told of no case: after a mistyped name that would read as if all were well.

    Raises NotFound for a tenant that never had a device, ConfigError where `why` names no signal and no case was ever
    for it.
    """
    if tenant is not None and not store.rows(select(tenants).where(tenants.c.tenant == tenant)):
        raise NotFound(unknown_tenant(tenant))
    if why is None or {*listed_in(why)} <= {*SIGNALS, CLONE_SIGN, BAN}:
        return
    if not store.rows(select(quarantine_cases).where(quarantine_cases.c.why == why).limit(1)):
        raise ConfigError(f"there is no signal {why or repr(why)}; the signals are {', '.join((*SIGNALS, CLONE_SIGN))}")


def show_case_file(store: Store, tenant: str, device_id: str, now_ms: int) -> CaseFile:
    """Raises NotFound for a device that is not in the records."""
    found = store.rows(select(devices).where(device_is(devices, tenant, device_id)))
    if not found:
        raise NotFound(unknown_device(tenant, device_id))
    taken = select(decisions).where(device_is(decisions, tenant, device_id))
    cases = _cases(store, device_is(quarantine_cases, tenant, device_id))
    rows = store.rows(taken.order_by(decisions.c.decision_id.desc()))
    banned = found[0].state == DeviceState.BANNED
    since_ms, until_ms = _time_of(cases, now_ms, now_ms if banned else rows[0].at_ms if rows else 0)
    transitions, unreadable = _transitions(store, tenant, device_id, since_ms)
    return CaseFile(
        tenant=tenant,
        device_id=device_id,
        status=found[0].status,
        state=found[0].state,
        shown_from_ms=since_ms,
        shown_to_ms=until_ms,
        cases=cases,
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
            for row in rows
        ],
        transitions=[found for found in transitions if since_ms <= found.at_ms <= until_ms],
        unreadable=unreadable,
    )


def found_harmless(store: Store, since_ms: int, before_ms: int) -> list[tuple[str, str, int]]:
    """(tenant, device id, when) of devices about which the last decision, between those times, was that they did no
    harm, and that have no open case. Raises ControlAway."""
    last = select(func.max(decisions.c.decision_id)).group_by(decisions.c.tenant, decisions.c.device_id)
    query = select(decisions.c.tenant, decisions.c.device_id, decisions.c.at_ms).where(
        decisions.c.decision_id.in_(last),
        decisions.c.classification.in_((Classification.BENIGN, Classification.FALSE_POSITIVE)),
        decisions.c.at_ms >= since_ms,
        decisions.c.at_ms < before_ms,
        ~select(quarantine_cases.c.case_id)
        .where(
            quarantine_cases.c.tenant == decisions.c.tenant,
            quarantine_cases.c.device_id == decisions.c.device_id,
            quarantine_cases.c.closed_at_ms.is_(None),
        )
        .exists(),
    )
    return [(row.tenant, row.device_id, row.at_ms) for row in store.rows(query)]


def _time_of(cases: list[CaseSummary], now_ms: int, decided_ms: int) -> tuple[int, int]:
    """What the newest of a device's cases is about, and what followed up to the last word about the device."""
    if not cases:
        return now_ms - LEAD_MS, now_ms
    newest, before = cases[0], cases[1] if len(cases) > 1 else None
    since_ms = max(newest.opened_at_ms - LEAD_MS, (before.closed_at_ms or 0) if before is not None else 0)
    return since_ms, now_ms if newest.closed_at_ms is None else max(newest.closed_at_ms, decided_ms)


def _transitions(
    store: Store, tenant: str, device_id: str, since_ms: int
) -> tuple[list[TransitionDetail], list[Unreadable]]:
    """As the audit has them: each is written there when load hands it on, which is never before it happened. A time
    that is no number is above every number for SQLite, so that a row with one is among them."""
    about = (audit.c.tenant == tenant, is_of(device_id), audit.c.action == TRANSITION, audit.c.at_ms >= since_ms)
    found: list[TransitionDetail] = []
    unreadable: list[Unreadable] = []
    for row in reversed(rows_of(store, *about)):
        told = _transition(row) if isinstance(row, AuditEntry) else row
        if isinstance(told, Unreadable):
            unreadable.append(told)
        else:
            found.append(told)
    return found, unreadable


def _transition(row: AuditEntry) -> TransitionDetail | Unreadable:
    told = {"at_ms": row.at_ms, "score": None, "policy_version": None} | row.detail
    try:
        return _transition_detail(told)
    except msgspec.ValidationError:
        return Unreadable(row.place)


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


def _bans_without_case(store: Store, tenant: str | None) -> list[CaseSummary]:
    device = and_(devices.c.tenant == decisions.c.tenant, devices.c.device_id == decisions.c.device_id)
    binding = and_(
        bindings.c.tenant == decisions.c.tenant,
        bindings.c.device_id == decisions.c.device_id,
        bindings.c.to_ms.is_(None),
    )
    query = select(decisions, devices.c.state, bindings.c.vehicle_id).join(devices, device).outerjoin(bindings, binding)
    query = query.where(decisions.c.decision == Decision.BAN, decisions.c.case_id.is_(None))
    return [
        CaseSummary(
            case_id=None,
            tenant=row.tenant,
            device_id=row.device_id,
            vehicle_id=row.vehicle_id,
            state=row.state,
            why=BAN,
            score=0.0,
            policy_version="",
            opened_at_ms=row.at_ms,
            updated_at_ms=row.at_ms,
            closed_at_ms=row.at_ms,
        )
        for row in store.rows(query if tenant is None else query.where(decisions.c.tenant == tenant))
    ]


_transition_detail = converter(TransitionDetail)
