"""Heads of chains, of the segments of a spool and of the audit: what is signed, byte for byte, and how a signature is
verified.

Decides the signed bytes and the step from one link to the next; both differ between the two kinds of chains, so that
nothing of one can stand for something of the other. Holds no private key: who has one is `control.signer`; what stands
in a row of a chain is decided by `load.chain` and `control.auditchain`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Generic, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from msgspec import Meta, Struct

from fleetgate.errors import CheckFailed, ConfigError

Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Hex16 = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Hex64 = Annotated[str, Meta(pattern="^[0-9a-f]{128}$")]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Place = Annotated[int, Meta(ge=1, le=2**63 - 1)]

NO_LINK = "00" * 32
"""The link before the first row of a chain."""

_TWO = struct.Struct(">QQ")
_THREE = struct.Struct(">QQQ")


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """The newest row of a spool's chain: the segment, the SHA-256 of its file, the row's place (so many rows the chain
    has) and its link, which stands for it and every row before it."""

    LINKS: ClassVar[bytes] = b"fleetgate segment link 1\x00"

    spool: Hex16
    segment: Number
    sha256: Hex32
    place: Place
    link: Hex32

    @property
    def name(self) -> str:
        return f"the head of spool {self.spool} at place {self.place}"

    def signed_bytes(self, signed_at: int) -> bytes:
        """Everything of the head and the time, in fixed widths."""
        hashes = bytes.fromhex(self.spool + self.sha256 + self.link)
        return b"fleetgate segment head 1\x00" + hashes + _THREE.pack(self.segment, self.place, signed_at)


class AuditHead(Struct, frozen=True, forbid_unknown_fields=True):
    """The newest row of the audit: its place and its hash, which is its link. `chain` is the hash of the row that the
    chain began with: so the audits of two control databases are never taken for one another."""

    LINKS: ClassVar[bytes] = b"fleetgate audit link 1\x00"

    chain: Hex32
    place: Place
    link: Hex32

    @property
    def name(self) -> str:
        return f"the head of the audit at place {self.place}"

    def signed_bytes(self, signed_at: int) -> bytes:
        """Everything of the head and the time, in fixed widths."""
        hashes = bytes.fromhex(self.chain + self.link)
        return b"fleetgate audit head 1\x00" + hashes + _TWO.pack(self.place, signed_at)


AnyHead = TypeVar("AnyHead", Head, AuditHead)


class Signed(Struct, Generic[AnyHead], frozen=True, forbid_unknown_fields=True):
    """`signed_at` in Unix ms by the signer's clock; `key_id` is the SHA-256 of the public key."""

    head: AnyHead
    signed_at: Number
    key_id: Hex32
    signature: Hex64


SignedHead = Signed[Head]
SignedAuditHead = Signed[AuditHead]


def next_link(link: str, row_digest: bytes, domain: bytes = Head.LINKS) -> str:
    """The link of a row (32 bytes of digest) behind `link`, which is hashed as its 64 hex digits: a stored one that
    somebody made into other text gives another link, and no error."""
    return hashlib.sha256(domain + link.encode() + row_digest).hexdigest()


def links(link: str, row_digests: Iterable[bytes], domain: bytes = Head.LINKS) -> str:
    """The link of the last of these rows, one behind the other."""
    for digest in row_digests:
        link = next_link(link, digest, domain)
    return link


def key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def check_signature(signed: Signed[AnyHead], key: Ed25519PublicKey) -> None:
    """Raises CheckFailed."""
    name = signed.head.name
    if signed.key_id != key_id(key):
        raise CheckFailed(f"{name} was signed with another key ({signed.key_id[:12]}...)")
    try:
        key.verify(bytes.fromhex(signed.signature), signed.head.signed_bytes(signed.signed_at))
    except InvalidSignature:
        raise CheckFailed(f"{name} is not what was signed: its signature is wrong") from None


def read_public_key(path: Path) -> Ed25519PublicKey:
    """The audit public key in PEM. Raises ConfigError."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: the signer writes the audit public key there at its start") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path} is not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path} is not an Ed25519 public key")
    return key
