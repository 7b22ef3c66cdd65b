"""Held events that a person's decision released, copied into `events`, each exactly once.

Decides how: device by device, segment by segment, in the order of their numbers. Which events a decision releases is
decided by `control.releases`; that they are still in `held_events` afterwards, by the proof, which hashes them there.

ClickHouse is asked for the segments of which `held_events` has more than `releases` says. So there is nothing to
remember, and whatever brings them is found the same way: a decision, a message that was held after it because an edge
had not learned of it, a segment that is loaded late, a repair, a process that ended before it was done, a table that
was restored. Asked is at a start, for a new decision, and for each segment with held messages that is loaded.

For each segment (1) the events whose places are not in `events` are copied there, by one statement with a token of
segment, day and decision; (2) where some were there before, the rollups are completed, as that try may have ended
between table and views; (3) `releases` says so. A crash between any two repeats the segment harmlessly. Nothing rests
on what ClickHouse remembers of tokens (incarnation.py): a token only drops the insert of a sender that gave up, or
ended, or of another load, that arrives together with its repetition.

Never in the way of what is new: a piece is taken between two segments, once a second while more of them wait, and no
failure here holds up the loader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import msgspec
import pyarrow as pa

from fleetgate import fault, log
from fleetgate.clock import Clock
from fleetgate.control.releases import Release
from fleetgate.errors import ClickHouseAway, ControlAway
from fleetgate.load.arrow import MILLISECONDS
from fleetgate.load.clickhouse import ClickHouse, Parameters, Refused, insert_settings
from fleetgate.load.counts import Counts
from fleetgate.load.incarnation import incarnation
from fleetgate.load.rollups import complete_rollups, wait_for_quiet
from fleetgate.load.rowshash import FORMS

IS_COPY = "decision != ''"
"""Tells a released event from one that was accepted."""

LOOK_SECONDS = 1.0
"""How soon a decision is noticed."""

TURN_SECONDS = 1.0
"""So often a piece gets its turn while segments wait to be loaded."""

PAUSE_SECONDS = 5.0
"""After a failure; what is new in the spool does not wait for it."""

PIECE = 8
"""Segments in one go, of 60 ms of CPU each: so long the loader waits."""

MOST_SEGMENTS = 1_000
"""Looked up at once: their records stand in memory, up to 100,000 in each."""

HIDDEN = -1
"""Number of the refusal that is not ClickHouse's: it took rows that it then does not have."""

Device = tuple[str, str]
"""Tenant and device id."""

Since = Callable[[int], list[Release]]
"""The releases by the decision of this number and those behind it, in their order. Raises ControlAway."""

Of = Callable[[str, str], list[Release]]
"""Those of one device. Raises ControlAway."""

_HELD = (
    "tenant = {tenant:String} AND device_id = {device:String} "
    "AND received_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') "
    "AND received_at < fromUnixTimestamp64Milli({until:Int64}, 'UTC')"
)
_UNRELEASED = f"""
SELECT held.spool, held.segment, held.day, held.events, held.records, done.events
FROM (SELECT spool, segment, toUInt16(toDate(received_at)) AS day, count() AS events,
             arraySort(groupUniqArray(record_offset)) AS records
      FROM held_events WHERE {_HELD} GROUP BY spool, segment, day) AS held
LEFT JOIN (SELECT spool, segment, toUInt16(received_day) AS day, max(releases.events) AS events FROM releases
           WHERE tenant = {{tenant:String}} AND device_id = {{device:String}} AND decision = {{decision:String}}
           GROUP BY spool, segment, day) AS done USING (spool, segment, day)
WHERE held.events > done.events
ORDER BY held.spool, held.segment, held.day LIMIT {MOST_SEGMENTS}
"""  # noqa: S608  texts of ours

_COUNT = f"""
SELECT (SELECT count() FROM held_events WHERE {_HELD}),
       (SELECT sum(most) FROM
           (SELECT max(events) AS most FROM releases
            WHERE tenant = {{tenant:String}} AND device_id = {{device:String}} AND decision = {{decision:String}}
            GROUP BY spool, segment, received_day))
"""  # noqa: S608  texts of ours

# By the vehicles too, as `events` is ordered by them; a unit may have sat in several.
_THERE = (
    "FROM events WHERE tenant = {tenant:String} "  # noqa: S608
    "AND vehicle_id IN (SELECT DISTINCT vehicle_id FROM held_events WHERE " + _HELD + " AND {of}) AND {of} "
    "AND received_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')"
)
_PIECE = "spool = {spool:String} AND segment >= {first:UInt64} AND segment <= {last:UInt64}"
_MISSING = (
    "SELECT segment, toUInt16(toDate(received_at)) AS day, count() FROM held_events "  # noqa: S608
    f"WHERE {_HELD} AND {_PIECE} AND (segment, record_offset, event_index) NOT IN "
    f"(SELECT segment, record_offset, event_index {_THERE.replace('{of}', _PIECE)}) GROUP BY segment, day"
)
_ONE = (
    "spool = {spool:String} AND segment = {segment:UInt64} "
    "AND toYYYYMMDD(received_at) = toYYYYMMDD(toDate({day:UInt16}))"
)
_EVENT = FORMS["held_events"]
_COLUMNS = ("spool", "segment", *_EVENT.places, *_EVENT.names, *_EVENT.numbers, *_EVENT.times)
_ALL = (*_COLUMNS, *_EVENT.lists, *_EVENT.maps)
_COPIED = ", ".join("{decision:String} AS decision" if name == "decision" else name for name in _ALL)
_COPY = (
    f"SELECT {_COPIED} FROM held_events WHERE {_HELD} AND {_ONE} "  # noqa: S608
    f"AND (record_offset, event_index) NOT IN (SELECT record_offset, event_index {_THERE.replace('{of}', _ONE)}) "
    "ORDER BY record_offset, event_index"
)


class _Unit(NamedTuple):
    """A device's held events of one segment and day (counted from 1970) that are to be in `events`, with the offsets of
    their messages; `done` are those that `releases` has already."""

    spool: str
    segment: int
    day: int
    events: int
    records: list[int]
    done: int


_Piece = tuple[Release, list[_Unit]]
"""Of one spool."""


class Releases:
    """Used by one thread, the loader's. A failure is told, and tried again."""

    def __init__(self, clickhouse: ClickHouse, since: Since, of: Of, counts: Counts, clock: Clock) -> None:
        self._clickhouse = clickhouse
        self._since = since
        self._of = of
        self._counts = counts
        self._clock = clock
        self._log = log.get("load")
        self._waiting: dict[Device, None] = {}  # in the order in which they came
        self._pieces: list[_Piece] = []  # of the first of them
        self._newest: Release | None = None  # that was seen
        self._look_at = self._go_on_at = self._turn_at = clock.monotonic()
        self._said = ""

    def held(self, devices: Iterable[Device]) -> None:
        """Messages of these were loaded that were held."""
        self._waiting.update(dict.fromkeys(devices))

    def step(self, *, busy: bool = False) -> bool:
        """Releases a piece of what waits; False when nothing does, or when it has to wait longer. `busy` when there
        may be more segments to load."""
        now_s = self._clock.monotonic()
        if now_s < self._go_on_at or (busy and now_s < self._turn_at):
            return False
        self._turn_at = now_s + TURN_SECONDS
        try:
            if now_s >= self._look_at:
                self._look()
                self._look_at = now_s + LOOK_SECONDS
            device = next(iter(self._waiting), None)
            if device is not None and not self._release_some(*device):
                del self._waiting[device]
        except (ClickHouseAway, ControlAway, Refused) as error:
            self._give_way(error)
            return False
        self._counts.releases_waiting.set(len(self._waiting))
        self._said = ""
        return device is not None

    def _look(self) -> None:
        newest = self._newest
        found = self._since(newest.decision_id if newest is not None else 0)
        if newest is not None and [release.decision for release in found[:1]] != [newest.decision]:
            # The records were restored from an older copy: they give the same numbers to other decisions.
            newest, found = None, self._since(0)
        for release in found if newest is None else found[1:]:
            self._waiting[release.tenant, release.device_id] = None
        self._newest = found[-1] if found else None

    def _give_way(self, error: ClickHouseAway | ControlAway | Refused) -> None:
        self._go_on_at = self._clock.monotonic() + PAUSE_SECONDS
        self._pieces.clear()
        self._counts.releases_waiting.set(len(self._waiting))
        if isinstance(error, Refused) and self._waiting:  # the others go on; this one comes again behind them
            device = next(iter(self._waiting))
            del self._waiting[device]
            self._waiting[device] = None
        if str(error) != self._said:
            self._said = str(error)
            self._log.warning("held_events_wait", error=self._said)

    def _release_some(self, tenant: str, device_id: str) -> bool:
        """Whether there was something; of a device whose decisions are all done there is not."""
        if not self._pieces:
            self._pieces = [found for release in self._of(tenant, device_id) for found in self._unreleased(release)]
        if not self._pieces:
            return False
        release, piece = self._pieces.pop(0)
        # Once it is in quarantine again, what it sends is held for that. Control heard of it before such messages were
        # loaded, so control is asked after ClickHouse was.
        if release in self._of(tenant, device_id):
            self._release(release, piece)
        else:
            self._pieces.clear()
        return True

    def _unreleased(self, release: Release) -> Iterator[_Piece]:
        rows = self._clickhouse.rows(_UNRELEASED, _parameters(release))
        units = [
            _Unit(spool, int(segment), int(day), int(events), list(map(int, records)), int(done))
            for spool, segment, day, events, records, done in rows
        ]
        for _, some in groupby(units, key=lambda unit: unit.spool):
            of_spool = list(some)
            for start in range(0, len(of_spool), PIECE):
                yield release, of_spool[start : start + PIECE]

    def _release(self, release: Release, piece: list[_Unit]) -> None:
        life = incarnation(self._clickhouse, self._clock.now_ms())
        missing = self._missing(release, piece)
        fault.point("release.begun")
        for unit in piece:
            self._copy(release, unit, missing.get((unit.segment, unit.day), 0), life)
        missing = self._missing(release, piece)
        if any((unit.segment, unit.day) in missing for unit in piece):
            raise Refused(HIDDEN, "ClickHouse says that it has released events which are not there: restart it")
        self._note(release, piece, life)
        fault.point("release.noted")
        moved = sum(unit.events - unit.done for unit in piece)
        self._counts.released.inc(moved)
        facts = {"decision": release.decision, "tenant": release.tenant, "device": release.device_id}
        self._log.info("held_events_released", segments=len(piece), events=moved, **facts)

    def _copy(self, release: Release, unit: _Unit, missing: int, life: str) -> None:
        """The same token for whoever finds nothing there; another for whoever finds a part."""
        tried = missing < unit.events
        token = f"{unit.spool}-{unit.segment}-{unit.day}-{release.decision}-{life}"
        if tried:
            wait_for_quiet(self._clickhouse)
            token += f"-{missing}-of-{unit.events}"
        if missing:
            of: Parameters = {"spool": unit.spool, "segment": unit.segment, "day": unit.day}
            # One stream is one block, and one block has one token and comes whole or not at all.
            settings = f"{insert_settings(token)}, max_threads = 1, max_insert_threads = 1"
            target = f"INSERT INTO events ({', '.join(_ALL)}) SETTINGS {settings}"
            self._clickhouse.command(f"{target} {_COPY}", {**_parameters(release), **of})
            fault.point("release.copied")
        if tried:
            complete_rollups(self._clickhouse, unit.spool, unit.segment, unit.day)

    def _missing(self, release: Release, piece: list[_Unit]) -> dict[tuple[int, int], int]:
        """By segment and day: held events of them whose places are not in `events`."""
        of: Parameters = {"spool": piece[0].spool, "first": piece[0].segment, "last": piece[-1].segment}
        found = self._clickhouse.rows(_MISSING, {**_parameters(release), **of})
        return {(int(segment), int(day)): int(count) for segment, day, count in found}

    def _note(self, release: Release, piece: list[_Unit], life: str) -> None:
        count, now_ms = len(piece), self._clock.now_ms()
        texts = {"decision": release.decision, "tenant": release.tenant, "device_id": release.device_id}
        rows = {
            **{name: pa.array([text] * count) for name, text in texts.items()},
            "spool": pa.array([unit.spool for unit in piece]),
            "segment": pa.array([unit.segment for unit in piece], type=pa.uint64()),
            "received_day": pa.array([unit.day for unit in piece], type=pa.uint16()),
            "records": pa.array([unit.records for unit in piece], type=pa.list_(pa.uint64())),
            "events": pa.array([unit.events for unit in piece], type=pa.uint64()),
            "released_at": pa.array([now_ms] * count, type=MILLISECONDS),
        }
        what = hashlib.sha256(msgspec.json.encode([release.decision, piece])).hexdigest()
        self._clickhouse.insert("releases", pa.table(rows), f"releases-{what}-{life}")


def count_of(clickhouse: ClickHouse, release: Release) -> tuple[int, int]:
    """How many held events it gives back, as far as they are loaded, and how many of them are in `events`. Raises
    ClickHouseAway."""
    [[held, done]] = clickhouse.rows(_COUNT, _parameters(release))
    return int(held), int(done or 0)


def _parameters(release: Release) -> Parameters:
    who: Parameters = {"tenant": release.tenant, "device": release.device_id, "decision": release.decision}
    return {**who, "from": release.from_ms, "until": release.until_ms}
