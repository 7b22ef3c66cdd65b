"""The file of samples: how it is bounded, in bytes and in days, and who may read it.

A SQLite file of the edge's own, mode 0600 in a directory of mode 0700: what is in it may say where somebody was. It
never grows beyond its limit (SQLite itself refuses), and deleted bytes are overwritten. Of one device a bounded number
of samples is kept, the first and the latest; where all together need more room than there is, whoever has most loses
most, so that a flood costs its senders' samples and not those of a quiet device. A damaged file can be set aside.
Nothing here is needed to run: errors are EvidenceError, for `keeper` to count.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from fleetgate.durable import sync_directory
from fleetgate.evidence.sample import RAW_BYTES, Facts, Kept, Sample

FILE = "samples.db"
ASIDE = "samples.db.damaged"
OF_A_DEVICE, FIRST_OF_A_DEVICE = 64, 16
"""Samples of one device, 330 KB at most: how it began, and what it did last."""

FULL_SHARE = 0.9
"""Of the limit, from here on the largest collections shrink: what is left takes the writes until they have."""

_PAGE_BYTES = 4096
_AT_ONCE = 500  # samples that are deleted in one transaction: 3 MB of journal
_SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (
    number INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, device_id TEXT NOT NULL, at_ms INTEGER NOT NULL,
    size INTEGER NOT NULL, sha256 BLOB NOT NULL, facts BLOB NOT NULL, raw BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS samples_of_device ON samples (tenant, device_id);
CREATE INDEX IF NOT EXISTS samples_by_age ON samples (at_ms);
"""
_SURPLUS = """
DELETE FROM samples WHERE number IN (
    SELECT number FROM (
        SELECT number, row_number() OVER (ORDER BY number) AS nth, row_number() OVER (ORDER BY number DESC) AS nth_last
        FROM samples WHERE tenant = ? AND device_id = ?)
    WHERE nth > ? AND nth_last > ?)
"""
_ABOVE = """
SELECT number FROM (
    SELECT number, row_number() OVER (PARTITION BY tenant, device_id ORDER BY number DESC) AS nth_last FROM samples)
WHERE nth_last > ?
"""
_MOST = "SELECT max(count) FROM (SELECT count(*) AS count FROM samples GROUP BY tenant, device_id)"
_OLDEST = "SELECT number FROM samples ORDER BY number LIMIT ?"
_COLUMNS = "number, tenant, device_id, at_ms, facts, size, sha256, raw"

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)  # the low byte: the rest says where it was noticed

_encode = msgspec.msgpack.Encoder().encode


class EvidenceError(Exception):
    """The file of samples cannot be used; the text says why."""


class Damaged(EvidenceError):
    """The file is none of SQLite's any more: nothing will ever be written into it."""


class Harmless(NamedTuple):
    """A device whose cases were found harmless, and until when what it did counts as that (Unix ms)."""

    tenant: str
    device_id: str
    until_ms: int


class Store:
    """The file in `directory`, opened for writing by the one edge that it belongs to."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        """Raises EvidenceError."""
        self._directory = directory
        self._max_bytes = max_bytes
        with _told(directory):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)  # it may be there already
            path = directory / FILE
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(descriptor, 0o600)  # it may have been put there by somebody less careful
            finally:
                os.close(descriptor)
            self._db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            try:
                for pragma in ("page_size=4096", "journal_mode=TRUNCATE", "synchronous=NORMAL", "secure_delete=ON"):
                    self._db.execute(f"PRAGMA {pragma}")
                self._db.execute(f"PRAGMA max_page_count={max_bytes // _PAGE_BYTES}")
                self._db.executescript(_SCHEMA)
            except sqlite3.Error:
                self._db.close()  # it is tried again and again, and the descriptors are the edge's
                raise

    def add(self, samples: Sequence[Sample]) -> None:
        """Keeps them, in one transaction. Raises EvidenceError; then none of them is kept."""
        rows = [
            (
                sample.tenant,
                sample.device_id,
                sample.at_ms,
                len(sample.raw),
                hashlib.sha256(sample.raw).digest(),
                _encode(sample.facts),
                sample.raw[:RAW_BYTES],
            )
            for sample in samples
        ]
        self._make_room()
        with self._writing() as db:
            db.executemany(
                "INSERT INTO samples (tenant, device_id, at_ms, size, sha256, facts, raw) VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            devices = {(sample.tenant, sample.device_id) for sample in samples}
            surplus = (FIRST_OF_A_DEVICE, OF_A_DEVICE - FIRST_OF_A_DEVICE)
            db.executemany(_SURPLUS, [(*device, *surplus) for device in devices])

    def forget(self, before_ms: int, harmless: Iterable[Harmless]) -> int:
        """Deletes samples from before that time, and those of devices that were found harmless; how many there were.

        Raises EvidenceError.
        """
        gone = self._delete("at_ms < ?", before_ms)
        return gone + sum(
            self._delete("tenant = ? AND device_id = ? AND at_ms <= ?", *one)
            for one in harmless  # of one device there are few
        )

    def used_bytes(self) -> int:
        """What the samples take; the file itself keeps the size that it once had. Raises EvidenceError."""
        with _told(self._directory):
            [[pages]] = self._db.execute("PRAGMA page_count").fetchall()
            [[free]] = self._db.execute("PRAGMA freelist_count").fetchall()
        return int(pages - free) * _PAGE_BYTES

    def free_disk_bytes(self) -> int:
        """Raises EvidenceError."""
        with _told(self._directory):
            status = os.statvfs(self._directory)
        return status.f_bavail * status.f_frsize

    def close(self) -> None:
        self._db.close()

    def _delete(self, which: str, *values: object) -> int:
        """A piece at a time: what is deleted stands in SQLite's journal until then, on the same disk."""
        some = f"DELETE FROM samples WHERE number IN (SELECT number FROM samples WHERE {which} LIMIT {_AT_ONCE})"  # noqa: S608  texts of ours
        gone = 0
        while True:
            with self._writing() as db:
                found = db.execute(some, values).rowcount
            gone += found
            if found < _AT_ONCE:
                return gone

    def _make_room(self) -> None:
        if self.used_bytes() <= FULL_SHARE * self._max_bytes:
            return
        with _told(self._directory):
            [[most]] = self._db.execute(_MOST).fetchall()
            [[count]] = self._db.execute("SELECT count(*) FROM samples").fetchall()
            # Where there are as many devices as there is room for samples, the oldest go.
            query, value = (_ABOVE, most // 2) if most > 1 else (_OLDEST, count // 10 + 1)
            numbers = self._db.execute(query, (value,)).fetchall()
        for start in range(0, len(numbers), _AT_ONCE):
            with self._writing() as db:
                db.executemany("DELETE FROM samples WHERE number = ?", numbers[start : start + _AT_ONCE])

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with _told(self._directory):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk ends it by itself
                    self._db.execute("ROLLBACK")
                raise


def set_aside(directory: Path, now_ms: int) -> Path:
    """Makes room for a new file in the place of a damaged one, of which the latest is kept. Raises EvidenceError."""
    path = directory / ASIDE
    with _told(directory):
        # The journal first: SQLite would write what it holds into the new file.
        (directory / f"{FILE}-journal").unlink(missing_ok=True)
        os.utime(directory / FILE, ns=(now_ms * 1_000_000, now_ms * 1_000_000))
        (directory / FILE).replace(path)
        sync_directory(directory)
    return path


def forget_aside(directory: Path, before_ms: int) -> None:
    """Deletes the damaged file, if it was set aside before that time. Raises EvidenceError."""
    path = directory / ASIDE
    with _told(directory):
        if path.exists() and path.stat().st_mtime < before_ms / 1000:
            path.unlink()


def read_samples(directory: Path, tenant: str, device_id: str) -> list[Kept]:
    """Those of one device, oldest first, beside an edge that goes on writing. None are there before its first refusal.

    Raises EvidenceError.
    """
    path = directory / FILE
    with _told(directory):
        try:
            path.stat()
        except FileNotFoundError:
            return []
        # Not opened read-only: what a killed edge left half done is undone by whoever comes first.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=5)) as db:
            db.execute("PRAGMA query_only=ON")
            query = f"SELECT {_COLUMNS} FROM samples WHERE tenant = ? AND device_id = ? ORDER BY number"  # noqa: S608  a text of ours
            rows = db.execute(query, (tenant, device_id)).fetchall()
        return [
            Kept(number, tenant, device, at_ms, _decode_facts(facts), size, sha256, raw)
            for number, tenant, device, at_ms, facts, size, sha256, raw in rows
        ]


@contextmanager
def _told(directory: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        kind = Damaged if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED else EvidenceError
        raise kind(f"{directory}: {error}") from None
    except OSError as error:
        remedy = "; is this the edge's user?" if error.errno in (errno.EACCES, errno.EPERM) else ""
        raise EvidenceError(f"{directory}: {error.strerror}{remedy}") from None
    except msgspec.MsgspecError as error:
        raise EvidenceError(f"{directory}: a sample is damaged ({error})") from None


_decode_facts = msgspec.msgpack.Decoder(Facts).decode
