"""What load remembers of the end of each chain it wrote: `chain.json` in the spool, out of reach of ClickHouse.

Decides whether the end that ClickHouse shows is the one load wrote. It is when it is the row remembered, or the one
before it: what is remembered is durable before the row is inserted, and the insert may not have got through. Every
other end was made by somebody else, and so no signature is asked for it: the doubt is remembered too, whatever is
loaded on top. Costs a small write with its fsync for each segment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from fleetgate.control.heads import NO_LINK, Head
from fleetgate.durable import replace_durably
from fleetgate.errors import SpoolError

_REMEDY = (
    ": see what `fleetgate verify segments` finds. Telemetry is loaded, and not signed until `fleetgate spool repair "
    "--restored` gives the spool a new identity, and with it a new chain"
)


class End(Struct, frozen=True, forbid_unknown_fields=True):
    """A row by place and link, with the link before it. With a `doubt`, `base` are place and link of the end that was
    found and that load cannot vouch for."""

    place: int
    link: str
    before: str
    doubt: Literal["", "unknown", "changed"] = ""
    base: tuple[int, str] = (0, NO_LINK)


class ChainMemory:
    """Not for several threads at once. Every method raises SpoolError while its file cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ends: dict[str, End] | None = None

    def meet(self, spool: str, place: int, link: str) -> None:
        """Compares the end that ClickHouse has (place 0: none) with what is remembered, and keeps a doubt."""
        known = self._read().get(spool)
        if known is None:
            if place:
                self._write(spool, End(place, link, "", "unknown", (place, link)))
        elif (place, link) not in ((known.place, known.link), (known.place - 1, known.before)):
            self._write(spool, End(place, link, "", "changed", (place, link)))

    def appending(self, spool: str, place: int, link: str, before: str) -> None:
        """A row is about to be inserted. Durable when it returns."""
        known = self._read().get(spool)
        doubt, base = (known.doubt, known.base) if known is not None else ("", (0, NO_LINK))
        self._write(spool, End(place, link, before, doubt, base))

    def doubt(self, spool: str, signed: Head | None) -> str:
        """Why the chain's end is not known to be load's; empty where it is. Where nothing was remembered, the end that
        was found is taken over if it is exactly the newest head that the signer has signed."""
        known = self._read().get(spool)
        if known is None or not known.doubt:
            return ""
        if known.doubt == "unknown":
            if signed is not None and (signed.place, signed.link) == known.base:
                self._write(spool, End(known.place, known.link, known.before))
                return ""
            return (
                f"{self._path} did not say where the chain of spool {spool} ends, and what ClickHouse had (place "
                f"{known.base[0]}) is not the newest signed head{_REMEDY}"
            )
        return (
            f"the chain of spool {spool} ended at place {known.base[0]} with a row that load did not write last: rows "
            f"of `segments` were added or taken away{_REMEDY}"
        )

    def _read(self) -> dict[str, End]:
        if self._ends is None:
            try:
                self._ends = _decode(self._path.read_bytes())
            except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
                self._ends = {}  # a damaged one says as much as none
            except OSError as error:
                raise SpoolError(f"cannot read {self._path}: {error.strerror}; mend the spool's disk") from None
        return self._ends

    def _write(self, spool: str, end: End) -> None:
        ends = {**self._read(), spool: end}
        try:
            replace_durably(self._path, msgspec.json.encode(ends))
        except OSError as error:
            raise SpoolError(f"cannot write {self._path}: {error.strerror}; mend the spool's disk") from None
        self._ends = ends


_decode = msgspec.json.Decoder(dict[str, End]).decode
