"""How the case file of a device reads: the records of control, ClickHouse's exact counts, and the samples of this edge.

Decides form, and that each of the three is told as far as it is to be had: without ClickHouse or without the samples
the rest is still shown, and what is missing is said.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from fleetgate.cli.console_output import cell, print_fields, print_records, print_table, say, show
from fleetgate.config import Config
from fleetgate.control.cases import CaseFile
from fleetgate.errors import CheckFailed, ClickHouseAway, ConfigError, FleetgateError, NotFound, SpoolError
from fleetgate.evidence.sample import Facts, Kept, Slot
from fleetgate.evidence.store import EvidenceError, read_samples

if TYPE_CHECKING:  # ClickHouse's libraries take half a second
    from fleetgate.load.casefile import Refusals, Told

SHOWN_SAMPLES = 8

_CASE = ("case_id", "why", "score", "policy_version", "opened_at_ms", "closed_at_ms")
_DECISION = ("name", "case_id", "at_ms", "decision", "classification", "actor", "comment")
_TRANSITION = ("at_ms", "before", "after", "why", "score", "policy_version", "outcome")
_SENT = ("software", "config", "outcome", "messages", "first_at_ms", "last_at_ms")


class Gathered(NamedTuple):
    """`told` or `samples` is None where it could not be had, and then `missing` says why."""

    file: CaseFile
    told: Told | None
    samples: list[Kept] | None
    missing: list[str]


def gather(config: Config, file: CaseFile) -> Gathered:
    """All that can be had for this case file."""
    from fleetgate.load.casefile import told_of

    told, samples, missing = None, None, []
    try:
        told = told_of(config, file.tenant, file.device_id, file.shown_from_ms, file.shown_to_ms)
    except (ClickHouseAway, CheckFailed, ConfigError) as error:
        missing.append(f"no exact counts now: {error}")
    try:
        samples = [
            sample
            for sample in samples_of(config, file.tenant, file.device_id)
            if file.shown_from_ms <= sample.at_ms <= file.shown_to_ms
        ]
    except FleetgateError as error:
        missing.append(f"no samples: {error}")
    return Gathered(file, told, samples, missing)


def samples_of(config: Config, tenant: str, device_id: str) -> list[Kept]:
    """Oldest first. Raises SpoolError."""
    try:
        return read_samples(config.path(config.evidence.directory), tenant, device_id)
    except EvidenceError as error:
        raise SpoolError(f"cannot read the evidence in {error}") from None


def sample_of(samples: list[Kept], number: int) -> Kept:
    """Raises NotFound."""
    for sample in samples:
        if sample.number == number:
            return sample
    raise NotFound(f"there is no sample {number} of this device: `fleetgate quarantine evidence` lists those there are")


def document(found: Gathered) -> dict[str, Any]:
    """For --json. Bytes of messages are in the export of the samples only."""
    samples = None if found.samples is None else [_without_bytes(sample) for sample in found.samples]
    told = found.told
    more = {
        "refusals": None if told is None else told.refusals,
        "sent": None if told is None else told.sent,
        "samples": samples,
        "missing": found.missing,
    }
    return msgspec.structs.asdict(found.file) | more


def tell(found: Gathered) -> None:
    file = found.file
    print_fields(file)
    for title, records, names in (
        ("cases", file.cases, _CASE),
        ("decisions", file.decisions, _DECISION),
        ("transitions", file.transitions, _TRANSITION),
    ):
        _title(title)
        print_records(records, names, empty=f"no {title}")
    for row in file.unreadable:
        say(str(row))
    if found.told is not None:
        _title("refused, exactly")
        kept = _count(found.samples or [])
        rows = [
            (
                told.reason,
                told.disorder or "-",
                told.refused,
                kept[told.reason, told.disorder],
                show("at_ms", told.first_at_ms),
                show("at_ms", told.last_at_ms),
                _from(told),
            )
            for told in found.told.refusals
        ]
        print_table(
            ("reason", "disorder", "refused", "samples", "first", "last", "from"), rows, empty="nothing was refused"
        )
        _title("taken")
        print_records(found.told.sent, _SENT, empty="nothing was taken")
    if found.samples is not None:
        _title("samples")
        tell_samples(found.samples[-SHOWN_SAMPLES:])
        if len(found.samples) > SHOWN_SAMPLES:
            say(f"the last {SHOWN_SAMPLES} of {len(found.samples)}; `fleetgate quarantine evidence` lists all")
    for sentence in found.missing:
        say("")
        say(cell(sentence))


_SIGNED_BY = {True: "device", False: "nobody", None: "not checked"}


def _what(facts: Facts) -> str:
    """Of a message for another device's topic, which."""
    return f"{facts.what}: {facts.topic}" if facts.what == "identity_mismatch" and facts.topic else facts.what


def tell_samples(samples: list[Kept]) -> None:
    rows = [
        (
            sample.number,
            show("at_ms", sample.at_ms),
            _what(sample.facts),
            sample.facts.disorder or "-",
            _SIGNED_BY[sample.facts.verified],
            sample.facts.key_id,
            sample.facts.epoch,
            sample.facts.seq,
            _place(sample.facts.slot),
            sample.size,
            sample.sha256.hex()[:12],
            f"{sample.facts.transport} {sample.facts.address}",
            sample.facts.state,
        )
        for sample in samples
    ]
    columns = ("number", "at", "what", "disorder", "signed by", "kid", "epoch", "seq", "its place", "bytes", "sha256")
    print_table((*columns, "from", "then"), rows, empty="no samples")


def export(sample: Kept) -> dict[str, Any]:
    """Everything of a sample; the bytes in base64."""
    return _without_bytes(sample) | {"raw": sample.raw}


def _without_bytes(sample: Kept) -> dict[str, Any]:
    facts = sample.facts
    return {
        "number": sample.number,
        "tenant": sample.tenant,
        "device_id": sample.device_id,
        "at_ms": sample.at_ms,
        **msgspec.structs.asdict(facts),
        "fingerprint": facts.fingerprint.hex(),
        "slot": None if facts.slot is None else msgspec.structs.asdict(facts.slot),
        "size": sample.size,
        "sha256": sample.sha256.hex(),
    }


def _place(slot: Slot | None) -> str:
    if slot is None:
        return "-"
    window = "" if slot.highest is None else f", highest {slot.highest}"
    return f"{slot.found} (device at epoch {slot.device_epoch}{window})"


def _from(told: Refusals) -> str:
    shown = len(told.addresses)
    more = f" ({shown} of {told.from_addresses})" if told.from_addresses > shown else ""
    return ", ".join(told.addresses) + more


def _count(samples: list[Kept]) -> Counter[tuple[str, str]]:
    return Counter((sample.facts.what, sample.facts.disorder) for sample in samples)


def _title(text: str) -> None:
    say("")
    say(text)
