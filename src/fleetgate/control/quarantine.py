"""Quarantine on record: what is written of a transition or a decision, once, with its case and its line in the audit.

Which state may follow which, and what stands where two views of a device differ, is decided by `control.states`; when
a score is high enough, by the edge; what happens to held messages, by load.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from msgspec import Struct
from sqlalchemy import Row, and_, insert, select, update

from fleetgate.control.cases import CaseSummary
from fleetgate.control.reason import check_reason
from fleetgate.control.records import DeviceState, DeviceStatus
from fleetgate.control.roster import device_is, unknown_device
from fleetgate.control.schema import decisions, devices, quarantine_cases, transitions_applied
from fleetgate.control.states import BY_PERSON, Classification, Decision, Outcome, View, decided, step
from fleetgate.control.store import PAUSE_SECONDS, TRANSITION, Store, Write
from fleetgate.errors import ConfigError, Conflict, NotFound
from fleetgate.scoring import SIGNALS, listed, listed_in

BATCH: Final = 100  # releases in one transaction, which holds the database for some 0.2 s
LOADER = "load"  # the actor in the audit of what the edge's transitions did


class Origin(NamedTuple):
    """Where a record stands: the identity of its spool in hex, its segment, its offset there."""

    spool: str
    segment: int
    offset: int


class Transition(Struct, frozen=True, kw_only=True):
    """A change of a device's state at `at_ms`; `before` and `after` as the edge knew them. A case begins with
    `received_at_ms`, by the edge's clock, as what it holds is told by that."""

    tenant: str
    device_id: str
    before: str
    after: str
    at_ms: int
    received_at_ms: int
    why: str
    score: float
    policy_version: str


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
            _note_in_case(write, one)
        elif one.after == DeviceState.QUARANTINED and outcome is not Outcome.UNKNOWN_DEVICE:
            _note_holding(write, one)
            if outcome is Outcome.CONFIRMED:
                _note_more(write, one)
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
        _note_in_case(write, one)
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
                case = _open_case(write, one.tenant, one.device_id)
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
    case = _open_case(write, tenant, device_id)
    about = case.case_id if case is not None else _case_of_ban(write, tenant, device_id, device.state)
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


def _open_case(write: Write, tenant: str, device_id: str) -> Row[Any] | None:
    cases = quarantine_cases
    return write.row(select(cases).where(device_is(cases, tenant, device_id), cases.c.closed_at_ms.is_(None)))


def _case_of_ban(write: Write, tenant: str, device_id: str, state: str) -> int | None:
    """The case that the ban was about which a release lifts: what was held for it is given back or kept by that."""
    if state != DeviceState.BANNED:
        return None
    taken = _decisions(write, tenant, device_id)
    return taken[-1].case_id if taken else None


def _decisions(write: Write, tenant: str, device_id: str) -> Sequence[Row[Any]]:
    """What people decided about the device so far, in that order."""
    return write.rows(
        select(decisions).where(device_is(decisions, tenant, device_id)).order_by(decisions.c.decision_id)
    )


def _note_holding(write: Write, one: Transition) -> None:
    """An edge held messages for a quarantine that another had begun already or a person has ended since, or behind a
    ban that it had not heard of: the case says since when, as a release gives back what was held for it
    (`control.releases`)."""
    cases, this = quarantine_cases, (one.tenant, one.device_id)
    ended = _ended_by(write, one)
    case = _open_case(write, *this)
    known = ended or ([case] if case is not None else [])
    case_id = next((row.case_id for row in known if row.case_id is not None), None)
    if case_id is not None:
        earlier = and_(cases.c.case_id == case_id, cases.c.opened_at_ms > one.received_at_ms)
        write.execute(update(cases).where(earlier).values(opened_at_ms=one.received_at_ms))
    elif ended:
        closed_at_ms = max(ended[0].at_ms, one.received_at_ms)  # a ban may be earlier than what was held behind it
        write.execute(insert(cases), _new_case(one) | {"closed_at_ms": closed_at_ms})
        newest = write.row(select(cases).where(device_is(cases, *this)).order_by(cases.c.case_id.desc()))
        assert newest is not None  # it was written in this transaction
        about = update(decisions).where(decisions.c.decision_id.in_([decision.decision_id for decision in ended]))
        write.execute(about.values(case_id=newest.case_id))


def _ended_by(write: Write, one: Transition) -> list[Row[Any]]:
    """What a person decided first of all that ends this quarantine. A ban and the release that lifted it count as one,
    in force until then: they are about the same case, in whatever order edges and people were heard."""
    found: list[list[Row[Any]]] = []
    for decision in _decisions(write, one.tenant, one.device_id):
        if found and found[-1][-1].decision == Decision.BAN:
            found[-1].append(decision)
        else:
            found.append([decision])
    ends = (these for these in found if these[-1].decision == Decision.BAN or these[-1].at_ms >= one.at_ms)
    return next(ends, [])


def _note_more(write: Write, one: Transition) -> None:
    """Another edge put the device there too, or the same one has found out more since: its case names the signals of
    both, for whoever forgives one is to know of the others."""
    case = _open_case(write, one.tenant, one.device_id)
    if case is None:
        return
    named = listed_in(case.why)
    # What is told again may say that in words, where no signal is left.
    more = [signal for signal in listed_in(one.why) if signal in SIGNALS and signal not in named]
    if more:
        seen = _seen(one) | {"updated_at_ms": write.now_ms, "why": listed(named + more)}
        write.execute(update(quarantine_cases).where(quarantine_cases.c.case_id == case.case_id).values(seen))


def _note_in_case(write: Write, one: Transition) -> None:
    """A device that goes into quarantine gets a case, which begins with what may be held for it; an open one tells the
    latest that was seen."""
    case = _open_case(write, one.tenant, one.device_id)
    if case is not None:
        this = update(quarantine_cases).where(quarantine_cases.c.case_id == case.case_id)
        write.execute(this.values(_seen(one)))
    elif one.after == DeviceState.QUARANTINED:
        write.execute(insert(quarantine_cases), _new_case(one))


def _new_case(one: Transition) -> dict[str, Any]:
    return {"tenant": one.tenant, "device_id": one.device_id, "opened_at_ms": one.received_at_ms, **_seen(one)}


def _seen(one: Transition) -> dict[str, Any]:
    """The columns of a case that tell the latest."""
    return {"updated_at_ms": one.at_ms, "why": one.why, "score": one.score, "policy_version": one.policy_version}
