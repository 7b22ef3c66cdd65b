"""What is noted of a transition in the case of its device: what was seen, and since when messages may be held for it.

Decides which case a transition is about, also where an edge took its step before it had heard of what another edge or a
person did. Which held events a decision on a case gives back is decided by `control.releases`; what becomes of the
device, by `control.quarantine`, in whose transaction this writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Row, and_, insert, select, update

from fleetgate.control.records import DeviceState
from fleetgate.control.roster import device_is
from fleetgate.control.schema import decisions, quarantine_cases
from fleetgate.control.states import Decision
from fleetgate.control.store import Write
from fleetgate.scoring import SIGNALS, listed, listed_in


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


def open_case(write: Write, tenant: str, device_id: str) -> Row[Any] | None:
    cases = quarantine_cases
    return write.row(select(cases).where(device_is(cases, tenant, device_id), cases.c.closed_at_ms.is_(None)))


def case_of_ban(write: Write, tenant: str, device_id: str, state: str) -> int | None:
    """The case that the ban was about which a release lifts: what was held for it is given back or kept by that."""
    if state != DeviceState.BANNED:
        return None
    taken = _decisions(write, tenant, device_id)
    return taken[-1].case_id if taken else None


def _decisions(write: Write, tenant: str, device_id: str) -> Sequence[Row[Any]]:
    """What people decided about the device so far, in that order."""
    taken = select(decisions).where(device_is(decisions, tenant, device_id))
    return write.rows(taken.order_by(decisions.c.decision_id))


def note_holding(write: Write, one: Transition) -> None:
    """An edge held messages for a quarantine that another had begun already or a person has ended since, or behind a
    ban that it had not heard of: the case says since when, as a release gives back what was held for it
    (`control.releases`)."""
    cases, this = quarantine_cases, (one.tenant, one.device_id)
    ended = _ended_by(write, one)
    case = open_case(write, *this)
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


def note_more(write: Write, one: Transition) -> None:
    """Another edge put the device there too, or the same one has found out more since: its case names the signals of
    both, for whoever forgives one is to know of the others."""
    case = open_case(write, one.tenant, one.device_id)
    if case is None:
        return
    named = listed_in(case.why)
    # What is told again may say that in words, where no signal is left.
    more = [signal for signal in listed_in(one.why) if signal in SIGNALS and signal not in named]
    if more:
        seen = _seen(one) | {"updated_at_ms": write.now_ms, "why": listed(named + more)}
        write.execute(update(quarantine_cases).where(quarantine_cases.c.case_id == case.case_id).values(seen))


def note_in_case(write: Write, one: Transition) -> None:
    """A device that goes into quarantine gets a case, which begins with what may be held for it; an open one tells the
    latest that was seen."""
    case = open_case(write, one.tenant, one.device_id)
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
