"""Signed heads from wherever they are kept: ClickHouse, the signer's own log, an exported file.

Decides the form of an export, and which heads count: those whose signature the audit public key verifies. Whoever can
write into ClickHouse can take heads away there; an export that is kept elsewhere cannot be taken along.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from fleetgate.control.heads import Head, SignedHead, check_signature
from fleetgate.converting import converter
from fleetgate.errors import CheckFailed, ConfigError
from fleetgate.load.clickhouse import ClickHouse

FORMAT = "fleetgate-heads-1"


MAX_EXPORT_BYTES = 512 * 1024**2
"""The heads of a year and a half, one each minute, have 450 MB."""


class Export(Struct, frozen=True, forbid_unknown_fields=True):
    """What `fleetgate heads export` writes, as JSON."""

    format: str
    heads: list[SignedHead]


_SELECT = """
SELECT spool, segment, sha256, place, link, toUnixTimestamp64Milli(signed_at), key_id, signature
FROM segment_heads WHERE {spool:String} = '' OR spool = {spool:String} ORDER BY spool, place, signed_at
"""


class Stored(NamedTuple):
    """`bad` says of each row that is no head what is wrong; it ends no look at the others."""

    heads: list[SignedHead]
    bad: list[str]


def stored_heads(clickhouse: ClickHouse, spool: str = "") -> Stored:
    """The heads in ClickHouse, of one spool or of all. Raises ClickHouseAway."""
    found = Stored([], [])
    for row in clickhouse.rows(_SELECT, {"spool": spool}):
        head = dict(zip(Head.__struct_fields__, row[:5], strict=True))
        signed = {"head": head, "signed_at": row[5], "key_id": row[6], "signature": row[7]}
        try:
            found.heads.append(_signed_head(signed))
        except msgspec.ValidationError as error:
            found.bad.append(f"a row of segment_heads (spool {row[0]}, place {row[3]}) is no head: {error}")
    return found


def read_export(path: Path) -> list[SignedHead]:
    """Raises ConfigError."""
    try:
        if path.stat().st_size > MAX_EXPORT_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_EXPORT_BYTES} bytes: it is no export of heads")
        export = _decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no export of heads: {error}") from None
    if export.format != FORMAT:
        raise ConfigError(f"{path} is an export of another format ({export.format!r})")
    return export.heads


def beside_one_another(heads: Iterable[SignedHead]) -> list[str]:
    """Says of each place of a spool for which there is more than one head what is wrong: no signer signs two."""
    at: dict[tuple[str, int], set[Head]] = defaultdict(set)
    for signed in heads:
        at[signed.head.spool, signed.head.place].add(signed.head)
    return [
        f"two different heads were signed for place {place} of spool {spool}"
        for (spool, place), found in sorted(at.items())
        if len(found) > 1
    ]


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


_signed_head = converter(SignedHead, strict=False)
_decode = msgspec.json.Decoder(Export).decode
