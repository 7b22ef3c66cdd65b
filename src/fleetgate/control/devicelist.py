"""The list of devices that many are enrolled from: CSV in UTF-8, with a first line that names the columns.

    tenant,vehicle,device,csr

`device` and `csr` may be absent or empty: the device is then `<vehicle>-tcu`, and its key is made here. A `csr` is a
path, relative to the list. Decides what can be read; a row that cannot says why, and the others are read all the same.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from fleetgate.control.bulk import Row
from fleetgate.control.csr import MAX_CSR_BYTES
from fleetgate.errors import ConfigError

COLUMNS = ("tenant", "vehicle", "device", "csr")
REQUIRED = frozenset({"tenant", "vehicle"})
MAX_SHOWN = 63  # of a name that is no column's
MAX_LINE = 4096  # ids have 63 characters, a path 4,095 at most: what is longer is not this list


def read_list(path: Path) -> list[Row]:
    """Raises ConfigError for a file that cannot be read, or whose first line does not name the columns."""
    try:
        # Bytes that are no text stay in the row, where the pattern of ids refuses them.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return list(_rows(file, path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def _rows(file: TextIO, path: Path) -> Iterator[Row]:
    reader = csv.reader(iter(lambda: file.readline(MAX_LINE), ""))
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error:
        names = []
    trouble = _trouble_of(names)
    if trouble:
        raise ConfigError(f"{path}: the first line must name the columns, such as {','.join(COLUMNS)}; {trouble}")
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(reader.line_num, trouble=f"it is no line of CSV ({error})")
            continue
        if not cells:
            continue
        if len(cells) != len(names):
            yield Row(reader.line_num, trouble=f"it has {len(cells)} fields, not {len(names)}")
            continue
        yield _row(reader.line_num, dict(zip(names, (cell.strip() for cell in cells), strict=True)), path.parent)


def _trouble_of(names: list[str]) -> str:
    missing = [name for name in COLUMNS if name in REQUIRED and name not in names]
    if missing:
        return f"it does not name {' and '.join(missing)}"
    for number, name in enumerate(names):
        if name not in COLUMNS:
            return f"there is no column {name[:MAX_SHOWN]!r}"
        if name in names[:number]:
            return f"it names {name} twice"
    return ""


def _row(line: int, cells: dict[str, str], directory: Path) -> Row:
    tenant, vehicle_id = cells["tenant"], cells["vehicle"]
    device_id = cells.get("device") or f"{vehicle_id}-tcu"
    name = cells.get("csr")
    if not name:
        return Row(line, tenant, vehicle_id, device_id)
    try:
        with (directory / name).open("rb") as file:
            return Row(line, tenant, vehicle_id, device_id, file.read(MAX_CSR_BYTES + 1))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a path"
        return Row(line, tenant, vehicle_id, device_id, trouble=f"cannot read the certificate request {name!r}: {why}")
