"""The edge's end of the spool: append, group commit, seal, delete.

Invariants: nothing is acknowledged before `commit` has returned; a segment is never changed once it is sealed; an
error of write or sync is fatal (SpoolError, the process ends and recovery decides what is on the disk). Windows and
states are not kept here (`checkpoint`), nor who may write (`home`).
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fleetgate import fault
from fleetgate.clock import Clock, Entropy
from fleetgate.durable import replace_durably, sync_directory
from fleetgate.errors import SpoolError
from fleetgate.spool import format as fmt
from fleetgate.spool.examine import examine
from fleetgate.spool.identity import read_identity
from fleetgate.spool.reader import read_segment, segment_paths

SEGMENT_BYTES = 16 * 1024 * 1024
MAX_EVENTS = 250_000
"""Of one segment: 16 MiB of empty columns would be four million rows, and load has a segment in memory at once."""

MAX_FOOTER_BYTES = fmt.MAX_RECORD_BYTES - 4096
"""Offsets and peers a footer may hold; what is left takes one more of each and the footer's own few bytes."""


OFFSET_BYTES = 4


class Sender:
    """A peer as the spool names it: written once into each segment that has a record of it."""

    __slots__ = ("facts", "ref", "segment")

    def __init__(self, facts: fmt.PeerRecord) -> None:
        self.facts = facts
        self.segment = 0
        self.ref = -1


class Live:
    """The open segment: its file, and what its footer will say."""

    def __init__(self, path: Path, header: fmt.Header, opened_s: float) -> None:
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        sync_directory(path.parent)
        self.path = path
        self.number = header.segment
        self.seed = header.seed
        self.opened_s = opened_s
        self.offsets: array[int] = array("I")
        self.peers: list[fmt.PeerRecord] = []
        self.footer_bytes = 0
        self.events = 0
        self.rows = [0, 0, 0]
        self.parts: list[bytes] = [fmt.pack_header(header)]
        self.size = fmt.HEADER_BYTES


class Writer:
    """Appends records to the live segment of the spool at `directory`; `identity` is the spool's 16 bytes.

    A segment is sealed when it has reached `segment_bytes`; by age, only when it is told to.
    """

    def __init__(
        self,
        directory: Path,
        identity: bytes,
        next_segment: int,
        clock: Clock,
        entropy: Entropy,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._segments = directory / "segments"
        self._identity = identity
        self._clock = clock
        self._entropy = entropy
        self._segment_bytes = segment_bytes
        self._live: Live | None = None
        self._broken: SpoolError | None = None
        self.next_segment = next_segment
        self.sealed_sizes = {number: path.stat().st_size for number, path in segment_paths(self._segments)}

    # Append: into memory, until the next commit.

    def message(self, sender: Sender, received_at: int, outcome: int, flags: int, raw: bytes, events: int = 1) -> None:
        live = self._with_room()
        ref = sender.ref if sender.segment == live.number else self._introduce(live, sender)
        size = fmt.pack_message(live.parts, ref, received_at, outcome, flags, raw, live.seed)
        live.offsets.append(live.size)
        live.footer_bytes += OFFSET_BYTES
        live.size += size
        live.events += events
        live.rows[0] += 1

    def rejection(self, sender: Sender, record: fmt.RejectionRecord) -> None:
        """`record.peer` is filled in here."""
        live = self._with_room()
        ref = sender.ref if sender.segment == live.number else self._introduce(live, sender)
        record = msgspec.structs.replace(record, peer=ref)
        self._append(live, fmt.REJECTION, record)
        live.rows[1] += 1

    def transition(self, record: fmt.TransitionRecord) -> None:
        live = self._with_room()
        self._append(live, fmt.TRANSITION, record)
        live.rows[2] += 1

    def alert(self, record: fmt.AlertRecord) -> None:
        self._append(self._with_room(), fmt.ALERT, record)

    def _introduce(self, live: Live, sender: Sender) -> int:
        sender.segment, sender.ref = live.number, len(live.peers)
        record = msgspec.structs.replace(sender.facts, ref=sender.ref)
        live.peers.append(record)
        before = live.size
        self._append(live, fmt.PEER, record)
        live.footer_bytes += live.size - before
        return sender.ref

    @staticmethod
    def _append(live: Live, kind: int, record: msgspec.Struct) -> None:
        data = fmt.pack_record(kind, record, live.seed)
        live.offsets.append(live.size)
        live.footer_bytes += OFFSET_BYTES
        live.parts.append(data)
        live.size += len(data)

    def _with_room(self) -> Live:
        """The live segment; a new one where it is full, where the footer would outgrow a record (some 5,000 peers,
        250,000 messages), or where load would need too much memory for it."""
        live = self._live
        if live is not None:
            if live.size < self._segment_bytes and live.events < MAX_EVENTS and live.footer_bytes <= MAX_FOOTER_BYTES:
                return live
            self.seal()
        return self._open()

    def _open(self) -> Live:
        seed = int.from_bytes(self._entropy(4)) or 1  # 0 is that of version 1
        header = fmt.Header(self._identity, self.next_segment, self._clock.now_ms(), seed)
        path = self._segments / f"{self.next_segment:020d}.open"
        with self._disk("open", path):
            self._live = Live(path, header, self._clock.monotonic())
        fault.point("open.created")
        self.next_segment += 1
        return self._live

    @contextmanager
    def _disk(self, what: str, path: Path) -> Iterator[None]:
        """An error in here is the end of this writer: what is on the disk is not known any more, so nothing that comes
        after it may succeed (a second fdatasync can return although the first one lost the data)."""
        if self._broken is not None:
            raise self._broken
        try:
            yield
        except OSError as error:
            self._broken = SpoolError(
                f"cannot {what} {path}: {error.strerror}; the edge stops, mend the disk and start it again"
            )
            raise self._broken from None

    # Commit: what was appended is on disk when this returns.

    def commit(self) -> None:
        live = self._live
        if live is None or not live.parts:
            return
        with self._disk("write", live.path):
            _write_all(live.descriptor, b"".join(live.parts))
            fault.point("commit.written")
            os.fdatasync(live.descriptor)
        fault.point("commit.synced")
        live.parts.clear()

    # Seal: the live segment becomes a frozen batch for load.

    @property
    def live_bytes(self) -> int:
        live = self._live  # read once: the admin thread asks too
        return live.size if live is not None else 0

    def live_age_ms(self) -> int:
        """By monotonic time: a clock that was set back an hour would keep a segment from load for an hour."""
        return round((self._clock.monotonic() - self._live.opened_s) * 1000) if self._live is not None else 0

    def seal(self) -> int | None:
        """Commits and seals the live segment; its number, or None when there is none."""
        live = self._live
        if live is None:
            return None
        fault.point("seal.begun")
        live.parts += _closing(live.size, live.offsets, live.peers, live.rows, live.seed)
        self.commit()
        fault.point("seal.footer")
        sealed = live.path.with_suffix(".seg")
        with self._disk("seal", live.path):
            self.sealed_sizes[live.number] = os.fstat(live.descriptor).st_size
            os.close(live.descriptor)
            live.path.rename(sealed)
            fault.point("seal.renamed")
            sync_directory(self._segments)
        self._live = None
        return live.number

    # Delete: only behind the cursor and a durable checkpoint; the caller knows both.

    def delete_through(self, segment: int) -> int:
        """Deletes the sealed segments up to and including number `segment`; how many there were. From any thread."""
        gone = [number for number in list(self.sealed_sizes) if number <= segment]  # a copy: seals go on meanwhile
        if gone:
            fault.point("delete.begun")
        for number in gone:
            with self._disk("delete", self._segments):
                (self._segments / f"{number:020d}.seg").unlink(missing_ok=True)
            del self.sealed_sizes[number]
            fault.point("delete.one")
        return len(gone)

    @property
    def total_bytes(self) -> int:
        return sum(self.sealed_sizes.values()) + self.live_bytes


def recover_live(directory: Path) -> int:
    """Seals what a former edge left open, cut behind its last good record; the bytes cut off.

    What is kept is written anew, into another file. The former edge may have ended because a sync failed, and then the
    kernel can go on showing bytes that never reached the disk, which no sync of that file writes any more.

    A live segment without a good header holds nothing that was committed, and is set aside in `parked`; unless its disk
    rotted: records that are good may have been acknowledged, so SpoolError is raised for them. A footer that is there
    already is written again: its trailer may be missing. A copy of a segment from before it was sealed, put back beside
    it, is set aside too.
    """
    cut = 0
    for number, path in segment_paths(directory / "segments", ".open"):
        try:
            segment = read_segment(path)
        except fmt.DamagedError as error:
            identity = read_identity(directory)
            if identity is not None and examine(path.read_bytes(), identity.all(), number, live=True).good:
                raise SpoolError(
                    f"{path}: {error}, and good records behind it: run `fleetgate spool repair`, then start the edge"
                ) from None
            cut += path.stat().st_size
            path.rename(directory / "parked" / path.name)
            continue
        data = path.read_bytes()
        if path.with_suffix(".seg").exists():
            _require_all_of_it(path, data[: segment.good_bytes])
            path.rename(directory / "parked" / path.name)
            continue
        if segment.footer is None and segment.size > segment.good_bytes:
            cut += segment.size - segment.good_bytes
            # After a crash these were never acknowledged; where the disk rotted they may have been: they are kept.
            replace_durably(directory / "parked" / f"{path.stem}.tail", data[segment.good_bytes :])
        rows = [len(segment.messages), len(segment.rejections), len(segment.transitions)]
        peers, seed = list(segment.peers.values()), segment.header.seed
        closing = _closing(segment.good_bytes, segment.offsets, peers, rows, seed)
        replace_durably(path, b"".join([data[: segment.good_bytes], *closing]))
        fault.point("recover.footer")
        path.rename(path.with_suffix(".seg"))
        fault.point("recover.sealed")
    sync_directory(directory / "segments")
    return cut


def _require_all_of_it(path: Path, live: bytes) -> None:
    """A sealed segment beside the live one is what became of that, and the live one a copy from before: put back beside
    it, or it would not be there any more. Raises SpoolError where the sealed one does not have all of it."""
    sealed = path.with_suffix(".seg")
    if not sealed.read_bytes().startswith(live):
        raise SpoolError(
            f"{path} stands beside {sealed.name}, which does not have all of it: take away the one that does not "
            "belong here, or see what `fleetgate spool repair` makes of it"
        )


def _closing(size: int, offsets: array[int], peers: list[fmt.PeerRecord], rows: list[int], seed: int) -> list[bytes]:
    footer = fmt.Footer(len(offsets), offsets.tobytes(), peers, rows)
    return [fmt.pack_record(fmt.FOOTER, footer, seed), fmt.pack_trailer(size)]


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
