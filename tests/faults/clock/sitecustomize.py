"""Loaded by a process of the gate before anything else, where a trial sets the machine's clock: shifts wall time.

CLOCK_FILE names a file of eight bytes, the shift in nanoseconds; the trial (`clocks.py`) writes it while the process
runs. Monotonic time goes on as it does on a real machine. OpenSSL and SQLite ask the kernel and are not shifted.
"""

import mmap
import os
import struct
import time
from pathlib import Path

_path = os.environ.get("CLOCK_FILE")
if _path is not None:
    with Path(_path).open("rb") as _file:
        _shift = mmap.mmap(_file.fileno(), 8, prot=mmap.PROT_READ)
    _read = struct.Struct("<q").unpack_from
    _real_ns = time.time_ns

    def _time_ns() -> int:
        return _real_ns() + int(_read(_shift)[0])

    time.time_ns = _time_ns
    time.time = lambda: _time_ns() / 1e9
