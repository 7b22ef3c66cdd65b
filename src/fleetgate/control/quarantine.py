"""Quarantine on record: what is written of a transition or a decision, once, with its case and its line in the audit.

Which state may follow which, and what stands where two views of a device differ, is decided by `control.states`; when
a score is high enough, by the edge; what a case says, by `control.casenotes`; what happens to held messages, by load.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, and_, insert, select, update

from fleetgate.control.casenotes import Transition, case_of_ban, note_holding, note_in_case, note_more, open_case
from fleetgate.control.cases import CaseSummary
from fleetgate.control.reason import check_reason
from fleetgate.control.records import DeviceState, DeviceStatus
from fleetgate.control.roster import device_is, unknown_device
from fleetgate.control.schema import decisions, devices, quarantine_cases, transitions_applied
from fleetgate.control.states import BY_PERSON, Classification, Decision, Outcome, View, decided, step
from fleetgate.control.store import PAUSE_SECONDS, TRANSITION, Store, Write
from fleetgate.errors import ConfigError, Conflict, NotFound

BATCH: Final = 100  # releases in one transaction, which holds the database for some 0.2 s
LOADER = "load"  # the actor in the audit of what the edge's transitions did


class Origin(NamedTuple):
    """Where a record stands: the identity of its spool in hex, its segment, its offset there."""

    spool: str
    segment: int
    offset: int


def apply_transition(store: Store, origin: Origin, one: Transition) -> Outcome:
    """Applies one `transition` record of a spool, once; says what became of it.

    Never raises for what the record says, so that no record can stop the loader. Raises ControlAway.
    """
    with store.write(LOADER) as write:
        seen = and_(
            transitions_applied.c.spool == origin.spool,
            transitions_applied.c.segment == origin.segment,
            transitions_applied.c.record_offset == origin.offset,
        )
        if write.row(select(transitions_applied).where(seen)) is not None:
            return Outcome.REPEATED
        outcome = _follow(write, one)
        values = {"spool": origin.spool, "segment": origin.segment, "record_offset": origin.offset}
        write.execute(insert(transitions_applied), values | {"applied_at_ms": write.now_ms, "outcome": outcome})
        if outcome is Outcome.APPLIED:
            note_in_case(write, one)
        elif one.after == DeviceState.QUARANTINED and outcome is not Outcome.UNKNOWN_DEVICE:
            note_holding(write, one)
            if outcome is Outcome.CONFIRMED:
                note_more(write, one)
        told = ("before", "after", "why", "score", "at_ms", "policy_version")
        detail = {name: getattr(one, name) for name in told} | origin._asdict()
        write.record(TRANSITION, one.tenant, one.device_id, detail | {"outcome": outcome})
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
    at_ms = max(write.now_ms, device.state_at_ms + 1)  # newer than what an edge said, as a person's decision is
    stands, outcome = step(_view(device), DeviceState.QUARANTINED, at_ms)
    if outcome is Outcome.APPLIED:
        _put(write, tenant, device_id, stands, {})
        one = Transition(
            tenant=tenant,
            device_id=device_id,
            before=device.state,
            after=DeviceState.QUARANTINED,
            at_ms=at_ms,
            received_at_ms=at_ms,
            why=why,
            score=0.0,
            policy_version=policy_version,
        )
        note_in_case(write, one)
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
    _check(decision, classification, reason)
    with store.write(actor) as write:
        return _decide(write, tenant, device_id, decision, classification, reason)


def release_cases(
    store: Store, cases: Sequence[CaseSummary], classification: Classification, actor: str, reason: str
) -> int:
    """Releases the devices of these cases as `decide` does, each with its line in the audit; of how many. A case that
    is not as it was when it was listed is left: somebody decided it meanwhile, or another signal came to it.

    A killed run has released some, and the next one releases the rest. Raises ConfigError as `decide` does.
    """
    _check(Decision.RELEASE, classification, reason)
    released = 0
    for start in range(0, len(cases), BATCH):
        if start:
            time.sleep(PAUSE_SECONDS)
        with store.write(actor) as write:
            for one in cases[start : start + BATCH]:
                case = open_case(write, one.tenant, one.device_id)
                if case is None or (case.case_id, case.why) != (one.case_id, one.why):
                    continue
                with suppress(Conflict):
                    _decide(write, one.tenant, one.device_id, Decision.RELEASE, classification, reason)
                    released += 1
    return released


def _check(decision: Decision, classification: Classification, reason: str) -> None:
    check_reason(reason)
    _, _, findings = BY_PERSON[decision]
    if classification not in findings:
        allowed = " or ".join(sorted(findings))
        raise ConfigError(f"{decision} goes with the classification {allowed}, not with {classification}")


def _decide(
    write: Write,
    tenant: str,
    device_id: str,
    decision: Decision,
    classification: Classification,
    reason: str,
) -> DeviceState:
    device = write.row(select(devices).where(device_is(devices, tenant, device_id)))
    if device is None:
        raise NotFound(unknown_device(tenant, device_id))
    if device.state not in BY_PERSON[decision][0]:
        raise Conflict(f"device {device_id} of tenant {tenant} is {device.state}: there is nothing to {decision}")
    case = open_case(write, tenant, device_id)
    about = case.case_id if case is not None else case_of_ban(write, tenant, device_id, device.state)
    stands = decided(_view(device), decision, write.now_ms)
    write.execute(
        insert(decisions),
        {
            "tenant": tenant,
            "device_id": device_id,
            "case_id": about,
            "at_ms": stands.at_ms,
            "decision": decision,
            "classification": classification,
            "actor": write.actor,
            "comment": reason,
        },
    )
    if case is not None:
        closed = update(quarantine_cases).where(quarantine_cases.c.case_id == case.case_id)
        write.execute(closed.values(closed_at_ms=write.now_ms, updated_at_ms=write.now_ms))
    _put(write, tenant, device_id, stands, _status_after(decision, device.status))
    detail = {"before": device.state, "classification": classification, "comment": reason}
    write.record(decision, tenant, device_id, detail)
    return stands.state


def _status_after(decision: Decision, status: str) -> dict[str, Any]:
    """A ban also keeps the device out; a release lifts that ban, and only that: who is suspended stays so."""
    match decision, status:
        case Decision.BAN, DeviceStatus.ACTIVE:
            return {"status": DeviceStatus.BANNED}
        case Decision.RELEASE, DeviceStatus.BANNED:
            return {"status": DeviceStatus.ACTIVE}
        case _:
            return {}


def _follow(write: Write, one: Transition) -> Outcome:
    device = write.row(select(devices).where(device_is(devices, one.tenant, one.device_id)))
    if device is None:
        return Outcome.UNKNOWN_DEVICE
    try:
        state = DeviceState(one.after)
    except ValueError:  # a word of another version
        return Outcome.NOT_POSSIBLE
    stands, outcome = step(_view(device), state, one.at_ms)
    _put(write, one.tenant, one.device_id, stands, {})
    return outcome


def _view(device: Row[Any]) -> View:
    return View(DeviceState(device.state), device.state_at_ms, device.decided_at_ms)


def _put(write: Write, tenant: str, device_id: str, view: View, more: dict[str, Any]) -> None:
    standing = {"state": view.state, "state_at_ms": view.at_ms, "decided_at_ms": view.decided_ms}
    write.execute(update(devices).where(device_is(devices, tenant, device_id)).values(standing | more))
