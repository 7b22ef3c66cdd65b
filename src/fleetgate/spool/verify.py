"""`fleetgate verify spool`: is everything there, and is every byte of it as it was written?

Reads all segments whole, parked ones too, and changes nothing; sectors that the disk does not give any more are zeros
to it. What it can find in a spool alone:

1. identity     there, and in the header of every segment
2. numbers      no hole from the lowest segment to the highest, none between those and checkpoint or cursor
3. segments     header, checksum and content of each record, footer (count, offsets, peers, rows), trailer
4. databases    SQLite finds checkpoint.db and denials.db whole, each row is one that an edge could have written, and
                the checkpoint stands at a segment that was written
5. cursor       its checksum, its number, and that its SHA-256 is that of the file, where that still is

The spool's format chains no segment to the one before it: a file that was replaced as a whole by another well-formed
one, before load took it, is not seen here. What was loaded is chained in the table `segments`.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import msgspec
from msgspec import Struct

from fleetgate.errors import SpoolError
from fleetgate.spool.contents import check_contents
from fleetgate.spool.cursor import Cursor, read_cursor
from fleetgate.spool.examine import Damage, Examination, Remark, examine
from fleetgate.spool.files import SegmentFile, checkpoint_position, segment_files
from fleetgate.spool.identity import Identity, read_identity
from fleetgate.spool.places import altered, misplaced, missing


class Finding(Struct, frozen=True):
    """A segment that is not as it was written. `stops_at` is the byte where it stops being good; `lost_records` the
    records that are gone, their least number unless `exact`."""

    segment: int
    state: str
    stops_at: int
    good_records: int
    lost_records: int
    exact: bool
    damage: list[Damage]
    remarks: list[Remark]


class Report(Struct, frozen=True):
    """`trouble` is what is wrong with the spool as a whole, `notes` what is remarkable and not wrong. `loaded` is
    what is not as it was written and needs nothing: ClickHouse has it, and the edge deletes the file."""

    segments: int
    records: int
    findings: list[Finding]
    trouble: list[str]
    loaded: list[str]
    notes: list[str]

    @property
    def good(self) -> bool:
        return not self.findings and not self.trouble and not self.loaded


def verify(directory: Path) -> Report:
    """Raises OSError."""
    findings: list[Finding] = []
    trouble: list[str] = []
    notes: list[str] = []
    identity = _identity(directory, trouble)
    _databases(directory, identity, trouble)
    files = segment_files(directory)
    if not (directory / "segments").is_dir():
        trouble.append(f"{directory / 'segments'} is missing: what it held is lost, and which numbers were given")
    cursor = _cursor(directory, trouble)
    _positions(directory, identity, cursor, files, trouble)
    loaded = _changed_since(identity, cursor, files)
    spools = identity.all() if identity is not None else [bytes(16)]
    if identity is not None and (wrong := altered(identity, files, cursor)):
        trouble.append(wrong)
    segments = records = 0
    for file in files:
        data = file.read()
        if data is None:
            continue
        found = examine(data, spools, file.number, live=_live(file))
        segments += 1
        records += len(found.good)
        if identity is not None and (wrong := misplaced(file, found.segment.header, identity)):
            trouble.append(wrong)
        if found.first_bad is not None:
            findings.append(_finding(file, found, found.first_bad))
        if found.torn:
            notes.append(_torn(file, found))
        for offset, length in found.segment.lost:
            notes.append(f"segment {file.number}: {length} bytes at {offset} were given up by an earlier repair")
    notes += _set_aside(directory)
    return Report(segments, records, findings, trouble, loaded, notes)


def _live(file: SegmentFile) -> bool:
    return file.state == "live" and file.path.exists()


def _identity(directory: Path, trouble: list[str]) -> Identity | None:
    try:
        identity = read_identity(directory)
    except SpoolError as error:
        trouble.append(str(error))
        return None
    if identity is None:
        trouble.append(f"{directory / 'identity'} is missing: `fleetgate spool repair` reads it from the segments")
    return identity


def _databases(directory: Path, identity: Identity | None, trouble: list[str]) -> None:
    """Step 4, apart from the checkpoint's position."""
    try:
        check_contents(directory / "denials.db")
    except SpoolError as error:
        trouble.append(str(error))
    try:
        in_use = identity is not None or segment_files(directory)
        check_contents(directory / "checkpoint.db")
        if checkpoint_position(directory) is None and in_use:
            trouble.append(
                f"{directory / 'checkpoint.db'} is missing: what came before the oldest segment is forgotten"
            )
    except SpoolError as error:
        trouble.append(str(error))


def _positions(
    directory: Path,
    identity: Identity | None,
    cursor: Cursor | None,
    files: list[SegmentFile],
    trouble: list[str],
) -> None:
    """Step 2, and the cursor's number. An edge that runs writes and deletes meanwhile: `files` are from before the
    positions were read, and listed again after that."""
    position: int | None = None
    with contextlib.suppress(SpoolError):  # step 4 told it
        position = checkpoint_position(directory)
    numbers = {file.number for file in [*files, *segment_files(directory)] if file.state != "parked"}
    ours = cursor is not None and identity is not None and cursor.spool == identity.spool
    loaded = cursor.segment if cursor is not None and ours else 0
    highest = max([*numbers, position or 0])
    if loaded > highest:
        trouble.append(f"the cursor names segment {loaded}, and the last one written is {highest}")
    checkpointed = position if position is not None else loaded
    for low, high in missing(numbers, checkpointed, loaded if ours else None):
        which = f"segment {low} is" if low == high else f"segments {low} to {high} are"
        trouble.append(f"{which} missing: restore from a backup, or see `fleetgate spool repair`")


def _changed_since(identity: Identity | None, cursor: Cursor | None, files: list[SegmentFile]) -> list[str]:
    """Of step 5, whether the file that was loaded last is another one now, by a repair too."""
    if cursor is None or identity is None or cursor.spool != identity.spool:
        return []
    named = next((file for file in files if (file.number, file.state) == (cursor.segment, "sealed")), None)
    data = named.read() if named is not None else None
    if data is None or hashlib.sha256(data).hexdigest() == cursor.sha256:
        return []
    return [
        f"segment {cursor.segment} was loaded with SHA-256 {cursor.sha256} and is another file now: ClickHouse has "
        "what was loaded, there is nothing to mend, and the edge deletes the file when it is started"
    ]


def _cursor(directory: Path, trouble: list[str]) -> Cursor | None:
    try:
        return read_cursor(directory)
    except SpoolError as error:
        trouble.append(str(error))
        return None


def _finding(file: SegmentFile, found: Examination, first_bad: int) -> Finding:
    return Finding(
        segment=file.number,
        state=file.state,
        stops_at=first_bad,
        good_records=len(found.good),
        lost_records=found.lost_records,
        exact=found.exact,
        damage=[msgspec.structs.replace(damage, restored=b"") for damage in found.damage],
        remarks=found.remarks,
    )


def _torn(file: SegmentFile, found: Examination) -> str:
    at = len(found.data) - found.torn
    return (
        f"segment {file.number} is live and has {found.torn} bytes behind its last good record, at byte {at}: a write "
        "under way, or one that a crash tore; the next start of the edge cuts them off, they were not acknowledged"
    )


def _set_aside(directory: Path) -> list[str]:
    names = sorted(
        path.name for path in (directory / "parked").glob("*") if path.suffix in (".tail", ".open", ".damaged")
    )
    return [f"parked/{name} was set aside by a recovery or repair, and is kept for a person" for name in names]
