"""Step 3 of a proof: the rows that a message's signed bytes mean, and those that are stored, field by field.

Load's own code says what the bytes mean, so it says the same as when they were loaded; a signal that came into the
catalogue since is the one honest difference. Whose bytes they are is decided before, by `message.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from fleetgate.catalogue import Catalogue
from fleetgate.judge.verdict import Outcome
from fleetgate.load.clickhouse import ClickHouse
from fleetgate.load.columns import segment_rows
from fleetgate.load.rowshash import FORMS
from fleetgate.load.unknown import UnknownNames
from fleetgate.proof.stored import Name, Raw, Step, parameters_of
from fleetgate.spool.format import Header, PeerRecord
from fleetgate.spool.reader import Messages, Segment

SIGNED = frozenset(
    {
        *("epoch", "seq", "key_id", "schema_version", "sent_at", "event_time", "event_index", "kind", "software"),
        *("config", "signal_ids", "signal_values", "unknown_values", "texts", "tenant", "device_id"),
    }
)
"""Columns that follow from the signed bytes; the others are what edge and load noted beside them."""


def compare_rows(clickhouse: ClickHouse, name: Name, raw: Raw, catalogue: Catalogue) -> Step:
    table = "held_events" if raw.outcome == "held" else "events"
    known: dict[str, set[str]] = {name.tenant: set()}
    names = clickhouse.rows("SELECT name FROM unknown_names WHERE tenant = {tenant:String}", {"tenant": name.tenant})
    known[name.tenant].update(str(row[0]) for row in names)
    try:
        stored = _stored(clickhouse, table, name, "=")
        released = _stored(clickhouse, "events", name, "!=")
    except UnicodeDecodeError:
        return Step("rows", False, "there is text in the rows of this message that is not UTF-8: load writes none")
    policy = str(stored[0]["policy_version"]) if stored else ""
    segment = _as_segment(name, raw, policy)
    opened = segment_rows(segment, catalogue, UnknownNames(known))
    meant = [row for part in opened.rows if part.table == table for row in _plain(part.rows, table)]
    if opened.undecodable or not meant:
        return Step("rows", False, "the signed bytes have no events in them that load could have read")
    wrong = _difference(raw, table, stored, meant)
    if wrong:
        return Step("rows", False, wrong)
    values = sum(len(row["signal_ids"]) for row in meant)
    good = f"{table} has exactly its {len(meant)} events with {values} readings, field by field"
    if not released:
        return Step("rows", True, good)
    decision = str(released[0]["decision"])
    copies = [row | {"decision": decision} for row in meant]
    wrong = "its events were never held" if table == "events" else _difference(raw, "events", released, copies)
    if wrong:
        return Step("rows", False, f"{good}; but events has rows that a decision is said to have released: {wrong}")
    return Step("rows", True, f"{good}; and events has the same, released by decision {decision}")


def _difference(raw: Raw, table: str, stored: list[dict[str, Any]], meant: list[dict[str, Any]]) -> str:
    """What of the rows that are stored is not as it was meant; empty where all is."""
    here = {(raw.spool, raw.segment, raw.record_offset)}
    astray = [row for row in stored if (row["spool"], row["segment"], row["record_offset"]) not in here]
    if astray:
        return f"{table} has {len(astray)} rows of this message that came in another record"
    if len(stored) != len(meant):
        return f"{table} has {len(stored)} rows of this message, and {len(meant)} events were signed"
    for expected, found in zip(meant, sorted(stored, key=lambda row: int(row["event_index"])), strict=True):
        for column, value in expected.items():
            if _exact(found[column]) != _exact(value):
                other = f"signed is {value!r}" if column in SIGNED else f"{value!r} follows from raw_messages"
                return f"event {expected['event_index']}: {column} is {found[column]!r} in {table}, and {other}"
    return ""


def _stored(clickhouse: ClickHouse, table: str, name: Name, released: str) -> list[dict[str, Any]]:
    columns = ", ".join(_column(column, table) for column in _columns(table))
    answer = clickhouse.raw(
        f"SELECT {columns}, spool, segment FROM {table} "  # noqa: S608  columns and tables of ours
        "WHERE tenant = {tenant:String} AND device_id = {device:String} "
        "AND epoch = {epoch:UInt32} AND seq = {seq:UInt64} "
        f"AND decision {released} ''",
        "ArrowStream",
        parameters_of(name),
    )
    if not answer:
        return []
    rows: list[dict[str, Any]] = pa.ipc.open_stream(answer).read_all().to_pylist()
    return [{column: _text(value) for column, value in row.items()} for row in rows]


def _columns(table: str) -> tuple[str, ...]:
    form = FORMS[table]
    return (*form.places, *form.names, *form.numbers, *form.times, *form.lists, *form.maps)


def _column(column: str, table: str) -> str:
    if column in FORMS[table].times:
        return f"toUnixTimestamp64Milli({column}) AS {column}"
    return f"toString({column}) AS {column}" if column in FORMS[table].names else column


def _plain(rows: pa.Table, table: str) -> list[dict[str, Any]]:
    """Rows that load would insert, in the form in which `_stored` gives them."""
    columns = {}
    for column in _columns(table):
        array = rows.column(column)
        columns[column] = array.cast(pa.int64()) if column in FORMS[table].times else array
    found: list[dict[str, Any]] = pa.table(columns).to_pylist()
    return sorted(found, key=lambda row: int(row["event_index"]))


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _exact(value: Any) -> str:
    """Compares numbers by all their digits, and tells 0.0 from -0.0."""
    if isinstance(value, list):
        return repr([tuple(map(_text, item)) if isinstance(item, tuple) else item for item in value])
    return repr(value)


def _as_segment(name: Name, raw: Raw, policy_version: str) -> Segment:
    """A segment of this one message, so that load's own code says which rows it means."""
    segment = Segment(Header(bytes.fromhex(raw.spool), raw.segment, 0), b"", 0)
    digests = (bytes.fromhex(raw.certificate_fingerprint), bytes.fromhex(raw.key_digest))
    peer = PeerRecord(
        *(
            0,
            name.tenant,
            raw.vehicle_id,
            name.device_id,
            *digests,
            raw.address,
            raw.transport,
            raw.edge_id,
            policy_version,
        )
    )
    segment.peers[0] = peer
    outcome = Outcome.HELD if raw.outcome == "held" else Outcome.ACCEPTED
    heads = np.array(
        [(0, raw.received_at_ms, int(outcome), raw.flags)],
        dtype=[("peer", "<u4"), ("received_at", "<i8"), ("outcome", "u1"), ("flags", "<u2")],
    )
    segment.messages = Messages(np.array([raw.record_offset]), heads, [bytes.fromhex(raw.raw)])
    return segment
