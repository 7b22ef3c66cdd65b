"""Who a spool is: 16 random bytes from its creation, so that a restored or replaced disk is another spool.

Only reads; the identity is made once, by the edge, when it opens a new directory (`home`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from fleetgate.errors import SpoolError


class Identity(Struct, frozen=True, forbid_unknown_fields=True):
    """`spool` is 16 random bytes in hex, `created_at` Unix ms."""

    spool: str
    created_at: int


def read_identity(directory: Path) -> Identity | None:
    """The identity of the spool at `directory`; None before its edge first started."""
    path = directory / "identity"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise SpoolError(f"{path} is damaged: restore it from the spool's backup; it names every segment") from None
