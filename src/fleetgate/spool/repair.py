"""`fleetgate spool repair`: makes a spool whole again that is damaged or does not open, and says what that means.

Decides what can be kept, what stands in for what is gone, and when the replay windows can no longer be believed. It
works under the edge's lock, plans first and acts when told to, and deletes nothing: what it replaces goes to `parked/`.

What it does, the fence before all of it; a repair that was interrupted is begun again:

1. identity     missing or damaged: read from the headers of the segments, from the cursor, else a new one; a new one
                too where nothing else is left, as nothing says which numbers were given to segments; *fence*
2. checkpoint   missing or damaged: an empty one, before the oldest segment there is; *fence*
3. cursor       damaged: set aside; load offers every segment again, which changes nothing for those that are loaded
4. segments     every good record stays at its place, `lost` records stand for the others, the file as it was is kept
5. holes        an empty segment stands for each that is missing; *fence*
6. parked       the same as 4 for what load set aside; `fleetgate spool retry` then loads what could not be read before

The fence is a time: a message sent before it is refused as `too_old`, unless its own tag stands in its slot. Without
it, messages that the windows have forgotten would be taken as new and stored twice. A device that is refused so sends
the events again under a new number, but only where no earlier send of them stayed unanswered (docs/reference/reasons).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from fleetgate.clock import Clock, Entropy
from fleetgate.errors import NotFound, SpoolError
from fleetgate.judge.freshness import MAX_AHEAD_MS
from fleetgate.spool import format as fmt
from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.cursor import Cursor, read_cursor
from fleetgate.spool.custody import Custody
from fleetgate.spool.examine import Damage, Examination, Remark, empty_segment, examine, repaired
from fleetgate.spool.files import SegmentFile, checkpoint_position, parked_for, segment_files
from fleetgate.spool.identity import Identity, read_identity
from fleetgate.spool.verify import holes

MOST_HOLES = 10_000
"""Empty segments that one repair makes: some hours of a busy edge. More missing than that is another disk."""


_PAST = {
    True: "neither segments nor a checkpoint are left of the spool",
    False: "the spool was restored from an older copy",
}


class Step(NamedTuple):
    """One thing that is wrong, what is done about it, and `act`, which does it durably."""

    finding: str
    remedy: str
    act: Callable[[], None]


class Repair:
    """A plan for the spool in `custody`: all of it, or of one segment only.

    `restored` says that its files come from an older copy. Raises NotFound, SpoolError, OSError.
    """

    def __init__(
        self, custody: Custody, clock: Clock, entropy: Entropy, *, only: int | None = None, restored: bool = False
    ) -> None:
        self._custody = custody
        self._directory = custody.directory
        self._clock = clock
        self._entropy = entropy
        self._files = segment_files(custody.directory)
        self._position = 0
        self._fence = False
        self._identity, named = self._settle_identity(restored)
        checkpoint = self._settle_checkpoint()
        steps = self._of_all(checkpoint) if only is None else self._of_one(only, named + checkpoint)
        # The fence stands before anything that makes the spool open again, should the repair be interrupted.
        fence = [self._raise_fence()] if self._fence else []
        self.steps = named + fence + steps

    def _of_all(self, checkpoint: list[Step]) -> list[Step]:
        steps = checkpoint + self._settle_cursor()
        for file in self._files:
            steps += self._settle_segment(file)
        return steps + self._settle_holes()

    def _of_one(self, number: int, before: list[Step]) -> list[Step]:
        if before:
            raise SpoolError(f"{before[0].finding}: repair the whole spool first, without naming a segment")
        named = [file for file in self._files if file.number == number]
        if not named:
            raise NotFound(f"there is no segment {number}: `fleetgate spool ls` lists what is there")
        return [step for file in named for step in self._settle_segment(file)]

    # 1. identity

    def _settle_identity(self, restored: bool) -> tuple[Identity, list[Step]]:
        path = self._directory / "identity"
        known: Identity | None = None
        trouble = f"{path} is missing"
        try:
            known = read_identity(self._directory)
        except SpoolError as error:
            trouble = str(error).partition(":")[0]
        bare = not self._numbers() and not (self._directory / "checkpoint.db").exists()
        if known is not None and not restored and not bare:
            return known, []
        if known is None and not self._files and bare:
            return Identity("", 0), []  # nothing was ever received here: the edge begins it
        restored |= bare
        if known is None:
            known, source = self._guess_identity()
            remedy = f"it becomes {known.spool}, {source}"
        if restored:
            self._fence = True
            known = Identity(
                self._entropy(16).hex(), self._clock.now_ms(), [known.spool, *known.former], known.fence_ms
            )
            trouble = f"{_PAST[bare]}: its next numbers may have been used before"
            remedy = f"it gets a new identity, {known.spool}: segments from now on have names that never were"

        def act() -> None:
            if path.exists():
                self._custody.keep(path.name, path.read_bytes())
            self._custody.write(path, msgspec.json.encode(self._identity))

        return known, [Step(trouble, remedy, act)]

    def _guess_identity(self) -> tuple[Identity, str]:
        headers: list[fmt.Header] = []
        for file in self._files:
            with contextlib.suppress(fmt.DamagedError):
                headers.append(fmt.unpack_header((file.read() or b"")[: fmt.HEADER_BYTES]))
        cursor = self._cursor()
        if headers:
            newest = max(headers, key=lambda header: header.segment).spool.hex()
            former = sorted({header.spool.hex() for header in headers} - {newest})
            return Identity(newest, min(header.opened_at for header in headers), former), "as the segments say"
        if cursor is not None:
            return Identity(cursor.spool, self._clock.now_ms()), "as the cursor says"
        return Identity(self._entropy(16).hex(), self._clock.now_ms()), "a new one: there is no segment to name"

    # 2. checkpoint

    def _settle_checkpoint(self) -> list[Step]:
        path = self._directory / "checkpoint.db"
        numbers = self._numbers()
        try:
            position = checkpoint_position(self._directory, check=True)
            trouble = f"{path} is missing"
        except SpoolError as error:
            position, trouble = None, str(error)
        loaded = self._loaded()
        if position is not None:
            self._position = position
            return []
        if not self._identity.spool:
            return []  # nothing was ever received here
        self._position = min(numbers) - 1 if numbers else loaded
        self._fence = True

        def act() -> None:
            for name in (path, path.with_name("checkpoint.db-wal"), path.with_name("checkpoint.db-shm")):
                if name.exists():
                    self._custody.set_aside(name)
            checkpoint = Checkpoint(path)
            checkpoint.advance(self._position)
            checkpoint.close()
            self._custody.own(path)

        return [
            Step(
                trouble,
                f"an empty one is made that stands at segment {self._position}; scores of devices are gone",
                act,
            )
        ]

    # 3. cursor

    def _settle_cursor(self) -> list[Step]:
        path = self._directory / "cursor.json"
        try:
            read_cursor(self._directory)
        except SpoolError as error:
            finding = str(error).rpartition(":")[0]
            remedy = "it is set aside; load offers all segments again, which changes nothing for those that are loaded"
            return [Step(finding, remedy, lambda: self._custody.set_aside(path))]
        return []

    def _cursor(self) -> Cursor | None:
        with contextlib.suppress(SpoolError):
            return read_cursor(self._directory)
        return None

    def _loaded(self) -> int:
        cursor = self._cursor()
        return cursor.segment if cursor is not None and cursor.spool == self._identity.spool else 0

    # 4 and 6. segments

    def _settle_segment(self, file: SegmentFile) -> list[Step]:
        if file.state == "parked" and parked_for(file.path).why == "changed":
            return []  # it is evidence: somebody wants to compare it
        data = file.read() or b""
        found = examine(data, self._identity.all(), file.number, live=file.state == "live")
        if found.live and not found.good and not found.damage:
            return []  # nothing was committed; the next start sets it aside
        better = repaired(found)
        if better == data:
            return []
        if file.state != "parked" and file.number > self._position:
            # What was loaded and is forgotten now would be taken again; what is lost altogether is welcome again.
            self._fence |= not found.good or (found.lost_records > 0 and file.number <= self._loaded())

        where = "parked/" if file.state == "parked" else ""
        return [Step(_damage(found, where, file), _remedy(found, file), lambda: self._rewrite(file))]

    def _rewrite(self, file: SegmentFile) -> None:
        data = file.path.read_bytes()  # again: a plan with many segments need not fit into memory
        better = repaired(examine(data, self._identity.all(), file.number, live=file.state == "live"))
        self._custody.keep(file.path.stem, data)
        self._custody.write(file.path, better)

    # 5. holes

    def _settle_holes(self) -> list[Step]:
        numbers = self._numbers()
        highest = max([*numbers, self._loaded()])
        ranges = holes({number for number in numbers if number > self._position}, self._position + 1, highest)
        missing = [number for low, high in ranges for number in range(low, min(high, low + MOST_HOLES) + 1)]
        if not missing:
            return []
        if len(missing) > MOST_HOLES:
            raise SpoolError(
                f"{self._directory}: more than {MOST_HOLES} segments are missing between {missing[0]} and {highest}: "
                "this is not a hole in a spool but another one; restore it, or move it away to begin a new one"
            )
        self._fence = True
        lost = [number for number in missing if number > self._loaded()]

        def act() -> None:
            for number in missing:
                header = fmt.Header(bytes.fromhex(self._identity.spool), number, self._clock.now_ms())
                self._custody.write(self._directory / "segments" / f"{number:020d}.seg", empty_segment(header))

        names = ", ".join(f"{low}" if low == high else f"{low} to {high}" for low, high in ranges)
        return [
            Step(
                f"missing segments: {names}; {len(missing) - len(lost)} of them were loaded; what the other "
                f"{len(lost)} held is lost, unless they are restored from a backup instead",
                "an empty segment stands for each",
                act,
            )
        ]

    def _raise_fence(self) -> Step:
        """From when on the windows know everything: as far ahead of now as a sender's clock may have been."""
        fence_ms = max(self._clock.now_ms() + MAX_AHEAD_MS, self._identity.fence_ms)
        self._identity = msgspec.structs.replace(self._identity, fence_ms=fence_ms)
        path = self._directory / "identity"
        return Step(
            "the replay windows do not know any more all that was received",
            f"a fence: the edge takes nothing for {MAX_AHEAD_MS // 1000} s and then refuses as too_old what was sent "
            "before; devices send such events again under new numbers, except those that they had sent already and "
            "never had an answer for",
            lambda: self._custody.write(path, msgspec.json.encode(self._identity)),
        )

    def _numbers(self) -> set[int]:
        return {file.number for file in self._files if file.state != "parked"}


def _damage(found: Examination, where: str, file: SegmentFile) -> str:
    places: list[Damage | Remark] = [*found.damage, *found.remarks]
    first = min(places, key=lambda place: place.offset)
    return f"{where}{file.path.name}, {first.what}"


def _remedy(found: Examination, file: SegmentFile) -> str:
    kept = f"the file as it was is kept as parked/{file.path.stem}.damaged"
    if not found.lost_records:
        return f"nothing is lost: it is written again as it was; {kept}"
    lost = f"{'' if found.exact else 'at least '}{found.lost_records}"
    then = "; then `fleetgate spool retry` loads what could not be read before" if file.state == "parked" else ""
    return f"good records: {len(found.good)}, which stay; lost: {lost}; {kept}{then}"
