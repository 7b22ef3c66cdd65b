"""One captured message before the judge: which step refuses it, and why, with what was expected and what was found.

The verdict is `fleetgate.judge`'s own, on the device as `recall` has it; here it is told, each step with its evidence
(`evidence`). Nothing is claimed, stored or scored.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

from fleetgate.accept.known import Key
from fleetgate.catalogue import catalogue
from fleetgate.clock import Clock
from fleetgate.config import Config
from fleetgate.control.keyring import Keyring
from fleetgate.control.roster import certificates_of, show_device
from fleetgate.control.store import Store
from fleetgate.doctor import evidence
from fleetgate.doctor.capture import Capture
from fleetgate.doctor.evidence import Case
from fleetgate.doctor.recall import recall
from fleetgate.errors import NotFound
from fleetgate.judge import Flag, Outcome, Policy, Reason, Verdict, judge
from fleetgate.judge.envelope import open_envelope
from fleetgate.judge.verdict import STEP_OF, Reject

MAX_MQTT_BYTES = 68 * 1024  # the Maximum Packet Size of CONNACK


class Result(StrEnum):
    OK = "ok"
    REFUSED = "refused"
    NOT_REACHED = "not reached"


class Step(Struct, frozen=True):
    """A numbered step of the judge; `what` was found and expected there."""

    number: int
    step: str
    result: Result
    what: str


class Hearing(Struct, frozen=True):
    """What the gate would say of the message at `judged_at_ms`; `notes` say what this does not take into account."""

    tenant: str
    device_id: str
    bytes: int
    form: str
    judged_at_ms: int
    outcome: str
    reason: Reason | None
    step: int | None
    flags: list[str]
    steps: list[Step]
    notes: list[str]


_STEPS: dict[int, tuple[str, Callable[[Case, Verdict], str]]] = {
    1: ("envelope", evidence.of_envelope),
    2: ("identity", evidence.of_identity),
    3: ("MAC", evidence.of_mac),
    4: ("freshness", evidence.of_freshness),
    5: ("sequence", evidence.of_sequence),
    6: ("body", evidence.of_body),
}


def hear(
    config: Config, clock: Clock, key: Key, capture: Capture, topic: bytes | None = None, at_ms: int | None = None
) -> Hearing:
    """Has the message of this device (tenant, device id) judged as of `at_ms`, by default now; `topic` is None for one
    that came over HTTPS. Never raises for anything in the message.

    Raises ConfigError without a keyring, ControlAway without records, SpoolError for a spool that cannot be read.
    """
    now_ms = at_ms if at_ms is not None else clock.now_ms()
    path = config.path(config.edge.keyring)
    keyring, roots = Keyring.load(path), Keyring.proving_roots(path)
    with Store.open(config, clock) as store:
        recalled = recall(config, clock, keyring, store, key)
        try:
            detail = show_device(store, *key)
        except NotFound:
            detail = None
        certificates = certificates_of(store, *key)
    peer = recalled.peer(now_ms, json_allowed=topic is None)
    active = [kid for kid, root in sorted(keyring.roots.items()) if root is not None]
    case = Case(key, capture, topic, now_ms, recalled, peer, detail, roots, active, certificates)
    notes = _notes(case, at_another_time=at_ms is not None, crls=bool(config.crls))
    return _told(case, config.policy.version, notes)


def _told(case: Case, policy_version: str, notes: list[str]) -> Hearing:
    policy = Policy(policy_version, catalogue().bodies, fence_ms=case.recalled.fence_ms)
    verdict = _judged(case, policy)
    refused_at = STEP_OF[verdict.reason] if verdict.reason is not None else None
    last = refused_at or (5 if verdict.outcome is Outcome.DUPLICATE else 6)
    steps = []
    for number, (name, tell) in _STEPS.items():
        if number > last:
            steps.append(Step(number, name, Result.NOT_REACHED, ""))
        else:
            result = Result.REFUSED if number == refused_at else Result.OK
            steps.append(Step(number, name, result, tell(case, verdict)))
    return Hearing(
        *case.key,
        len(case.capture.raw),
        case.capture.form,
        case.now_ms,
        verdict.outcome.name.lower(),
        verdict.reason,
        refused_at,
        [flag.name.lower() for flag in Flag if flag & verdict.flags and flag.name],
        steps,
        [*case.recalled.notes, *notes],
    )


def _judged(case: Case, policy: Policy) -> Verdict:
    """The judge's verdict. Of a device without a credential in the records it is never asked: the edge refuses before
    it, but not before the envelope could be opened."""
    if case.peer is not None:
        return judge(case.capture.raw, case.peer, case.now_ms, policy, case.topic)
    try:
        envelope = open_envelope(case.capture.raw, case.json_allowed)
    except Reject as refusal:
        return Verdict(Outcome.REJECTED, refusal.reason, 0, None, None, 0, False)
    return Verdict(Outcome.REJECTED, Reason.UNKNOWN_DEVICE, 0, envelope, None, 0, False)


def _notes(case: Case, *, at_another_time: bool, crls: bool) -> list[str]:
    notes = []
    if at_another_time:
        notes.append("records, keys and replay windows are those of now, not of that time")
    if case.topic is not None and len(case.capture.raw) > MAX_MQTT_BYTES:
        notes.append(f"over MQTT it is refused before the judge: oversized, more than {MAX_MQTT_BYTES} bytes")
    if crls:
        notes.append("revocation lists are not looked at here: `fleetgate doctor` does")
    known = case.recalled.known
    if known is not None and known.record.credentials and known.record.credentials[0].not_after_ms < case.now_ms:
        notes.append("the device's certificate has expired by then: TLS refuses it before any message")
    return notes
