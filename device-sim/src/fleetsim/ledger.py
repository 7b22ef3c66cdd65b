"""Decides how a run is written down: every message that was sent, what it deserved, and what it got.

One SQLite file (WAL) that a reader may poll while the run goes on. Nothing here judges: the comparison with what the
gate stored is made by whoever reads it. Rows are kept in memory until `commit`, which the run calls ten times a second.

    run(key, value)               seed, seconds, start and end, the fleet file
    attackers                     devices with a hostile part, and whether they deserve quarantine
    messages                      one row for each signed message or hostile byte string
      kind                        'honest' or the attack; an attacker's own valid messages are 'honest'
      epoch, seq                  null where a hostile message has none
      expect                      accepted | duplicate | refused | limited (accepted or rate_limited) | a reason
      answer                      null | accepted | duplicate | a reason | puback_0x.. | http_..; a held message is
                                  acknowledged like an accepted one and stands here as 'accepted'
      fate                        null while open | stored | dropped | unknown | renumbered (its events are in a
                                  later message of the device)
      first_sent_ms, answered_ms  Unix ms with fractions, by the simulator's clock; null for never
    attempts                      hostile connections, for the kinds that are counted so (revoked, oversized, fuzz)
"""

import sqlite3
import threading
from pathlib import Path
from typing import Any

from fleetsim import encode
from fleetsim.bundle import Device
from fleetsim.clock import Clock
from fleetsim.outbox import Entry

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS attackers (
    tenant TEXT NOT NULL, device_id TEXT NOT NULL, kind TEXT NOT NULL, expects_quarantine INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, device_id TEXT NOT NULL, vehicle_id TEXT NOT NULL,
    epoch INTEGER, seq INTEGER, kind TEXT NOT NULL, enc INTEGER, transport TEXT NOT NULL, sent_at INTEGER,
    events INTEGER NOT NULL, envelope BLOB NOT NULL, body BLOB, expect TEXT NOT NULL,
    sends INTEGER NOT NULL DEFAULT 0, answer TEXT, fate TEXT, first_sent_ms REAL, answered_ms REAL
);
CREATE INDEX IF NOT EXISTS messages_key ON messages (tenant, device_id, epoch, seq);
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, tenant TEXT NOT NULL, device_id TEXT NOT NULL,
    at_ms REAL NOT NULL, answer TEXT NOT NULL
);
"""
_MESSAGE = """INSERT INTO messages (id, tenant, device_id, vehicle_id, epoch, seq, kind, enc, transport, sent_at,
    events, envelope, body, expect) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_SENT = "UPDATE messages SET sends = sends + 1, first_sent_ms = coalesce(first_sent_ms, ?) WHERE id = ?"
_ANSWERED = "UPDATE messages SET answer = ?, answered_ms = ? WHERE id = ?"
_CLOSED = "UPDATE messages SET answer = coalesce(answer, ?), fate = ? WHERE id = ?"
_ATTEMPT = "INSERT INTO attempts (kind, tenant, device_id, at_ms, answer) VALUES (?, ?, ?, ?, ?)"
_ATTACKER = "INSERT INTO attackers VALUES (?, ?, ?, ?)"
_RUN = "INSERT INTO run VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"

HONEST = "honest"


class LedgerError(Exception):
    """The ledger cannot be opened; the text names the file."""


class Ledger:
    """The file. `commit` may run in another thread than the rest; the rest belongs to one."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: list[tuple[str, tuple[Any, ...]]] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            # The ledger is the tester's notes, not the device's disk: it need not survive a power cut.
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.executescript(_SCHEMA)
            self._last_id = int(self._db.execute("SELECT coalesce(max(id), 0) FROM messages").fetchone()[0])
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"{path}: {error}; choose another --ledger file") from None

    def note(self, key: str, value: object) -> None:
        """A fact of the run."""
        self._write(_RUN, (key, str(value)))

    def attacker(self, bundle: Device, kind: str, *, expects_quarantine: bool) -> None:
        """A device with a hostile part."""
        self._write(_ATTACKER, (bundle.tenant, bundle.device_id, kind, int(expects_quarantine)))

    def attempt(self, bundle: Device, kind: str, answer: str) -> None:
        """A hostile connection and how it ended."""
        self._write(_ATTEMPT, (kind, bundle.tenant, bundle.device_id, self._clock.now_ms(), answer))

    def message(
        self,
        bundle: Device,
        raw: bytes,
        *,
        kind: str,
        transport: str,
        expect: str,
        epoch: int | None = None,
        seq: int | None = None,
        enc: int | None = None,
        sent_at: int | None = None,
        events: int = 0,
        body: bytes | None = None,
    ) -> int:
        """A message that is about to be sent; returns its id. `bundle` is who connects, whoever it claims to be."""
        self._last_id += 1
        who = (bundle.tenant, bundle.device_id, bundle.vehicle_id)
        what = (epoch, seq, kind, enc, transport, sent_at, events, raw, body, expect)
        self._write(_MESSAGE, (self._last_id, *who, *what))
        return self._last_id

    def sent(self, ref: int) -> None:
        """The message went onto the wire, for the first time or again."""
        self._write(_SENT, (self._clock.now_ms(), ref))

    def answered(self, ref: int, label: str) -> None:
        """The gate's answer."""
        self._write(_ANSWERED, (label, self._clock.now_ms(), ref))

    def closed(self, ref: int, label: str, fate: str) -> None:
        """What became of it on the device."""
        self._write(_CLOSED, (label, fate, ref))

    def find(self, bundle: Device, epoch: int, seq: int) -> int | None:
        """The id of a device's message from an earlier process of the simulator on the same ledger."""
        row = self._db.execute(
            "SELECT max(id) FROM messages WHERE tenant = ? AND device_id = ? AND epoch = ? AND seq = ?",
            (bundle.tenant, bundle.device_id, epoch, seq),
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def answers(self, kind: str) -> list[tuple[str, int]]:
        """What the gate said to the messages and connections of a kind, and how often."""
        self.commit()
        query = """SELECT coalesce(answer, 'no answer'), count(*) FROM messages WHERE kind = ?1 GROUP BY 1
            UNION ALL SELECT 'connection: ' || answer, count(*) FROM attempts WHERE kind = ?1 GROUP BY 1"""
        return [(str(answer), int(count)) for answer, count in self._db.execute(query, (kind,))]

    def commit(self) -> None:
        """Make what was written so far visible to readers. Raises sqlite3.Error."""
        with self._lock:
            writes, self._pending = self._pending, []
        if writes:
            self._db.execute("BEGIN")
            for statement, values in writes:
                self._db.execute(statement, values)
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Commit and close."""
        self.commit()
        self._db.close()

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._lock:
            self._pending.append((statement, values))


class HonestBook:
    """The `Book` of a vehicle's core: everything it does is honest and should be accepted."""

    def __init__(self, ledger: Ledger, transport: str) -> None:
        self._ledger, self._transport = ledger, transport

    def signed(self, bundle: Device, entry: Entry, body: bytes, events: int) -> int:
        """A message got its number."""
        return self._ledger.message(
            bundle,
            entry.raw,
            kind=HONEST,
            transport=self._transport,
            expect="accepted",
            epoch=entry.epoch,
            seq=entry.seq,
            enc=entry.enc,
            sent_at=entry.sent_at,
            events=events,
            body=body,
        )

    def recovered(self, bundle: Device, entry: Entry) -> int:
        """A message of an earlier process: found in this ledger, or written into it."""
        known = self._ledger.find(bundle, entry.epoch, entry.seq)
        if known is not None:
            return known
        body = encode.decode_envelope(entry.raw).body
        return self.signed(bundle, entry, body, len(encode.decode_body(entry.enc, body).events))

    def sent(self, entry: Entry) -> None:
        """It went onto the wire."""
        self._ledger.sent(entry.ref)

    def answered(self, entry: Entry, label: str) -> None:
        """The gate answered."""
        self._ledger.answered(entry.ref, label)

    def closed(self, entry: Entry, label: str, fate: str) -> None:
        """It left the outbox."""
        self._ledger.closed(entry.ref, label, fate)
