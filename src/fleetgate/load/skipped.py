"""Numbers of segments that load went past because their files were not there: `skipped.json` in the spool.

Decides what is still to be told of. A number stands there until load has had its segment, or until a person, who has
given it up, moves the file away: a new process does not forget that something acknowledged is in no table.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from fleetgate.durable import replace_durably
from fleetgate.errors import SpoolError

Ranges = list[tuple[int, int]]
"""[first, last], apart from each other and in order."""

_SOME: Ranges = [(0, 0)]
"""Stands for what nobody can tell, of a file that is damaged; segments are numbered from 1."""


class Skipped:
    """Keeps nothing in memory: what a person did to the file counts at once. Every method raises SpoolError while the
    file cannot be read or written."""

    def __init__(self, spool: Path) -> None:
        self._path = spool / "skipped.json"

    def count(self) -> int:
        return sum(last - first + 1 for first, last in self._read())

    def add(self, first: int, last: int) -> None:
        """These were not there. Durable when it returns; once more changes nothing."""
        merged: Ranges = []
        for start, end in sorted([*self._read(), (first, last)]):
            if merged and start <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        self._write(merged)

    def had(self, number: int) -> None:
        """The segment of this number came after all."""
        known = self._read()
        left: Ranges = []
        for first, last in known:
            parts = [(first, number - 1), (number + 1, last)] if first <= number <= last else [(first, last)]
            left += [(start, end) for start, end in parts if start <= end]
        if left != known:
            self._write(left)

    def _read(self) -> Ranges:
        try:
            return _decode(self._path.read_bytes())
        except FileNotFoundError:
            return []
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return list(_SOME)
        except OSError as error:
            raise SpoolError(f"cannot read {self._path}: {error.strerror}; mend the spool's disk") from None

    def _write(self, ranges: Ranges) -> None:
        try:
            replace_durably(self._path, msgspec.json.encode(ranges))
        except OSError as error:
            raise SpoolError(f"cannot write {self._path}: {error.strerror}; mend the spool's disk") from None


_decode = msgspec.json.Decoder(Ranges).decode
