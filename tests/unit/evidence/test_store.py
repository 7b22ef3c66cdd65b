"""The file of samples: nobody else reads it, and it is bounded whatever comes."""

from __future__ import annotations

import gc
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.unit.evidence.conftest import FACTS, sample
from tests.units import NOW

from fleetgate.evidence import store as module
from fleetgate.evidence.sample import RAW_BYTES
from fleetgate.evidence.store import FILE, FIRST_OF_A_DEVICE, OF_A_DEVICE, EvidenceError, Harmless, Store, read_samples

MIB = 1024**2


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "evidence", MIB)
    yield opened
    opened.close()


def read(tmp_path: Path, device: str = "car-7-tcu") -> list[int]:
    return [kept.number for kept in read_samples(tmp_path / "evidence", "acme", device)]


def test_a_sample_is_read_back_as_it_was(store: Store, tmp_path: Path) -> None:
    """Beside the writer; of another device nothing is told."""
    store.add([sample(raw=b"message"), sample("other")])
    [kept] = read_samples(tmp_path / "evidence", "acme", "car-7-tcu")
    assert (kept.facts, kept.raw, kept.size, kept.at_ms) == (FACTS, b"message", 7, NOW)
    assert kept.sha256 == hashlib.sha256(b"message").digest()


def test_of_a_large_message_the_start_is_kept_and_the_digest_is_of_all(store: Store, tmp_path: Path) -> None:
    """So that a person can still tell whether another copy is the same."""
    raw = os.urandom(70_000)
    store.add([sample(raw=raw)])
    [kept] = read_samples(tmp_path / "evidence", "acme", "car-7-tcu")
    assert (kept.raw, kept.size, kept.sha256) == (raw[:RAW_BYTES], 70_000, hashlib.sha256(raw).digest())


def test_nobody_but_the_edges_user_can_read_it(store: Store, tmp_path: Path) -> None:
    """Whatever the umask is."""
    store.add([sample()])
    directory = tmp_path / "evidence"
    assert [path.stat().st_mode & 0o777 for path in (directory, directory / FILE)] == [0o700, 0o600]


def test_of_one_device_the_first_and_the_latest_are_kept(store: Store, tmp_path: Path) -> None:
    """How it began, and what it did last; another device's stay."""
    store.add([sample("quiet")])
    for start in range(0, 200, 20):
        store.add([sample() for _ in range(start, start + 20)])
    kept = read(tmp_path)
    assert len(kept) == OF_A_DEVICE
    assert kept[:FIRST_OF_A_DEVICE] == list(range(2, 2 + FIRST_OF_A_DEVICE))
    assert kept[FIRST_OF_A_DEVICE:] == list(range(202 - OF_A_DEVICE + FIRST_OF_A_DEVICE, 202))
    assert read(tmp_path, "quiet") == [1]


def test_the_file_stays_below_its_limit_and_a_flood_costs_those_who_send_it(store: Store, tmp_path: Path) -> None:
    """Five times as much as fits, from twenty devices that fill it and one that was refused twice."""
    store.add([sample("quiet", raw=b"y" * RAW_BYTES) for _ in range(2)])
    for number in range(60):
        store.add([sample(f"loud-{device}", raw=os.urandom(RAW_BYTES)) for device in range(20)])
        assert store.used_bytes() <= MIB, number
    assert (tmp_path / "evidence" / FILE).stat().st_size <= MIB
    assert read(tmp_path, "quiet") == [1, 2]
    latest = [read(tmp_path, f"loud-{device}")[-1] for device in range(20)]
    assert latest == list(range(2 + 59 * 20 + 1, 2 + 60 * 20 + 1))


def test_more_devices_than_there_is_room_for_lose_the_oldest(store: Store, tmp_path: Path) -> None:
    """The last ones are there."""
    for start in range(0, 600, 20):
        store.add([sample(f"car-{device}", raw=os.urandom(RAW_BYTES)) for device in range(start, start + 20)])
    assert read(tmp_path, "car-0") == []
    assert read(tmp_path, "car-599") == [600]


def test_what_is_too_old_or_was_harmless_is_forgotten(store: Store, tmp_path: Path) -> None:
    """What came behind the decision, and what others did, stays."""
    day_ms = 24 * 3600 * 1000
    store.add([sample(at_ms=NOW - 40 * day_ms), sample(at_ms=NOW - 9 * day_ms), sample(at_ms=NOW)])
    store.add([sample("other", at_ms=NOW - 9 * day_ms)])
    assert store.forget(NOW - 30 * day_ms, [Harmless("acme", "car-7-tcu", NOW - 8 * day_ms)]) == 2
    assert (read(tmp_path), read(tmp_path, "other")) == ([3], [4])


def test_deleted_bytes_are_not_in_the_file_any_more(store: Store, tmp_path: Path) -> None:
    """Where somebody was is gone with its sample."""
    place = b"50.1109,8.6821 is where he lives"
    store.add([sample(raw=place * 3)])
    assert place in (tmp_path / "evidence" / FILE).read_bytes()
    store.forget(NOW + 1, [])
    assert place not in b"".join(path.read_bytes() for path in (tmp_path / "evidence").iterdir())


def test_a_number_is_never_given_twice(store: Store, tmp_path: Path) -> None:
    """A person's note about sample 1 is about no other one."""
    store.add([sample()])
    store.forget(NOW + 1, [])
    store.add([sample()])
    assert read(tmp_path) == [2]


def test_without_a_file_there_are_no_samples(tmp_path: Path) -> None:
    """An edge that never refused anything."""
    assert read_samples(tmp_path / "evidence", "acme", "car-7-tcu") == []


@pytest.mark.parametrize("content", [b"no database" * 500, b"\x00" * 4096])
def test_a_file_that_is_no_database_is_told_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    """For the writer and for the reader."""
    directory = tmp_path / "evidence"
    directory.mkdir()
    (directory / FILE).write_bytes(content)
    with pytest.raises(EvidenceError, match="evidence"):
        Store(directory, MIB).add([sample()])
    with pytest.raises(EvidenceError, match="evidence"):
        read_samples(directory, "acme", "car-7-tcu")


def test_a_sample_that_is_damaged_is_told_in_a_sentence(store: Store, tmp_path: Path) -> None:
    """By a failing disk, in the middle of a file that SQLite takes for a good one."""
    store.add([sample()])
    with closing(sqlite3.connect(tmp_path / "evidence" / FILE)) as db, db:
        db.execute("UPDATE samples SET facts = x'ff'")
    with pytest.raises(EvidenceError, match="a sample is damaged"):
        read_samples(tmp_path / "evidence", "acme", "car-7-tcu")


def test_a_file_that_cannot_be_used_costs_no_descriptors(tmp_path: Path) -> None:
    """It is tried twice a second for as long as nobody mends it, and telemetry needs the descriptors."""
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(EvidenceError, match="not a database"):
                Store(tmp_path, 1024**2)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_what_others_could_read_is_taken_from_them(tmp_path: Path) -> None:
    """Somebody copied it back from elsewhere, or made the directory beforehand."""
    tmp_path.chmod(0o755)
    (tmp_path / FILE).touch(mode=0o644)
    with closing(Store(tmp_path, 1024**2)):
        assert [path.stat().st_mode & 0o777 for path in (tmp_path, tmp_path / FILE)] == [0o700, 0o600]


def test_what_is_deleted_is_deleted_a_piece_at_a_time(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once it would stand in SQLite's journal meanwhile: twice the limit, on a disk that may be telemetry's."""
    monkeypatch.setattr(module, "_AT_ONCE", 4)
    store.add([sample(f"car-{number}") for number in range(9)])
    commits: list[str] = []
    store._db.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    assert store.forget(NOW + 1, []) == 9
    assert len(commits) == 3
