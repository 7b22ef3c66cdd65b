"""Bytes that are not what was written: bits flip in sealed segments, and the end of a live one is torn off.

What a damaged byte may cost is decided here by the segment's bytes from before: the record it lies in, or nothing where
the footer repeats that record. Exactly this must be missing (the oracle counts it as set aside), `fleetgate verify
spool` must say the place, and load keep the file.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import msgspec

from fleetgate.fault import VARIABLE
from fleetgate.load.parking import Reason
from fleetgate.spool import format as fmt
from fleetgate.spool.reader import Segment, read_segment, segment_paths
from fleetgate.spool.writer import recover_live
from tests.faults.disks import failing_disk
from tests.faults.processes import REACHED_SECONDS, ended_by_kill, stopped
from tests.faults.registry import fault
from tests.faults.trial import Trial
from tests.gate import fleetgate, until

PARTS = ("message", "peer", "message", "rejection", "header", "footer", "trailer", "message", "transition", "anywhere")
"""One bit flips in each, every one in a segment of its own; there may be no transition in those that wait."""

HELD_UP_SECONDS = 40.0


class Part(NamedTuple):
    """Bytes `start` to `end` of a segment, which stops being good at `start` when one of them changes."""

    name: str
    start: int
    end: int


def parts(segment: Segment) -> Iterator[Part]:
    """What a sealed segment without a flaw consists of, in its order."""
    assert segment.footer is not None
    assert not segment.damaged
    names = {message.offset: "message" for message in segment.messages}
    names |= {offset: "rejection" for offset, _ in segment.rejections}
    names |= {offset: "transition" for offset, _ in segment.transitions}
    names |= {offset: "alert" for offset, _ in segment.alerts}
    trailer_at = segment.size - fmt.TRAILER_BYTES
    yield Part("header", 0, fmt.HEADER_BYTES)
    for start, end in zip(segment.offsets, [*segment.offsets[1:], segment.good_bytes], strict=True):
        yield Part(names.get(start, "peer"), start, end)
    yield Part("footer", segment.good_bytes, trailer_at)
    yield Part("trailer", trailer_at, segment.size)


class Hit(NamedTuple):
    segment: int
    part: Part


def flip(trial: Trial, path: Path, wanted: str) -> Hit | None:
    """One bit in one such part of the segment; what that destroys is noted. None where it has no such part."""
    segment = read_segment(path)
    found = [part for part in parts(segment) if wanted in (part.name, "anywhere")]
    if not found:
        return None
    if wanted == "anywhere":
        at = trial.rng.randrange(segment.size)
        [part] = [part for part in found if part.start <= at < part.end]
    else:
        part = trial.rng.choice(found)
        at = trial.rng.randrange(part.start, part.end)
    with path.open("r+b") as file:
        file.seek(at)
        [byte] = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << trial.rng.randrange(8)]))
    _note_loss(trial, segment, part)
    return Hit(segment.header.segment, part)


def _note_loss(trial: Trial, segment: Segment, part: Part) -> None:
    for message in segment.messages:
        if message.offset == part.start:
            peer = segment.peers[message.peer]
            trial.set_aside.add((peer.tenant, peer.device_id, message.raw))
    for offset, record in segment.rejections:
        if offset == part.start:
            peer = segment.peers[record.peer]
            trial.refusals_aside[peer.tenant, peer.device_id, record.reason] += record.count


@contextmanager
def held_up(trial: Trial) -> Iterator[None]:
    """Load gets no further, in one way or the other."""
    if trial.rng.random() < 0.5:
        with stopped(trial.load):
            yield
    else:
        trial.proxy.refuse()
        yield
        trial.proxy.listen_again()


def waiting(trial: Trial) -> list[Path]:
    """Sealed segments that load has not begun: it may have the first of them in memory."""
    after = trial.loaded_segment() + 1
    return [path for number, path in segment_paths(trial.spool / "segments") if number > after]


@fault(
    "A bit flips in sealed segments that are not loaded yet: in a message, a peer, a refusal, a transition, a header, "
    "a footer, a trailer, and anywhere. Exactly the damaged record is set aside."
)
def bits_flipped(trial: Trial) -> None:
    hits = []
    with held_up(trial):
        time.sleep(0.2)  # so that load has what it will have had
        until(lambda: len(waiting(trial)) > len(PARTS) + 2, "segments wait for load", HELD_UP_SECONDS)
        paths = waiting(trial)
        for wanted in PARTS:
            for path in paths:
                hit = flip(trial, path, wanted)
                if hit is not None:
                    hits.append(hit)
                    paths.remove(path)
                    break
            else:
                assert wanted == "transition", f"there is no {wanted} to hit"
        told = {(one["segment"], one["stops_at"]) for one in _verified(trial)}
        assert told == {(hit.segment, hit.part.start) for hit in hits}, (told, hits)
    last = max(hit.segment for hit in hits)
    trial.await_load(lambda: trial.loaded_segment() >= last, "load gets past all of them")
    for hit in hits:
        _kept(trial, hit)


def damage_one(trial: Trial) -> None:
    """With load down: a bit flips in a message of a segment that waits for it."""
    until(lambda: len(waiting(trial)) > 1, "segments wait for load", HELD_UP_SECONDS)
    for path in waiting(trial):
        if flip(trial, path, "message") is not None:
            return
    raise AssertionError("there is no message to hit")


def _verified(trial: Trial) -> list[dict[str, int]]:
    """The findings of `fleetgate verify spool`, which ends with 1 for them."""
    done = fleetgate(trial.directory, "verify", "spool", "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["trouble"] == [], report["trouble"]
    findings: list[dict[str, int]] = report["findings"]
    return findings


def _kept(trial: Trial, hit: Hit) -> None:
    """Load told the place, and set the file aside; a trailer alone costs it nothing and is not told."""
    reason = trial.spool / "parked" / f"{hit.segment:020d}.error.json"
    assert reason.exists() == (hit.part.name != "trailer"), f"{hit} is not told"
    if reason.exists():
        told = msgspec.json.decode(reason.read_bytes(), type=Reason)
        assert (told.why, told.error) == ("damaged", f"damaged at [{hit.part.start}] (1 places)"), (hit, told)
        assert reason.with_name(f"{hit.segment:020d}.seg").exists(), f"{hit}: its file is not kept"


@fault(
    "kill -9 between write and sync, and the live segment is cut within its last two records and followed by zeros: at "
    "every byte on copies, at random ones, of what nobody was told, under the edge itself."
)
def live_segment_cut(trial: Trial) -> None:
    with failing_disk(trial) as disk:
        for _ in range(4):
            disk.launch_edge(**{VARIABLE: f"commit.written,{trial.rng.randint(10, 60)}"})
            assert ended_by_kill(trial.edge, REACHED_SECONDS), "nothing was written"
            [(_, path)] = segment_paths(trial.spool / "segments", ".open")
            segment, data = read_segment(path), path.read_bytes()
            least = [fmt.HEADER_BYTES, *segment.offsets][-2]
            for cut in range(least, len(data) + 1):
                _recovers(trial, segment, data, cut)
            acknowledged = disk.synced_bytes(path)
            assert acknowledged < len(data), "all of it was synced"
            cut = trial.rng.randint(max(least, acknowledged), len(data) - 1)
            path.write_bytes(data[:cut].ljust(len(data) + trial.rng.choice((0, 4096)), b"\0"))


def _recovers(trial: Trial, segment: Segment, data: bytes, cut: int) -> None:
    """What a start makes of a copy that is cut at this byte: every record before it, and nothing else."""
    directory = trial.directory / "copy"
    for name in ("segments", "parked"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    live = directory / "segments" / f"{segment.name}.open"
    live.write_bytes(data[:cut].ljust(len(data), b"\0"))
    with mock.patch.object(os, "fsync"):  # a thousand starts, of which none is followed by a crash
        recover_live(directory)
    whole = cut
    while whole < len(data) and data[whole] == 0:  # what was zero before is not torn
        whole += 1
    # The batch may have been that of a seal, with a footer behind the last record, which is written anew.
    expected = max(end for end in [*segment.offsets, segment.good_bytes] if end <= whole)
    sealed = live.with_suffix(".seg")
    found = read_segment(sealed)
    assert (found.good_bytes, found.damaged) == (expected, []), f"cut at {cut}"
    assert sealed.read_bytes()[:expected] == data[:expected], f"cut at {cut}"
    sealed.unlink()


LOSSES = (
    ("segments is missing", ("checkpoint.db", "segments", "cursor.json")),
    ("identity is missing", ("identity",)),
    ("checkpoint.db is missing", ("checkpoint.db",)),
)
"""What the edge says, and what of its spool is gone."""


@fault(
    "Files of the spool are gone, up to all but its identity: the edge does not begin another one in its place, it "
    "says what to do, and goes on when they are back."
)
def spool_files_missing(trial: Trial) -> None:
    aside = trial.directory / "aside"
    for said, names in LOSSES:
        trial.pass_time(0.4, 1.2)
        trial.load.kill()
        trial.edge.kill()
        aside.mkdir()
        gone = [path for name in names for path in trial.spool.glob(f"{name}*")]
        for path in gone:
            path.rename(aside / path.name)
        before = sorted(path.name for path in trial.spool.iterdir())
        done = fleetgate(trial.directory, "edge")
        assert (done.returncode, said in done.stderr, "restore" in done.stderr) == (5, True, True), done.stderr
        after = {path.name for path in trial.spool.iterdir()}
        assert after <= {*before, "lock"}, f"something was begun: {after}"
        for path in gone:
            (aside / path.name).rename(path)
        aside.rmdir()
        trial.edge.launch()
        trial.load.launch()
        trial.edge.await_ready()
        trial.load.await_ready()
