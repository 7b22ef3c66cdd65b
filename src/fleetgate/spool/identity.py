"""Who a spool is: 16 random bytes from its creation, so that a restored or replaced disk is another spool.

Decides what stands in the file, with a checksum: by one other digit in it an edge would take again what it had. The
identity is made once, by the edge, when it opens a new directory (`home`), and perhaps again by a repair.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from fleetgate.errors import SpoolError

Name = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]


class Identity(Struct, frozen=True, omit_defaults=True):
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

    def packed(self) -> bytes:
        """What stands in the file."""
        return msgspec.json.encode(_File(self.spool, self.created_at, self.former, self.fence_ms, self.checksum()))

    def checksum(self) -> int:
        """Of all that stands in the file but for it."""
        return zlib.crc32(msgspec.json.encode(Identity(self.spool, self.created_at, self.former, self.fence_ms)))


class _File(Identity, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`crc32` is missing in the file of an earlier fleetgate, until its edge starts."""

    crc32: int | None = None


def read_identity(directory: Path) -> Identity | None:
    """The identity of the spool at `directory`; None before its edge first started. Raises SpoolError."""
    path = directory / "identity"
    damaged = SpoolError(f"{path} is damaged: restore it, or `fleetgate spool repair`")
    try:
        file = _decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise damaged from None
    if file.crc32 not in (None, file.checksum()):
        raise damaged
    return Identity(file.spool, file.created_at, file.former, file.fence_ms)


_decode = msgspec.json.Decoder(_File).decode
