"""Derives a device's MAC key from a root key (schemas/envelope.md, section 2).

The one place of the derivation: enrolment hands its result to the device, the judge verifies with it. Root keys live
in the keyring file (`control.keyring`) and are passed in.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_SALT = b"fleetgate/v1"
_MAC_CONTEXT = b"fleetgate/v1 mac\x00"


class KeyedHash(Protocol):
    """The part of a keyed `hmac.HMAC` that the MAC step uses."""

    def copy(self) -> KeyedHash: ...
    def update(self, msg: bytes) -> None: ...
    def digest(self) -> bytes: ...


def derive_mac_key(root: bytes, tenant: str, device_id: str, key_digest: bytes) -> bytes:
    """32 bytes; `root` and `key_digest` (SHA-256 of the SubjectPublicKeyInfo, DER) are 32 bytes each."""
    if len(root) != 32 or len(key_digest) != 32:
        raise ValueError("a root key and a key digest have 32 bytes each")
    info = b"mac" + _lp(tenant) + _lp(device_id) + key_digest
    return HKDF(algorithm=SHA256(), length=32, salt=_SALT, info=info).derive(root)


def _lp(name: str) -> bytes:
    data = name.encode("ascii")
    return len(data).to_bytes(2, "big") + data


class MacKeys:
    """The keyed hashes of one credential, by key id, derived when first needed.

    `roots` maps each key id that the gate knows to its 32 bytes, or to None once it is retired. Bounded by the size
    of the keyring, whatever key ids a device names. Holds key material: has no repr of it.
    """

    __slots__ = ("_by_kid", "_device_id", "_key_digest", "_roots", "_tenant")

    def __init__(self, roots: Mapping[int, bytes | None], tenant: str, device_id: str, key_digest: bytes) -> None:
        self._roots = roots
        self._tenant = tenant
        self._device_id = device_id
        self._key_digest = key_digest
        self._by_kid: dict[int, KeyedHash] = {}

    def knows(self, kid: int) -> bool:
        """Whether the gate has ever had this root key; one it never had says nothing about the sender."""
        return kid in self._roots

    def keyed(self, kid: int) -> KeyedHash | None:
        """A hash keyed for `kid`, already fed the context string; copy it, never update it. None: no such key."""
        keyed = self._by_kid.get(kid)
        if keyed is None:
            root = self._roots.get(kid)
            if root is None:
                return None
            key = derive_mac_key(root, self._tenant, self._device_id, self._key_digest)
            keyed = self._by_kid[kid] = hmac.new(key, _MAC_CONTEXT, "sha256")
        return keyed
