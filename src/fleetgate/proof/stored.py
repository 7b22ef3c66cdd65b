"""What is stored of one message, and the form of an answer about it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from msgspec import Struct

from fleetgate.control.heads import Hex16, Hex32
from fleetgate.converting import converter
from fleetgate.errors import CheckFailed
from fleetgate.load.clickhouse import ClickHouse


class Name(NamedTuple):
    """Which message."""

    tenant: str
    device_id: str
    epoch: int
    seq: int


class Step(Struct, frozen=True):
    """`holds` is None where the step could not be made; `what` says why."""

    step: str
    holds: bool | None
    what: str


_RAW = """
SELECT vehicle_id, outcome, toUnixTimestamp64Milli(sent_at) AS sent_at_ms,
       toUnixTimestamp64Milli(received_at) AS received_at_ms, flags, events, hex(envelope) AS raw, key_id, key_digest,
       certificate_fingerprint, transport, address, edge_id, spool, segment, record_offset
FROM raw_messages
WHERE tenant = {tenant:String} AND device_id = {device:String} AND epoch = {epoch:UInt32} AND seq = {seq:UInt64}
ORDER BY received_at, spool, segment, record_offset
"""


class Raw(Struct, frozen=True):
    """A row of raw_messages; `raw` is the envelope in hex."""

    vehicle_id: str
    outcome: str
    sent_at_ms: int
    received_at_ms: int
    flags: int
    events: int
    raw: str
    key_id: int
    key_digest: Hex32
    certificate_fingerprint: Hex32
    transport: str
    address: str
    edge_id: str
    spool: Hex16
    segment: int
    record_offset: int


def raw_messages(clickhouse: ClickHouse, name: Name) -> tuple[list[Raw], list[str]]:
    """And of each row that load cannot have written what is wrong. Raises ClickHouseAway; CheckFailed where all are
    such rows."""
    found, bad = [], []
    for row in clickhouse.rows(_RAW, parameters_of(name)):
        try:
            raw = dict(zip(Raw.__struct_fields__, row, strict=True))
            found.append(_raw(raw))
        except msgspec.ValidationError as error:
            bad.append(f"a row of raw_messages is not what load writes: {error}")
    if bad and not found:
        raise CheckFailed(bad[0])
    return found, bad


def parameters_of(name: Name) -> dict[str, str | int]:
    return {"tenant": name.tenant, "device": name.device_id, "epoch": name.epoch, "seq": name.seq}


_raw = converter(Raw, strict=False)
