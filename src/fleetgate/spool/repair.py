"""`fleetgate spool repair`: makes a spool whole again that is damaged or does not open, and says what that means.

Decides what can be kept, what stands in for what is gone, and when the replay windows can no longer be believed. It
works under the edge's lock, plans first and acts when told to, and deletes nothing: what it replaces goes to `parked/`.

What it does, the fence before all of it; a repair that was interrupted is begun again:

1. identity     missing, damaged or one that nothing here bears: read from the headers of the segments, from the cursor,
                else a new one; a new one too where nothing else is left, as nothing says which numbers were given to
                segments; *fence*, as the old one may have had one
2. checkpoint   missing or damaged: an empty one, before the oldest segment there is; *fence*
3. denials      damaged: set aside; the edge learns from control whom to refuse
   cursor       damaged: set aside; load offers every segment again, which changes nothing for those that are loaded
4. places       a file that is another segment than its name says, or another spool's, goes aside
5. segments     every good record stays at its place, `lost` records stand for the others, the file as it was is kept
6. holes        what is missing is put back where a whole copy was set aside; else an empty segment stands for it, with
                a *fence* unless the checkpoint has it
7. parked       the same as 4 and 5 for what load set aside; `fleetgate spool retry` then loads it

The fence is a time: a message sent before it is refused as `too_old`, unless its own tag stands in its slot. Without
it, messages that the windows have forgotten would be taken as new and stored twice. A device that is refused so sends
the events again under a new number, but only where no earlier send of them stayed unanswered (docs/reference/reasons).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

import msgspec

from fleetgate.clock import Clock, Entropy
from fleetgate.durable import sync_directory
from fleetgate.errors import NotFound, SpoolError
from fleetgate.spool import format as fmt
from fleetgate.spool.astray import Astray
from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.contents import check_contents
from fleetgate.spool.cursor import Cursor, read_cursor
from fleetgate.spool.custody import Custody, Step
from fleetgate.spool.examine import Damage, Examination, Remark, empty_segment, examine, repaired
from fleetgate.spool.files import SegmentFile, checkpoint_position, parked_for, segment_files
from fleetgate.spool.home import Known, fence_from
from fleetgate.spool.identity import Identity, read_identity
from fleetgate.spool.places import altered, borne_by, holes, missing
from fleetgate.spool.requests import ask

MOST_HOLES = 10_000
"""Empty segments that one repair makes: some hours of a busy edge. More missing than that is another disk."""


class Repair:
    """A plan for the spool in `custody`: all of it, or of one segment only.

    `restored` says that its files come from an older copy, `known` is what is known elsewhere of the spools there were
    here, None where nobody says. Raises NotFound, SpoolError, OSError.
    """

    def __init__(
        self,
        custody: Custody,
        clock: Clock,
        entropy: Entropy,
        *,
        only: int | None = None,
        restored: bool = False,
        known: Sequence[Known] | None = None,
    ) -> None:
        self._custody = custody
        self._directory = custody.directory
        self._clock = clock
        self._entropy = entropy
        self._known = known
        self._files = segment_files(custody.directory)
        self._position = 0
        self._fence = False
        self._identity, named = self._settle_identity(restored)
        self._astray = Astray(custody, self._identity, self._files)
        self._files = self._astray.others
        places = self._astray.steps()
        checkpoint = self._settle_checkpoint()
        steps = self._of_all(checkpoint, places) if only is None else self._of_one(only, named + checkpoint + places)
        # The fence stands before anything that makes the spool open again, should the repair be interrupted.
        fence = [self._raise_fence()] if self._fence else []
        self.steps = named + fence + steps

    def _of_all(self, checkpoint: list[Step], places: list[Step]) -> list[Step]:
        steps = checkpoint + self._settle_denials() + self._settle_cursor() + places
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
        if known is not None and (wrong := altered(known, self._files, self._cursor())):
            trouble, known = wrong, None
        gone = not (self._directory / "segments").is_dir()
        bare = not self._numbers() and not (self._directory / "checkpoint.db").exists()
        if known is not None and not restored and not bare and not gone:
            return known, []
        if known is None and not self._files and bare and not path.exists():
            return Identity("", 0), []  # nothing was ever received here: the edge begins it
        if known is None:
            self._fence = True  # there may have been one in it, and nobody knows of when
            known, source = self._guess_identity()
            remedy = f"it becomes {known.spool}, {source}"
        if restored or bare or gone:
            self._fence = True
            known = Identity(
                self._entropy(16).hex(), self._clock.now_ms(), [known.spool, *known.former], known.fence_ms
            )
            past = "the spool was restored from an older copy"
            if not restored:
                past = "neither segments nor a checkpoint are left of the spool" if bare else "its segments are gone"
            trouble = f"{past}: its next numbers may have been used before"
            remedy = f"it gets a new identity, {known.spool}: segments from now on have names that never were"

        def act() -> None:
            if path.exists():
                self._custody.keep(path.name, path.read_bytes())
            self._custody.write(path, self._identity.packed())
            (self._directory / "segments").mkdir(mode=0o750, exist_ok=True)
            self._custody.own(self._directory / "segments")

        return known, [Step(trouble, remedy, act)]

    def _guess_identity(self) -> tuple[Identity, str]:
        cursor = self._cursor()
        if (known := borne_by(self._files)) is not None:
            return known, "as the segments say"
        if cursor is not None:
            return Identity(cursor.spool, self._clock.now_ms()), "as the cursor says"
        return Identity(self._entropy(16).hex(), self._clock.now_ms()), "a new one: there is no segment to name"

    # 2. checkpoint

    def _settle_checkpoint(self) -> list[Step]:
        path = self._directory / "checkpoint.db"
        numbers = self._numbers()
        try:
            check_contents(path)
            position = checkpoint_position(self._directory)
            trouble = f"{path} is missing"
        except SpoolError as error:
            position, trouble = None, str(error)
        loaded = self._loaded()
        if position is not None:
            self._position = position
            return []
        if not self._identity.spool:
            return []  # nothing was ever received here
        # Numbers of parked segments were given too, by this spool or one before it, and go on being names in parked/.
        parked = max((file.number for file in self._files if file.state == "parked"), default=0)
        self._position = min(numbers) - 1 if numbers else max(loaded, parked)
        self._fence = True

        def act() -> None:
            self._custody.set_database_aside(path)
            # Under another name until it is whole: one that stood at 0 would have everything before it missing.
            new = path.with_name("checkpoint.new")
            for leftover in self._directory.glob("checkpoint.new*"):
                leftover.unlink()
            checkpoint = Checkpoint(new)
            checkpoint.advance(self._position)
            checkpoint.close()
            self._custody.own(new)
            new.rename(path)
            sync_directory(self._directory)

        return [
            Step(
                trouble,
                f"an empty one is made that stands at segment {self._position}; scores of devices are gone",
                act,
            )
        ]

    # 3. denials and cursor

    def _settle_denials(self) -> list[Step]:
        path = self._directory / "denials.db"
        try:
            check_contents(path)
        except SpoolError as error:
            remedy = (
                "it is set aside; the edge learns from control whom to refuse; where that is an older copy, what it "
                "does not know any more has to be decided again"
            )
            return [Step(str(error), remedy, lambda: self._custody.set_database_aside(path))]
        return []

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

    # 5 and 7. segments

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
            # What was loaded and is forgotten now would be taken again; what is lost altogether is welcome again. Load
            # may have inserted a part of the segment behind its cursor.
            may_have = file.state == "sealed" and file.number <= self._loaded() + 1
            self._fence |= not found.good or (found.lost_records > 0 and may_have)

        where = "parked/" if file.state == "parked" else ""
        loaded = file.state == "sealed" and file.number <= self._loaded()
        remedy = _remedy(found, file, loaded=loaded)
        return [Step(_damage(found, where, file), remedy, lambda: self._rewrite(file))]

    def _rewrite(self, file: SegmentFile) -> None:
        data = file.read() or b""  # again: a plan with many segments need not fit into memory
        better = repaired(examine(data, self._identity.all(), file.number, live=file.state == "live"))
        self._custody.keep(file.path.stem, data)
        self._custody.write(file.path, better)

    # 6. holes

    def _settle_holes(self) -> list[Step]:
        if not self._identity.spool:
            return []  # nothing was ever received here
        numbers, cursor = self._numbers(), self._cursor()
        ours = cursor is not None and cursor.spool == self._identity.spool
        ranges = missing(numbers, self._position, self._loaded() if ours else None, self._astray.highest)
        gone = [number for low, high in ranges for number in range(low, min(high, low + MOST_HOLES) + 1)]
        if not gone:
            return []
        if len(gone) > MOST_HOLES:
            raise SpoolError(
                f"{self._directory}: more than {MOST_HOLES} segments are missing, from {gone[0]} on: "
                "this is not a hole in a spool but another one; restore it, or move it away to begin a new one"
            )
        kept = [number for number in gone if self._astray.copy_of(number) is not None]
        lost = [number for number in gone if number not in kept]
        steps = []
        if kept:
            remedy = "put back as they were set aside; those that load has passed are handed to it again"
            steps.append(Step(f"missing segments: {_list(kept)}", remedy, partial(self._put_back, kept)))
        if lost:
            self._fence |= lost[-1] > self._position
            ahead = sum(number > self._loaded() for number in lost)
            finding = (
                f"missing segments: {_list(lost)}; load is behind {ahead} of them and has passed {len(lost) - ahead}; "
                "what it did not have of them is lost, unless they are restored from a backup instead"
            )
            steps.append(Step(finding, "an empty segment stands for each", partial(self._fill, lost)))
        return steps

    def _put_back(self, numbers: list[int]) -> None:
        for number in numbers:
            data = self._astray.copy_of(number)
            if data is None:
                continue  # taken away since the plan was made: the next repair tells
            if number <= self._loaded():
                # Load passed over the hole; behind its cursor it looks only at what is parked and asked for.
                parked = self._custody.parked / f"{number:020d}.seg"
                self._custody.write(parked, data)
                ask(parked)
            self._custody.write(self._directory / "segments" / f"{number:020d}.seg", data)

    def _fill(self, numbers: list[int]) -> None:
        for number in numbers:
            header = fmt.Header(bytes.fromhex(self._identity.spool), number, self._clock.now_ms())
            self._custody.write(self._directory / "segments" / f"{number:020d}.seg", empty_segment(header))

    def _raise_fence(self) -> Step:
        """From when on the windows know everything."""
        now_ms = self._clock.now_ms()
        fence_ms = max(fence_from(now_ms, self._known or ()), self._identity.fence_ms)
        self._identity = msgspec.structs.replace(self._identity, fence_ms=fence_ms)
        path = self._directory / "identity"
        doubt = "" if self._known is not None else "; control does not answer, so this machine's clock must be right"
        return Step(
            "the replay windows do not know all that was received, or nobody can tell any more",
            f"a fence: the edge takes nothing for {(fence_ms - now_ms) // 1000} s and then refuses as too_old what was "
            "sent before; devices send such events again under new numbers, except those that they had sent already "
            f"and never had an answer for{doubt}",
            lambda: self._custody.write(path, self._identity.packed()),
        )

    def _numbers(self) -> set[int]:
        return {file.number for file in self._files if file.state != "parked"}


def _list(numbers: list[int]) -> str:
    """Ranges of them, for a person."""
    apart = holes(set(range(numbers[0], numbers[-1] + 1)) - set(numbers), numbers[0], numbers[-1])
    return ", ".join(f"{low}" if low == high else f"{low} to {high}" for low, high in apart)


def _damage(found: Examination, where: str, file: SegmentFile) -> str:
    places: list[Damage | Remark] = [*found.damage, *found.remarks]
    first = min(places, key=lambda place: place.offset)
    return f"{where}{file.path.name}, {first.what}"


def _remedy(found: Examination, file: SegmentFile, *, loaded: bool) -> str:
    kept = f"the file as it was is kept as parked/{file.path.stem}.damaged"
    if not found.lost_records:
        return f"nothing is lost: it is written again as it was; {kept}"
    lost = f"{'' if found.exact else 'at least '}{found.lost_records}"
    if loaded:
        return (
            f"loaded already: ClickHouse has what is gone from this file (records: {lost}), which the edge deletes "
            f"when it is started; {kept}"
        )
    then = "; then `fleetgate spool retry` loads what could not be read before" if file.state == "parked" else ""
    return f"good records: {len(found.good)}, which stay; lost: {lost}; {kept}{then}"
