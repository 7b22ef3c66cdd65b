"""Quarantine on record: which state may follow which, and what becomes of a transition or a decision.

Decides the two transition tables and their order: a machine puts a device under watch or into quarantine, only a
person lets it out or bans it, and a person's decision outlives every transition of an earlier time. When a score is
high enough is decided by the edge; what happens to held messages, by load.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Any

from sqlalchemy import Row, and_, insert, select, update

from fleetgate.control.reason import check_reason
from fleetgate.control.records import DeviceState, DeviceStatus
from fleetgate.control.roster import device_is, unknown_device
from fleetgate.control.schema import decisions, devices, quarantine_cases, transitions_applied
from fleetgate.control.store import TRANSITION, Store, Write
from fleetgate.errors import ConfigError, Conflict, NotFound

LOADER = "load"  # the actor in the audit of what the edge's transitions did


class Decision(StrEnum):
    RELEASE = "release"
    BAN = "ban"


class Classification(StrEnum):
    """What a person found out about the device."""

    BENIGN = "benign"  # it did what it was held for, and that is harmless
    FALSE_POSITIVE = "false_positive"  # it did not
    CONFIRMED = "confirmed"


class Outcome(StrEnum):
    """What became of a transition that the edge recorded."""

    APPLIED = "applied"
    REPEATED = "repeated"  # the same record was applied before
    OVERTAKEN = "overtaken"  # a person decided after it
    NOT_POSSIBLE = "not_possible"  # no machine may make this step from where the device is now
    UNKNOWN_DEVICE = "unknown_device"  # these records do not have it (restored from an older copy)


_STATE = DeviceState
BY_MACHINE = MappingProxyType(
    {
        _STATE.TRUSTED: frozenset({_STATE.WATCHED, _STATE.QUARANTINED}),
        _STATE.WATCHED: frozenset({_STATE.TRUSTED, _STATE.QUARANTINED}),
        _STATE.RELEASED: frozenset({_STATE.TRUSTED, _STATE.WATCHED, _STATE.QUARANTINED}),
        _STATE.QUARANTINED: frozenset[DeviceState](),
        _STATE.BANNED: frozenset[DeviceState](),
    }
)
"""From each state, where a score may move a device."""

BY_PERSON = MappingProxyType(
    {
        Decision.RELEASE: (
            frozenset({_STATE.WATCHED, _STATE.QUARANTINED, _STATE.BANNED}),
            _STATE.RELEASED,
            frozenset(Classification),
        ),
        Decision.BAN: (
            frozenset({_STATE.TRUSTED, _STATE.WATCHED, _STATE.QUARANTINED, _STATE.RELEASED}),
            _STATE.BANNED,
            frozenset({Classification.CONFIRMED}),
        ),
    }
)
"""For each decision: from which states, into which, and what the person must have found. A device that was confirmed
bad and then mended may be released; one that was found harmless is not banned."""


def apply_transition(
    store: Store,
    spool: str,
    segment: int,
    offset: int,
    tenant: str,
    device_id: str,
    before: str,
    after: str,
    at_ms: int,
    why: str,
    score: float,
    policy_version: str,
) -> Outcome:
    """Applies one `transition` record of a spool, once; says what became of it.

    `spool` is the spool's identity in hex, `offset` that of the record in its segment, `before` and `after` states as
    the edge knew them. Never raises for what the record says, so that no record can stop the loader. Raises
    ControlAway.
    """
    with store.write(LOADER) as write:
        seen = and_(
            transitions_applied.c.spool == spool,
            transitions_applied.c.segment == segment,
            transitions_applied.c.record_offset == offset,
        )
        if write.row(select(transitions_applied).where(seen)) is not None:
            return Outcome.REPEATED
        outcome = _outcome(write, tenant, device_id, after, at_ms)
        values = {"spool": spool, "segment": segment, "record_offset": offset, "applied_at_ms": write.now_ms}
        write.execute(insert(transitions_applied), values | {"outcome": outcome})
        if outcome is Outcome.APPLIED:
            write.execute(
                update(devices).where(device_is(devices, tenant, device_id)).values(state=after, state_at_ms=at_ms)
            )
            _note_in_case(write, tenant, device_id, after, at_ms, why, score, policy_version)
        detail = {"before": before, "after": after, "why": why, "score": score, "at_ms": at_ms}
        origin = {"spool": spool, "segment": segment, "offset": offset, "policy_version": policy_version}
        write.record(TRANSITION, tenant, device_id, detail | origin | {"outcome": outcome})
    return outcome


def quarantine_for(
    write: Write, tenant: str, device_id: str, why: str, detail: dict[str, Any], policy_version: str
) -> None:
    """Puts a device into quarantine for what the records themselves show, and opens its case; no score led there.

    Where no machine may take that step (it is in quarantine, or banned), only the audit says that it was seen again.
    """
    device = write.row(select(devices).where(device_is(devices, tenant, device_id)))
    if device is None:
        raise NotFound(unknown_device(tenant, device_id))
    possible = DeviceState.QUARANTINED in BY_MACHINE[DeviceState(device.state)]
    if possible:
        # Always newer than what an edge said, as a person's decision is.
        at_ms = max(write.now_ms, device.state_at_ms + 1)
        values = {"state": DeviceState.QUARANTINED, "state_at_ms": at_ms}
        write.execute(update(devices).where(device_is(devices, tenant, device_id)).values(values))
        _note_in_case(write, tenant, device_id, DeviceState.QUARANTINED, at_ms, why, 0.0, policy_version)
    outcome = Outcome.APPLIED if possible else Outcome.NOT_POSSIBLE
    facts = {"before": device.state, "after": DeviceState.QUARANTINED, "why": why, "outcome": outcome}
    write.record(TRANSITION, tenant, device_id, facts | detail)


def decide(
    store: Store,
    tenant: str,
    device_id: str,
    decision: Decision,
    classification: Classification,
    actor: str,
    reason: str,
) -> DeviceState:
    """Records a person's decision and closes the device's open case; returns the new state.

    Raises NotFound for an unknown device, Conflict where the device is not in a state that this decision ends,
    ConfigError without a reason, and where the finding contradicts the decision.
    """
    check_reason(reason)
    possible, after, findings = BY_PERSON[decision]
    if classification not in findings:
        allowed = " or ".join(sorted(findings))
        raise ConfigError(f"{decision} goes with the classification {allowed}, not with {classification}")
    with store.write(actor) as write:
        device = write.row(select(devices).where(device_is(devices, tenant, device_id)))
        if device is None:
            raise NotFound(unknown_device(tenant, device_id))
        if device.state not in possible:
            raise Conflict(f"device {device_id} of tenant {tenant} is {device.state}: there is nothing to {decision}")
        case = _open_case(write, tenant, device_id)
        write.execute(
            insert(decisions),
            {
                "tenant": tenant,
                "device_id": device_id,
                "case_id": case.case_id if case is not None else None,
                "at_ms": max(write.now_ms, device.state_at_ms + 1),
                "decision": decision,
                "classification": classification,
                "actor": actor,
                "comment": reason,
            },
        )
        if case is not None:
            closed = update(quarantine_cases).where(quarantine_cases.c.case_id == case.case_id)
            write.execute(closed.values(closed_at_ms=write.now_ms, updated_at_ms=write.now_ms))
        # Always newer than what an edge said, even if that edge's clock is ahead: edges take over the newer of two.
        at_ms = max(write.now_ms, device.state_at_ms + 1)
        values = {"state": after, "state_at_ms": at_ms} | _status_after(decision, device.status)
        write.execute(update(devices).where(device_is(devices, tenant, device_id)).values(values))
        detail = {"before": device.state, "classification": classification, "comment": reason}
        write.record(decision, tenant, device_id, detail)
    return after


def _status_after(decision: Decision, status: str) -> dict[str, Any]:
    """A ban also keeps the device out; a release lifts that ban, and only that: who is suspended stays so."""
    match decision, status:
        case Decision.BAN, DeviceStatus.ACTIVE:
            return {"status": DeviceStatus.BANNED}
        case Decision.RELEASE, DeviceStatus.BANNED:
            return {"status": DeviceStatus.ACTIVE}
        case _:
            return {}


def _outcome(write: Write, tenant: str, device_id: str, after: str, at_ms: int) -> Outcome:
    device = write.row(select(devices).where(device_is(devices, tenant, device_id)))
    if device is None:
        return Outcome.UNKNOWN_DEVICE
    later = select(decisions).where(device_is(decisions, tenant, device_id), decisions.c.at_ms >= at_ms).limit(1)
    if write.row(later) is not None:
        return Outcome.OVERTAKEN
    possible = BY_MACHINE[DeviceState(device.state)]
    return Outcome.APPLIED if after in possible else Outcome.NOT_POSSIBLE


def _open_case(write: Write, tenant: str, device_id: str) -> Row[Any] | None:
    cases = quarantine_cases
    return write.row(select(cases).where(device_is(cases, tenant, device_id), cases.c.closed_at_ms.is_(None)))


def _note_in_case(
    write: Write, tenant: str, device_id: str, after: str, at_ms: int, why: str, score: float, policy_version: str
) -> None:
    """A device that goes into quarantine gets a case; an open one tells the latest that was seen."""
    told = {"updated_at_ms": at_ms, "why": why, "score": score, "policy_version": policy_version}
    case = _open_case(write, tenant, device_id)
    if case is not None:
        write.execute(update(quarantine_cases).where(quarantine_cases.c.case_id == case.case_id).values(told))
    elif after == DeviceState.QUARANTINED:
        values = {"tenant": tenant, "device_id": device_id, "opened_at_ms": at_ms}
        write.execute(insert(quarantine_cases), values | told)
