"""The spool's directory: made once, identified for ever, held by one edge at a time.

Opening it is the normal start after a crash: lock, identity, cut and seal what was left open, number on.

A disk that was replaced looks like a good one: empty as a new gate's, or whole as the copy it comes from. So others
are asked what they know of spools (`Known`). An empty one where there was one before gets a fence: its windows do not
know what was received. One that ends before what was loaded of it, or that another took the place of, is not opened: it
would give numbers again, and take again what it has forgotten.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fleetgate.clock import Clock, Entropy
from fleetgate.durable import replace_durably
from fleetgate.errors import SpoolError
from fleetgate.judge.freshness import MAX_AHEAD_MS
from fleetgate.lock import Taken, hold
from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.cursor import read_cursor
from fleetgate.spool.files import SegmentFile
from fleetgate.spool.identity import Identity, read_identity
from fleetgate.spool.places import header_of, misplaced
from fleetgate.spool.reader import segment_paths
from fleetgate.spool.writer import SEGMENT_BYTES, Writer, recover_live


class Known(NamedTuple):
    """What is known elsewhere of a spool: its identity in hex, the last segment that was loaded, whether another was
    begun in its place, and the latest time of receipt (Unix ms) among what was loaded, 0 where that is not known."""

    spool: str
    loaded: int
    replaced: bool
    newest_received_ms: int = 0


Witness = Callable[[], Sequence[Known] | None]
"""Gives all spools there were here; None where nobody can know."""


def _no_spool_before() -> Sequence[Known]:
    return ()


class Spool:
    """An opened spool: `writer` appends, `checkpoint` remembers, `cut_bytes` were behind the last good record."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        entropy: Entropy,
        segment_bytes: int = SEGMENT_BYTES,
        witness: Witness = _no_spool_before,
    ) -> None:
        self.directory = directory
        known = witness()
        if (directory / "identity").exists() and not (directory / "segments").is_dir():
            # Numbers behind the checkpoint were given, and nobody knows how many.
            raise SpoolError(
                f"{directory / 'segments'} is missing beside the identity of a spool that was in use: restore it, or "
                "see what `fleetgate spool repair` can do without it"
            )
        try:
            for name in ("segments", "parked"):
                (directory / name).mkdir(mode=0o750, parents=True, exist_ok=True)
            self._lock = take_lock(directory / "lock", "edge")
            self.identity, self.checkpoint = _begun(directory) or _begin(directory, clock, entropy, known)
            self._refuse_strangers()
            self._make_room()
            if (directory / "identity").read_bytes() != self.identity.packed():
                replace_durably(directory / "identity", self.identity.packed())  # an earlier one, without a checksum
            self.cut_bytes = recover_live(directory)
        except OSError as error:
            raise SpoolError(
                f"cannot open the spool {directory}: {error.strerror}; mend its disk and start the edge again"
            ) from None
        last = self._last_segment()
        self._refuse_older_copy(last, known or ())
        self.writer = Writer(directory, bytes.fromhex(self.identity.spool), last + 1, clock, entropy, segment_bytes)

    def _last_segment(self) -> int:
        """The highest number that was ever given: segments may be deleted, cursor and checkpoint remember.

        Raises SpoolError unless every segment behind the checkpoint is there. Without them, or without the checkpoint,
        the replay windows are not what they were, and what was acknowledged before would be taken again as new.
        """
        position = last = self.checkpoint.segment()
        numbers = [number for number, _ in segment_paths(self.directory / "segments")]
        for number in numbers:
            last = number if number == last + 1 else last
        with contextlib.suppress(SpoolError):  # a damaged cursor is load's trouble, and told when deleting
            numbers.append(self.loaded_through() or 0)
        highest = max(numbers, default=0)
        if highest > last:
            raise SpoolError(
                f"{self.directory}: segment {last + 1} is missing behind the checkpoint at {position}: restore the "
                "missing files or checkpoint.db; or see what `fleetgate spool repair` can do without them"
            )
        return last

    def _refuse_strangers(self) -> None:
        """Raises SpoolError for a file that is another segment than its name says: the windows would not have what is
        in the right one. And for those of a spool that this one never was: load would set each of them aside."""
        for number, path in self._paths():
            file = SegmentFile(number, "sealed", path)  # a live one beside a sealed one is for recover_live to judge
            header = header_of(path)
            if header is not None and (wrong := misplaced(file, header, self.identity)):
                raise SpoolError(f"{wrong}; see what `fleetgate spool repair` makes of it")

    def _make_room(self) -> None:
        """Deletes what `delete_loaded` would: on a full disk what comes next needs the room."""
        with contextlib.suppress(SpoolError):  # a damaged cursor is load's trouble, and told when deleting
            loaded, position = self.loaded_through() or 0, self.checkpoint.segment()
            if loaded <= max([position, *(number for number, _ in self._paths())]):
                for number, path in segment_paths(self.directory / "segments"):
                    if number <= min(loaded, position):
                        path.unlink()

    def _paths(self) -> list[tuple[int, Path]]:
        """Live and sealed segments."""
        return [entry for suffix in (".open", ".seg") for entry in segment_paths(self.directory / "segments", suffix)]

    def _refuse_older_copy(self, last: int, known: Sequence[Known]) -> None:
        """Raises SpoolError where more is known of this spool than it has itself."""
        remedy = "run `fleetgate spool repair --restored`, then start the edge"
        for one in known:
            if one.spool == self.identity.spool and one.replaced:
                raise SpoolError(f"{self.directory} is a former spool of this gate, another took its place: {remedy}")
            if one.spool == self.identity.spool and one.loaded > last:
                raise SpoolError(
                    f"{self.directory} is an older copy of this spool: segment {one.loaded} was loaded, and the last "
                    f"one here is {last}: {remedy}"
                )

    def loaded_through(self) -> int | None:
        """How far load has come in this spool, by its cursor; None when it does not say."""
        cursor = read_cursor(self.directory)
        return cursor.segment if cursor is not None and cursor.spool == self.identity.spool else None

    def waiting(self) -> int:
        """Sealed segments that load has not come to; 0 where its cursor cannot be believed."""
        try:
            loaded = self.loaded_through() or 0
        except SpoolError:
            return 0
        return sum(number > loaded for number in list(self.writer.sealed_sizes))

    def delete_loaded(self) -> int:
        """Deletes segments behind both the cursor and the durable checkpoint; how many.

        Raises SpoolError for a cursor that is damaged or ahead of everything written; then nothing is deleted.
        """
        loaded = self.loaded_through()
        if loaded is None:
            return 0
        if loaded >= self.writer.next_segment:
            raise SpoolError(f"{self.directory}/cursor.json names segment {loaded}, which was never written")
        return self.writer.delete_through(min(loaded, self.checkpoint.segment()))

    def free_bytes(self) -> int:
        """Free space on the spool's disk for an unprivileged process. Raises SpoolError for a disk that is gone."""
        try:
            status = os.statvfs(self.directory)
        except OSError as error:
            raise SpoolError(f"cannot look at {self.directory}: {error.strerror}; mend its disk and start") from None
        return status.f_bavail * status.f_frsize

    def oldest_age_ms(self, now_ms: int) -> int:
        """Age of the oldest sealed segment by its file's time; 0 when there is none."""
        oldest = min(self.writer.sealed_sizes, default=None)
        if oldest is None:
            return 0
        try:
            sealed_s = (self.directory / "segments" / f"{oldest:020d}.seg").stat().st_mtime
        except FileNotFoundError:
            return 0
        return max(0, now_ms - int(sealed_s * 1000))

    def close(self) -> None:
        self.checkpoint.close()
        os.close(self._lock)


def take_lock(path: Path, who: str) -> int:
    """Keeps every other such process off the spool until the descriptor is closed. Raises SpoolError, OSError."""
    try:
        return hold(path)
    except Taken:
        raise SpoolError(f"another {who} holds {path}: stop it, or give this one a spool of its own") from None


def _begun(directory: Path) -> tuple[Identity, Checkpoint] | None:
    """Identity and checkpoint of a spool that was in use; None for a directory in which none was ever begun.

    Raises SpoolError for one that has lost either.
    """
    identity, path = read_identity(directory), directory / "checkpoint.db"
    if identity is not None:
        if not path.exists():
            # The windows would begin empty and, where the segments are gone too, their numbers at 1.
            raise SpoolError(
                f"{path} is missing beside the identity of a spool that was in use: restore the spool's files, or see "
                "what `fleetgate spool repair` can do without them"
            )
        return identity, Checkpoint(path)
    if segment_paths(directory / "segments") or _was_used(path):
        raise SpoolError(
            f"{directory / 'identity'} is missing beside a checkpoint or segments: restore it, or "
            "`fleetgate spool repair`"
        )
    return None


def _was_used(path: Path) -> bool:
    """Whether there is a checkpoint at `path` with anything in it; a start that was killed leaves an empty one."""
    if not path.exists():
        return False
    checkpoint = Checkpoint(path)
    unused = checkpoint.unused()
    checkpoint.close()
    return not unused


def _begin(
    directory: Path, clock: Clock, entropy: Entropy, known: Sequence[Known] | None
) -> tuple[Identity, Checkpoint]:
    """The identity comes last: where there is one without a checkpoint, that was lost."""
    checkpoint = Checkpoint(directory / "checkpoint.db")
    former = [one.spool for one in known or () if not one.replaced]
    fence_ms = fence_from(clock.now_ms(), known or ()) if former or known is None else 0
    identity = Identity(entropy(16).hex(), clock.now_ms(), former, fence_ms)
    replace_durably(directory / "identity", identity.packed())
    return identity, checkpoint


def fence_from(now_ms: int, known: Sequence[Known]) -> int:
    """As far ahead as the clock of a sender may have been whose message was received before: of now, or of the newest
    receipt that is known, as the clock here may be behind that."""
    return max([now_ms, *(one.newest_received_ms for one in known)]) + MAX_AHEAD_MS
