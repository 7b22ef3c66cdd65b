"""Derives a device's MAC key from a root key (schemas/envelope.md, section 2).

The one place of the derivation: enrolment hands its result to the device, the judge verifies with it. Root keys live
in the keyring file (`control.keyring`) and are passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_SALT = b"fleetgate/v1"
_MAC_CONTEXT = b"fleetgate/v1 mac\x00"
_BLOCK_BYTES = 64  # of SHA-256; a key of 32 needs no hashing first
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


def derive_mac_key(root: bytes, tenant: str, device_id: str, key_digest: bytes) -> bytes:
    """32 bytes; `root` and `key_digest` (SHA-256 of the SubjectPublicKeyInfo, DER) are 32 bytes each."""
    if len(root) != 32 or len(key_digest) != 32:
        raise ValueError("a root key and a key digest have 32 bytes each")
    return hkdf(root, _SALT, b"mac" + _lp(tenant) + _lp(device_id) + key_digest, 32)


def hkdf(root: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA-256 (RFC 5869): its vectors come in here."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(root)


def _lp(name: str) -> bytes:
    data = name.encode("ascii")
    return len(data).to_bytes(2, "big") + data


class MacKey:
    """HMAC-SHA-256 under one key, its two inner states computed once (RFC 2104, section 4).

    `context` is fed already: the gate's own, or nothing for the vectors of RFC 4231. 0.7 us for 150 bytes; copying a
    keyed `hmac.HMAC` takes 1.1, `hmac.digest` 1.7.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes, context: bytes = _MAC_CONTEXT) -> None:
        if len(key) > _BLOCK_BYTES:
            raise ValueError(f"a key has at most {_BLOCK_BYTES} bytes: a longer one would have to be hashed first")
        block = key.ljust(_BLOCK_BYTES, b"\x00")
        self._inner = sha256(block.translate(_INNER_PAD) + context)
        self._outer = sha256(block.translate(_OUTER_PAD))

    def digest(self, signed: bytes) -> bytes:
        """The 32 bytes over the context and `signed`."""
        inner = self._inner.copy()
        inner.update(signed)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


class MacKeys:
    """The MAC keys of one credential, by key id, derived when first needed.

    `roots` maps each key id that the gate knows to its 32 bytes, or to None once it is retired. Bounded by the size
    of the keyring, whatever key ids a device names. Holds key material: has no repr of it.
    """

    __slots__ = ("_by_kid", "_device_id", "_key_digest", "_roots", "_tenant")

    def __init__(self, roots: Mapping[int, bytes | None], tenant: str, device_id: str, key_digest: bytes) -> None:
        self._roots = roots
        self._tenant = tenant
        self._device_id = device_id
        self._key_digest = key_digest
        self._by_kid: dict[int, MacKey] = {}

    def knows(self, kid: int) -> bool:
        """Whether the gate has ever had this root key; one it never had says nothing about the sender."""
        return kid in self._roots

    def get(self, kid: int) -> MacKey | None:
        """The key for `kid`; None: the gate has no such root key."""
        key = self._by_kid.get(kid)
        if key is None:
            root = self._roots.get(kid)
            if root is None:
                return None
            derived = derive_mac_key(root, self._tenant, self._device_id, self._key_digest)
            key = self._by_kid[kid] = MacKey(derived)
        return key
