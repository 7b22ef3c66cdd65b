"""Signed heads from wherever they are kept: ClickHouse, the signer's own log, an exported file.

Decides the form of an export, and which heads count: those whose signature the audit public key verifies. Whoever can
write into ClickHouse can take heads away there; an export that is kept elsewhere cannot be taken along.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from fleetgate.control.heads import Head, SignedHead, check_signature
from fleetgate.errors import CheckFailed, ConfigError
from fleetgate.load.clickhouse import ClickHouse

FORMAT = "fleetgate-heads-1"


class Export(Struct, frozen=True, forbid_unknown_fields=True):
    """What `fleetgate heads export` writes, as JSON."""

    format: str
    heads: list[SignedHead]


_SELECT = """
SELECT spool, segment, sha256, place, link, toUnixTimestamp64Milli(signed_at), key_id, signature
FROM segment_heads WHERE {spool:String} = '' OR spool = {spool:String} ORDER BY spool, place, signed_at
"""


def stored_heads(clickhouse: ClickHouse, spool: str = "") -> list[SignedHead]:
    """The heads in ClickHouse, of one spool or of all. Raises ClickHouseAway; CheckFailed for a row that is no head."""
    found = []
    for row in clickhouse.rows(_SELECT, {"spool": spool}):
        head = dict(zip(Head.__struct_fields__, row[:5], strict=True))
        signed = {"head": head, "signed_at": row[5], "key_id": row[6], "signature": row[7]}
        try:
            found.append(msgspec.convert(signed, SignedHead, strict=False))
        except msgspec.ValidationError as error:
            raise CheckFailed(f"a row of segment_heads (spool {row[0]}, place {row[3]}) is no head: {error}") from None
    return found


def read_export(path: Path) -> list[SignedHead]:
    """Raises ConfigError."""
    try:
        export = msgspec.json.decode(path.read_bytes(), type=Export)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no export of heads: {error}") from None
    if export.format != FORMAT:
        raise ConfigError(f"{path} is an export of another format ({export.format!r})")
    return export.heads


def sort_out(
    heads: Iterable[SignedHead], key: Ed25519PublicKey
) -> tuple[list[SignedHead], list[tuple[SignedHead, str]]]:
    """The heads whose signature is good, and the others with what is wrong."""
    good, bad = [], []
    for signed in heads:
        try:
            check_signature(signed, key)
        except CheckFailed as error:
            bad.append((signed, str(error)))
        else:
            good.append(signed)
    return good, bad
