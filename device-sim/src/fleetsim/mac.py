"""Decides how a message is authenticated: the header that is signed, the tag, and the device's key.

A device only ever holds the derived key; `derive_key` exists for the test vectors and for nothing that runs on a
device. Which messages are signed, and when, is `core`'s.
"""

import hmac
import struct

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

TAG_BYTES = 16
KEY_BYTES = 32

_SALT = b"fleetgate/v1"
_PREFIX = b"fleetgate/v1 mac\x00"
# v u8 | enc u8 | kid u32 | epoch u32 | seq u64 | sent_at i64, big-endian (schemas/envelope.md, section 2)
_HEADER = struct.Struct(">BBIIQq")


def derive_key(root: bytes, tenant: str, device_id: str, spki_sha256: bytes) -> bytes:
    """The MAC key of one device under one root key (32 bytes each).

    `spki_sha256` is the SHA-256 of the certificate's SubjectPublicKeyInfo in DER.
    """
    info = b"mac" + _lp(tenant.encode()) + _lp(device_id.encode()) + spki_sha256
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=_SALT, info=info).derive(root)


def header(*, v: int, enc: int, kid: int, epoch: int, seq: int, sent_at: int) -> bytes:
    """The 26 signed bytes before the body. Raises struct.error for a number that does not fit its field."""
    return _HEADER.pack(v, enc, kid, epoch, seq, sent_at)


def tag(key: bytes, signed_header: bytes, body: bytes) -> bytes:
    """The 16-byte tag over header and body."""
    return hmac.digest(key, _PREFIX + signed_header + body, "sha256")[:TAG_BYTES]


def _lp(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value
