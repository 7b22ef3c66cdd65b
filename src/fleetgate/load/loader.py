"""The loop: sealed segments, in order, into control and ClickHouse, then the cursor.

For each segment: (1) read it, (2) hand its transitions and alerts on, (3) make columns, (4) insert, (5) advance the
cursor durably. A crash between any two of these repeats the segment harmlessly. While ClickHouse is away, transitions
of later segments are handed on all the same: a quarantine does not wait for a database of telemetry. Between two
segments what a person has released gets its turn. Decides what is set aside and when others are told (handover.py has
who); patience.py decides how it is tried again, inserts.py how an insert is made repeatable.
"""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from pathlib import Path
from typing import NamedTuple

from fleetgate import fault, log
from fleetgate.catalogue import Catalogue
from fleetgate.clock import Clock
from fleetgate.errors import SpoolError
from fleetgate.load.clickhouse import Refused
from fleetgate.load.columns import held_devices, segment_rows
from fleetgate.load.counts import Counts
from fleetgate.load.edgealerts import raise_alerts
from fleetgate.load.handover import Handover
from fleetgate.load.inserts import Inserts
from fleetgate.load.isolation import Refusal, in_words
from fleetgate.load.parking import REFUSED_IN_PART, Parking
from fleetgate.load.patience import Patience, Stopped
from fleetgate.load.skipped import Skipped
from fleetgate.load.unknown import UnknownNames
from fleetgate.spool.cursor import Cursor, read_cursor, write_cursor
from fleetgate.spool.files import SegmentFile
from fleetgate.spool.format import DamagedError
from fleetgate.spool.identity import Identity, read_identity
from fleetgate.spool.places import misplaced
from fleetgate.spool.reader import Segment, read_segment, segment_paths
from fleetgate.spool.requests import asked, withdraw

POLL_SECONDS = 0.05
"""How soon a sealed segment is noticed; the edge seals one a second at most, so looking is cheap."""

_NOBODY_CAN_SAY = "0" * 64
"""For the SHA-256 of a segment that cannot be read."""

QUIET_MS, AHEAD_MS = 10_000, 60_000
"""Nothing waited for so long, beside the age at which a segment is sealed: then nothing was received. And times of
receipt further ahead of load's own clock are an edge's wrong clock, which nobody should wait for."""

QUIET_SECONDS, HANGING_SECONDS = 2.0, 30.0
"""Of the machine's time, whatever clock the gate lives on. An edge that gets no CPU says nothing for a moment; one
whose disk hangs has a segment open that is not sealed. After half a minute it is taken for dead."""


class Settings(NamedTuple):
    """`spool` is the spool's directory, `segment_seconds` the age at which the edge seals a segment."""

    spool: Path
    segment_seconds: float = 1.0


class Loader:
    """Loads one spool; `run` in one thread, `unready` from any."""

    def __init__(
        self,
        settings: Settings,
        inserts: Inserts,
        catalogue: Catalogue,
        handover: Handover,
        patience: Patience,
        counts: Counts,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._inserts = inserts
        self._catalogue = catalogue
        self._handover = handover
        self._patience = patience
        self._counts = counts
        self._clock = clock
        self._stop = stop
        self._segments = settings.spool / "segments"
        self._parking = Parking(settings.spool / "parked", counts)
        self._skipped = Skipped(settings.spool)
        self._log = log.get("load")
        self._names: UnknownNames | None = None
        self._cursor: Cursor | None = None
        self._newest_received_ms = 0  # of what this process has loaded
        self._loaded_until_ms: int | None = None
        self._sign: tuple[int, ...] = ()  # of an edge that lives: what is loaded, and what it has open
        self._sign_since_s = time.monotonic()
        self._tried = 0  # up to this number a former process may have got anywhere
        patience.why = "the loader has not looked at its spool yet"

    def unready(self) -> str:
        """Why nothing is being loaded; empty when segments are."""
        return self._patience.why

    def loaded_until_ms(self) -> int | None:
        """Everything that the gate received before (Unix ms) is loaded; None while that is not known."""
        return self._loaded_until_ms

    def run(self) -> None:
        """Until `stop`; then the segment in hand is finished, unless ClickHouse or control is away.

        Raises SpoolError.
        """
        try:
            while not self._stop.is_set():
                if not self.step():
                    self._stop.wait(POLL_SECONDS)
        except Stopped:
            self._log.info("stopped_while_waiting", why=self._patience.why)
        except OSError as error:
            raise SpoolError(
                f"cannot work in {self._settings.spool}: {error.strerror}; load stops, mend the spool's disk and start "
                "it again: it goes on where it was"
            ) from None

    def step(self) -> bool:
        """Loads the next segment, and releases a piece of what was held; False when there is neither. Raises Stopped,
        SpoolError."""
        identity = read_identity(self._settings.spool)
        if identity is None:
            self._patience.note("")  # the edge has not started for the first time: nothing to load is not a fault
            return False
        # Read each time: a spool restored from an older copy brings an older cursor with it.
        cursor = self._stored_cursor(identity.spool)
        if cursor != self._cursor:
            self._cursor, self._tried = cursor, self._highest_tried(cursor)
        wanted = asked(self._settings.spool / "parked")[:1]  # one before each segment, so that they hold up nothing
        for path in wanted:
            self._try_again(identity, path)
        opened = [number for number, _ in segment_paths(self._segments, ".open")]  # first: it may be sealed meanwhile
        found = self._next(self._cursor.segment)
        self._patience.note("")
        if found is not None:
            if not self._cursor.sha256:
                self._patience.insist(
                    "control", lambda _: self._handover.progress.begin(identity.spool, identity.former)
                )
            self._load(identity, *found)
        elif self._nothing_comes(opened):
            quiet_ms = QUIET_MS + int(self._settings.segment_seconds * 1000)
            self._note_loaded_until(self._clock.now_ms() - quiet_ms)
        released = self._handover.releases.step(busy=found is not None)
        return bool(wanted) or found is not None or released

    def _nothing_comes(self, opened: list[int]) -> bool:
        """Whether the edge has received nothing for a while. What is in an open segment was, and is not loaded."""
        assert self._cursor is not None  # set by step
        sign, now_s = (self._cursor.segment, *opened), time.monotonic()
        if sign != self._sign:
            self._sign, self._sign_since_s = sign, now_s
        return now_s - self._sign_since_s >= (HANGING_SECONDS if opened else QUIET_SECONDS)

    def _note_loaded_until(self, at_ms: int) -> None:
        self._loaded_until_ms = min(max(self._loaded_until_ms or 0, at_ms), self._clock.now_ms() + AHEAD_MS)

    def _stored_cursor(self, spool: str) -> Cursor:
        cursor = read_cursor(self._settings.spool)
        if cursor is not None and cursor.spool == spool:
            return cursor
        if cursor is not None:
            self._log.warning("cursor_of_another_spool", cursor=cursor.spool, means="it starts at the first segment")
        return Cursor(spool, 0, "")

    def _highest_tried(self, cursor: Cursor) -> int:
        """The highest segment that another process may have tried, which left this cursor: the next one. Without a
        cursor (it was damaged and removed) any that is there, as what is parked of them has no row in `segments`. One
        that lost its sealed name in a power cut gets it back when the edge starts."""
        if cursor.sha256:
            found = self._next(cursor.segment)
            return found[0] if found else cursor.segment + 1
        there = [*segment_paths(self._segments), *segment_paths(self._segments, ".open")]
        return max((number for number, _ in there), default=1)

    def _next(self, after: int) -> tuple[int, Path] | None:
        path = self._segments / f"{after + 1:020d}.seg"
        if path.exists():
            return after + 1, path
        return next(((number, path) for number, path in segment_paths(self._segments) if number > after), None)

    def _load(self, identity: Identity, number: int, path: Path) -> None:
        assert self._cursor is not None  # set by step
        missing = number - self._cursor.segment - 1
        if missing and self._cursor.segment:
            first = self._cursor.segment + 1
            self._patience.insist("spool", lambda _: self._skipped.add(first, number - 1))
            self._log.error(
                "segments_missing",
                after=self._cursor.segment,
                count=missing,
                remedy="restore them into parked/, then `fleetgate spool retry`",
            )
        previous = "" if missing or self._cursor.sha256 == _NOBODY_CAN_SAY else self._cursor.sha256
        try:
            segment = read_segment(path)
        except DamagedError as error:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            self._park(path, number, "unreadable", str(error))
        except OSError as error:
            sha256 = _NOBODY_CAN_SAY
            self._park_unread(path, number, error)
        else:
            sha256 = segment.sha256.hex()
            fault.point("load.read")
            if self._in_its_place(identity, segment, path):
                self._patience.insist("control", lambda _: self._handover.transitions.hand_on(segment))
                fault.point("load.transitions")
                self._patience.insist("ClickHouse", lambda _: raise_alerts(self._handover.alerts, segment))
                self._load_segment(segment, path, previous)
        self._patience.insist("spool", lambda _: self._skipped.had(number))
        cursor = self._cursor = Cursor(identity.spool, number, sha256)
        self._patience.insist("spool", lambda _: write_cursor(self._settings.spool, cursor))
        self._handover.progress.reached(identity.spool, number, self._newest_received_ms)
        fault.point("cursor.written")

    def _in_its_place(self, identity: Identity, segment: Segment, path: Path) -> bool:
        """Whether the file is the segment that its name says, of this spool or one that it was; else it is parked."""
        number = int(path.stem)
        wrong = misplaced(SegmentFile(number, "sealed", path), segment.header, identity)
        if wrong:
            self._park(path, number, "misplaced", f"{wrong}: restore the one of this number")
        return not wrong

    def _try_again(self, identity: Identity, path: Path) -> None:
        """A parked segment that a person asked for (`fleetgate spool retry`): it goes when ClickHouse has all of it.

        The cursor passed it long ago and is not moved.
        """
        try:
            segment = read_segment(path)
        except FileNotFoundError:
            pass
        except DamagedError as error:
            self._park(path, int(path.stem), "unreadable", str(error))
        except OSError as error:
            self._park_unread(path, int(path.stem), error)
        else:
            if self._in_its_place(identity, segment, path) and self._load_parked(segment, path):
                self._log.info("parked_segment_loaded", segment=segment.header.segment)
                self._patience.insist("spool", lambda _: self._skipped.had(segment.header.segment))
                self._parking.release(path)
        withdraw(path)

    def _load_parked(self, segment: Segment, path: Path) -> bool:
        spool, before = segment.header.spool.hex(), segment.header.segment - 1
        previous = self._patience.insist("ClickHouse", lambda _: self._inserts.loaded(spool, before))
        self._patience.insist("control", lambda _: self._handover.transitions.hand_on(segment))
        self._patience.insist("ClickHouse", lambda _: raise_alerts(self._handover.alerts, segment))
        return self._load_segment(segment, path, previous or "", again=True)

    def _load_segment(self, segment: Segment, path: Path, previous: str, *, again: bool = False) -> bool:
        """Whether ClickHouse has all of it now; else it is parked. `again` when it was parked before."""
        spool, number, sha256 = segment.header.spool.hex(), segment.header.segment, segment.sha256.hex()
        found = self._patience.insist("ClickHouse", lambda _: self._inserts.loaded(spool, number, sha256))
        replaced = self._parking.before_repair(path)
        if found == sha256 and not again:
            self._counts.segments.labels("repeated").inc()
            return True
        if found not in (None, sha256, *replaced):
            self._park(path, number, "changed", f"it was loaded before with SHA-256 {found}, and is now {sha256}")
            return False
        if self._names is None:
            self._names = self._patience.insist("ClickHouse", lambda _: self._inserts.unknown_names())
        names = self._names
        rows = segment_rows(segment, self._catalogue, names)
        self._handover.suspects.look(segment, rows)
        whole = self._report_damage(segment, path, rows.undecodable)
        if segment.lost and not again:  # else they were told when the segment was parked
            self._counts.damaged.inc(len(segment.lost))
            self._log.error("records_given_up", segment=number, places=len(segment.lost))
        tried = again or number <= self._tried or bool(replaced or segment.lost)

        def insert(tries: int) -> bool:
            stored = self._inserts.loaded(spool, number, sha256) if tries else found
            if stored == sha256 and not again:  # the row in `segments` got through, and its answer did not
                return True
            return self._inserts.insert(
                segment,
                rows,
                names,
                previous,
                self._clock.now_ms(),
                tried or tries > 0,
                stored,
                replaced,
                lambda refused: self._set_aside(path, number, refused),
            )

        try:
            whole = self._patience.insist("ClickHouse", insert) and whole
        except Refused as error:
            self._park(path, number, "refused", str(error), error.code)
            return False
        self._handover.releases.held(held_devices(segment))
        self._newest_received_ms = max(self._newest_received_ms, rows.last_received_at or 0)
        if not again:
            self._note_loaded_until(rows.last_received_at or 0)
        self._counts.segments.labels("loaded").inc()
        self._log.debug("loaded", segment=number, **rows.counts)
        return whole

    def _set_aside(self, path: Path, number: int, refused: list[Refusal]) -> None:
        """Keeps the segment for the rows of it that ClickHouse refused; the others are loaded."""
        for refusal in refused:
            self._counts.refused.labels(refusal.table).inc(refusal.rows)
        if refused:
            self._park(path, number, REFUSED_IN_PART, in_words(refused), refused[0].error.code)

    def _report_damage(self, segment: Segment, path: Path, undecodable: list[int]) -> bool:
        """What is readable is loaded; the file is kept for what is not. Whether it is whole."""
        damaged = len(segment.damaged) + len(undecodable)
        if damaged:
            self._counts.damaged.inc(damaged)
            offsets = sorted([damage.offset for damage in segment.damaged] + undecodable)[:20]
            self._park(path, segment.header.segment, "damaged", f"damaged at {offsets} ({damaged} places)")
        return not damaged

    def _park(self, path: Path, number: int, why: str, error: str, code: int | None = None) -> None:
        self._parking.park(path, why, error, code, self._clock.now_ms())
        if why not in ("damaged", REFUSED_IN_PART):  # of which the rest is loaded
            self._counts.segments.labels("parked").inc()
        self._log.error("segment_set_aside", segment=number, why=why, error=error)

    def _park_unread(self, path: Path, number: int, error: OSError) -> None:
        """A sector that the disk does not give back costs its segment, and holds up nothing. Raises other errors."""
        if error.errno != errno.EIO:
            raise error
        remedy = "`fleetgate spool repair` keeps what can be read of it"
        self._park(path, number, "unreadable", f"the disk does not give it back ({error.strerror}): {remedy}")
