"""Who a spool is: 16 random bytes from its creation, so that a restored or replaced disk is another spool.

Only reads; the identity is made once, by the edge, when it opens a new directory (`home`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from fleetgate.errors import SpoolError

Name = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class Identity(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`spool` is 16 random bytes in hex, `created_at` Unix ms.

    `former` are the identities it had before a repair gave it this one, or those of the spools in whose place it was
    begun on an empty disk: segments of theirs may still be there. Of what was sent before `fence_ms` (Unix ms) the
    replay windows may have forgotten something (see `repair`).
    """

    spool: Name
    created_at: int
    former: list[Name] = []
    fence_ms: int = 0

    def all(self) -> list[bytes]:
        """The 16 bytes of each identity this spool ever had, the present one first."""
        return [bytes.fromhex(name) for name in (self.spool, *self.former)]


def read_identity(directory: Path) -> Identity | None:
    """The identity of the spool at `directory`; None before its edge first started."""
    path = directory / "identity"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise SpoolError(f"{path} is damaged: restore it, or `fleetgate spool repair`") from None
