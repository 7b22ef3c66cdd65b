"""The rows of `segments` of one spool as a chain: each has a place, and a link over the link before and itself.

Decides what a row of the chain is and what its link covers: every column but `loaded_at` and the link. The order is
that in which load wrote the rows, which a repair or a retry may make another one than that of the numbers. Who signs
the newest link is decided by `control.signer`; what a broken chain means, by `proof`.
"""

from __future__ import annotations

import builtins
import hashlib
import threading
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from fleetgate import fault
from fleetgate.control.heads import NO_LINK, Head, next_link
from fleetgate.converting import converter
from fleetgate.load.absent import SPANS
from fleetgate.load.arrow import MILLISECONDS
from fleetgate.load.chainmemory import ChainMemory
from fleetgate.load.clickhouse import ClickHouse

_DOMAIN = b"fleetgate segment row 1\n"


class ChainRow(Struct, frozen=True, kw_only=True):
    """A row of `segments`; times are Unix ms, hashes hex. `place` 0 and no link: written before there was a chain.

    Its counts are of what it added; its hashes are those of all rows that the segment had then. `..._absent` are the
    only offsets at which rows of the segment may have come since (absent.py): without them, the rows must still have
    these hashes, whatever is appended to the chain."""

    spool: str
    segment: int
    sha256: str
    previous_sha256: str
    bytes: int
    opened_at: int
    first_received_at: int | None
    last_received_at: int | None
    messages: int
    events: int
    held_events: int
    rejections: int
    raw_messages: int
    received_ranges: int
    transitions: int
    damaged: int
    refused: int
    events_hash: str
    held_events_hash: str
    rejections_hash: str
    raw_messages_hash: str
    events_absent: list[tuple[int, int]]
    held_events_absent: list[tuple[int, int]]
    rejections_absent: list[tuple[int, int]]
    raw_messages_absent: list[tuple[int, int]]
    replaces: list[str]
    place: int = 0
    link: str = ""

    def digest(self) -> builtins.bytes:
        """SHA-256 over all of the row but its link, as JSON: an array of the values in the order above."""
        values = [getattr(self, name) for name in self.__struct_fields__ if name != "link"]
        return hashlib.sha256(_DOMAIN + msgspec.json.encode(values)).digest()

    def head(self) -> Head:
        return Head(self.spool, self.segment, self.sha256, self.place, self.link)


TIMES = ("opened_at", "first_received_at", "last_received_at")
COLUMNS = ", ".join(
    f"toUnixTimestamp64Milli({name}) AS {name}_ms" if name in TIMES else name for name in ChainRow.__struct_fields__
)


def chain_rows(clickhouse: ClickHouse, where: str, parameters: dict[str, str | int], order: str) -> list[ChainRow]:
    """The rows of `segments` that fit. Raises ClickHouseAway, Refused."""
    names = ChainRow.__struct_fields__
    found = clickhouse.rows(f"SELECT {COLUMNS} FROM segments WHERE {where} ORDER BY {order}", parameters)  # noqa: S608  columns of ours
    return [_chain_row(dict(zip(names, row, strict=True))) for row in found]


def newest_row(clickhouse: ClickHouse, spool: str) -> ChainRow | None:
    """The end of the chain of `spool` as ClickHouse has it; None before its first row."""
    found = chain_rows(clickhouse, "spool = {spool:String} AND place > 0", {"spool": spool}, "place DESC LIMIT 1")
    return found[0] if found else None


class Chain:
    """Appends rows to the chains of a spool and of those that it was; `newest` may be called from another thread."""

    def __init__(self, clickhouse: ClickHouse, memory: ChainMemory) -> None:
        self._clickhouse = clickhouse
        self._memory = memory
        self._lock = threading.Lock()
        self._newest: dict[str, ChainRow | None] = {}  # the spools whose ends are known

    def newest(self, spool: str) -> ChainRow | None:
        """The end of the chain; read from ClickHouse at a start, and after an insert whose answer was lost.

        Raises ClickHouseAway, SpoolError.
        """
        with self._lock:
            return self._read(spool)

    def doubt(self, spool: str, signed: Head | None) -> str:
        """Why no signature may be asked for this chain, of which `signed` is the newest signed head; empty where one
        may. Raises SpoolError."""
        with self._lock:
            return self._memory.doubt(spool, signed)

    def append(self, row: ChainRow, token: str, loaded_at: int) -> None:
        """Inserts `row` with its place and link, once. Raises ClickHouseAway, Refused, SpoolError."""
        with self._lock:
            newest = self._read(row.spool)
            if newest is not None and msgspec.structs.replace(newest, place=0, link="") == row:
                return  # an earlier try got through, and its answer did not
            place, link = (newest.place, newest.link) if newest else (0, NO_LINK)
            placed = msgspec.structs.replace(row, place=place + 1)
            linked = msgspec.structs.replace(placed, link=next_link(link, placed.digest()))
            self._memory.appending(row.spool, linked.place, linked.link, link)
            fault.point("chain.remembered")
            del self._newest[row.spool]
            self._clickhouse.insert("segments", _arrow(linked, loaded_at), token)
            self._newest[row.spool] = linked

    def _read(self, spool: str) -> ChainRow | None:
        if spool not in self._newest:
            newest = newest_row(self._clickhouse, spool)
            self._memory.meet(spool, *((newest.place, newest.link) if newest else (0, NO_LINK)))
            self._newest[spool] = newest
        return self._newest[spool]


def _arrow(row: ChainRow, loaded_at: int) -> pa.Table:
    columns: dict[str, Any] = {}
    for name in row.__struct_fields__:
        value = getattr(row, name)
        if name in TIMES:
            kind = MILLISECONDS
        elif name == "replaces":
            kind = pa.list_(pa.string())
        elif name.endswith("_absent"):
            kind, value = SPANS, [{"1": first, "2": last} for first, last in value]
        else:
            kind = pa.string() if isinstance(value, str) else pa.uint64()
        columns[name] = pa.array([value], type=kind)
    return pa.table({**columns, "loaded_at": pa.array([loaded_at], type=MILLISECONDS)})


_chain_row = converter(ChainRow, strict=False)  # a server may be set to put 64-bit numbers into quotes
