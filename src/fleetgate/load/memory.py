"""Keeps the load process small: freed memory goes back to the system once the process has grown.

Decides when, and that a purge which fails is no failure of the insert beside it. Three allocators (glibc's, Arrow's,
ClickHouse's jemalloc) each keep for a while what was freed; together that was 0.3 to 0.5 GB above what was
in use. Keeping nothing, ClickHouse's inserts took twice the CPU, for new pages. What giving back above a bound costs
was not found: runs of 24 segments with and without it differed less than runs of the same kind did (18 to 24 s of CPU).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from fleetgate import log

RELEASE_ABOVE_BYTES = 512 * 1024**2
"""380 MiB are there before the first segment, most of it chdb's code; a large one (30 MiB, 7 million readings) takes
400 to 600 MiB more while it is inserted, and the process is to stay under 1 GB."""

_said = False
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_trim_glibc: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def release(purge_clickhouse: Callable[[], None]) -> None:
    """Gives back what is free, if the process is large; costs 20 us if it is not. A purge may fail."""
    if resident_bytes() <= RELEASE_ABOVE_BYTES:
        return
    pa.default_memory_pool().release_unused()
    if _trim_glibc is not None:
        _trim_glibc(0)
    try:
        purge_clickhouse()
    except Exception as error:  # ClickHouseAway or Refused: the rows are in, and the memory is given back another time
        _say_once(str(error))


def _say_once(error: str) -> None:
    """In the log, the first time in the life of the process."""
    global _said
    if not _said:
        _said = True
        log.get("load").warning("memory_not_given_back", error=error, means="load grows: watch its size")
