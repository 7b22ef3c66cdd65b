"""Files of a spool that are another segment than their names say, or another spool's, for a repair.

Decides which of them go aside, and where a copy of a missing segment is to be found: under another name, or among what
an earlier repair set aside. Only a copy that is whole by every checksum counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fleetgate.spool.custody import Custody, Step
from fleetgate.spool.examine import examine
from fleetgate.spool.files import SegmentFile, readable
from fleetgate.spool.identity import Identity
from fleetgate.spool.places import header_of, misplaced


class Astray:
    """Those of `files`; `others` are the rest, `highest` the highest number of this spool that one of them bears."""

    def __init__(self, custody: Custody, identity: Identity, files: Sequence[SegmentFile]) -> None:
        self._custody = custody
        self._identity = identity
        self._wrong: dict[SegmentFile, str] = {}
        self.highest = 0
        for file in files if identity.spool else ():  # without one nothing was ever received here
            header = header_of(file.path)
            if header is not None and (wrong := misplaced(file, header, identity)):
                self._wrong[file] = wrong
                if header.spool in identity.all():
                    self.highest = max(self.highest, header.segment)
        self.others = [file for file in files if file not in self._wrong]

    def steps(self) -> list[Step]:
        """Out of `segments/` they go aside; in `parked/` they stay, unless the right file is found."""
        steps = []
        for file, wrong in self._wrong.items():
            if file.state != "parked":
                remedy = "it is set aside, and put where it belongs if that place is empty"
                steps.append(Step(wrong, remedy, partial(self._custody.set_aside, file.path)))
            elif self.copy_of(file.number) is not None:
                remedy = "the file of this number, which lies elsewhere, takes its place; then `fleetgate spool retry`"
                steps.append(Step(wrong, remedy, partial(self._exchange, file)))
        return steps

    def copy_of(self, number: int) -> bytes | None:
        """Segment `number` as it was written."""
        for path in [*(file.path for file in self._wrong), *sorted(self._custody.parked.glob("*.damaged"))]:
            header = header_of(path)
            if header is not None and header.segment == number and header.spool in self._identity.all():
                data = readable(path)
                if examine(data, self._identity.all(), number, live=False).first_bad is None:
                    return data
        return None

    def _exchange(self, file: SegmentFile) -> None:
        copy = self.copy_of(file.number)
        self._custody.keep(file.path.stem, file.read() or b"")
        if copy is not None:
            self._custody.write(file.path, copy)
