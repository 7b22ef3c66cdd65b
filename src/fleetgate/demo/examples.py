"""Two messages of the run, shown whole: one that was accepted, down to its rows, and one that was forged."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from pathlib import Path

from fleetgate.judge.verdict import STEP_OF, Reason
from fleetgate.load.clickhouse import ServerClickHouse

_ONE = (
    "SELECT tenant, device_id, epoch, seq, length(envelope), answer FROM messages"
    " WHERE kind = ? AND answer = ? AND epoch IS NOT NULL ORDER BY id DESC LIMIT 1"
)
_ROW = """
SELECT count(), any(vehicle_id), any(software), any(certificate_fingerprint), any(segment),
       any(toString(event_time)), any(length(signal_ids))
FROM events WHERE tenant = {tenant:String} AND device_id = {device:String} AND epoch = {epoch:UInt32}
    AND seq = {seq:UInt64}
"""


def examples(ledger: Path, clickhouse: ServerClickHouse, quarantined: Collection[str]) -> list[tuple[str, list[str]]]:
    """(title, lines) of each; fewer when the run had no such message. `quarantined` are devices, as tenant/device."""
    found = []
    db = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        for title, kind, answer in (
            ("an accepted message", "honest", "accepted"),
            ("a forged message", "forged_mac", Reason.BAD_MAC.value),
        ):
            message = db.execute(_ONE, (kind, answer)).fetchone()
            if message is not None:
                found.append((title, _lines(message, clickhouse, quarantined)))
    finally:
        db.close()
    return found


def _lines(
    message: tuple[str, str, int, int, int, str], clickhouse: ServerClickHouse, quarantined: Collection[str]
) -> list[str]:
    tenant, device_id, epoch, seq, size, answer = message
    who: dict[str, str | int] = {"tenant": tenant, "device": device_id, "epoch": epoch, "seq": seq}
    rows, vehicle, software, certificate, segment, event_time, signals = clickhouse.rows(_ROW, who)[0]
    lines = [f"{size} bytes from {tenant}/{device_id}, epoch {epoch}, seq {seq}"]
    if answer == "accepted":
        lines.append("answer: accepted")
        lines.append(
            f"{rows} rows: vehicle {vehicle}, {signals} signals at {event_time}, software {software}, "
            f"certificate {certificate[:12]}..., segment {segment}"
        )
    else:
        lines.append(f"answer: {answer}, refused at step {STEP_OF[Reason(answer)]} of the judge")
        state = "in quarantine" if f"{tenant}/{device_id}" in quarantined else "not in quarantine"
        lines.append(f"{rows} rows in `events`; its sender is {state}")
    return lines
