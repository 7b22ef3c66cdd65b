"""Whether the edge's two small databases hold what an edge wrote: SQLite takes anything, and has no checksums.

Decides what a row must look like to be believed, for `verify` and `repair`. A number that rotted into another one
passes; what an edge could not go on with does not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from fleetgate.converting import converter
from fleetgate.errors import SpoolError
from fleetgate.judge.verdict import Reason
from fleetgate.spool.checkpoint import DeviceState, WindowState
from fleetgate.spool.format import AlertRecord

_Revision = Annotated[int, Meta(ge=0)]


class DenialRow(Struct, frozen=True, array_like=True):
    """A row of `denials` in denials.db; without a key digest it is of the whole device."""

    tenant: str
    device_id: str
    key_digest: Annotated[bytes, Meta(max_length=32)]
    reason: Reason
    revision: _Revision
    from_ms: Annotated[int, Meta(ge=0)] = 0


class ChangeForm(Struct, frozen=True):
    """The newest change of control that the edge has seen, as JSON (`control.records.Change`)."""

    revision: _Revision
    kind: str
    tenant: str
    device_id: str
    at_ms: int


_revision, _denial = converter(_Revision), converter(DenialRow)
_device_state, _windows = converter(DeviceState), converter(WindowState)
_decode_alert = msgspec.msgpack.Decoder(AlertRecord).decode
_decode_change = msgspec.json.Decoder(ChangeForm).decode


def _device(row: sqlite3.Row) -> None:
    """An earlier fleetgate knew no key ids and no software, and its scores were one number, which counts no more."""
    integers = dict.fromkeys(("kid", "kid_at", "decided_at", "epoch_sent_at", "seen_at"), 0)
    told: dict[str, Any] = integers | {"software": "", "issuer": ""} | dict(row)
    told["before_trouble"] = msgspec.json.decode(told.get("before_trouble", "null"))
    told["scores"] = msgspec.json.decode(told.get("scores", "[]"))
    _device_state([told.get(name, []) for name in DeviceState.__struct_fields__])


_FORMS: dict[str, dict[str, Callable[[sqlite3.Row], object]]] = {
    "checkpoint.db": {
        "position": lambda row: _revision(row[1]),
        "devices": _device,
        "alerts": lambda row: _decode_alert(row[1]),
        "windows": lambda row: _windows(row[2:]),
    },
    "denials.db": {
        "seen": lambda row: _revision(row[1]),
        "newest": lambda row: _decode_change(row[1]),
        "denials": lambda row: _denial(tuple(row)),
    },
}


def check_contents(path: Path) -> None:
    """Reads all of `checkpoint.db` or `denials.db`, where it is there; of a million devices it takes seconds.

    Raises SpoolError when SQLite finds it damaged, or a row is none that an edge wrote.
    """
    if not path.exists():
        return
    table = ""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=5)) as db:
            db.execute("PRAGMA query_only=ON")
            db.row_factory = sqlite3.Row
            [[verdict]] = db.execute("PRAGMA quick_check(1)").fetchall()
            if verdict != "ok":
                raise SpoolError(f"{path} is damaged: {verdict}")
            there = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
            for table in _FORMS[path.name].keys() & there:  # a start that was killed leaves none
                for row in db.execute(f"SELECT * FROM {table}"):  # noqa: S608
                    _FORMS[path.name][table](row)
    except sqlite3.Error as error:
        raise SpoolError(f"cannot read {path}: {error}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError) as error:
        raise SpoolError(f"{path} is damaged: a row of the table {table} ({error})") from None
