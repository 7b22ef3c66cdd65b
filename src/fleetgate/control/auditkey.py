"""The audit key: an Ed25519 private key that only the signer process reads, its public half for everybody.

Decides when it is made: never where the signer's log, or its count, says that there was one already. What is signed
with it is decided by `control.signer`.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fleetgate.control.heads import key_id, read_public_key
from fleetgate.control.secretfile import read_secret, write_new, write_secret
from fleetgate.control.signlog import EMPTY, count_of, has_signed, or_anew
from fleetgate.errors import ConfigError


def make_audit_key(key: Path, public_key: Path, log: Path) -> None:
    """Makes the files of a signer at its first start; none where the key is there.

    The empty log, with its count, comes before the key: a key without its log is then always a log that was lost, and a
    signer that forgot what it signed could be led back. Raises ConfigError, Conflict.
    """
    if key.exists():
        return
    count = count_of(key)
    for path, signed in ((log, log.exists() and log.stat().st_size > 0), (count, has_signed(count))):
        if signed:
            why = f"{key} is gone, and {path} says that it has signed: restore the key from its backup"
            raise ConfigError(f"{why}, {or_anew(log, count)}")
    for path in (key, public_key, log):
        path.parent.mkdir(parents=True, exist_ok=True)
    private = Ed25519PrivateKey.generate()
    public_key.unlink(missing_ok=True)  # of a first start that was cut off
    for path, empty in ((log, b""), (count, EMPTY)):
        path.unlink(missing_ok=True)
        write_secret(path, empty)
    write_new(public_key, private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    write_secret(key, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def read_audit_key(key: Path, public_key: Path) -> Ed25519PrivateKey:
    """Raises ConfigError, naming the file, where it is not a key or not that of `public_key`."""
    try:
        private = load_pem_private_key(read_secret(key), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{key} is not an unencrypted private key in PEM") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{key} is not an Ed25519 private key")
    if key_id(read_public_key(public_key)) != key_id(private.public_key()):
        raise ConfigError(f"{public_key} is not the public half of {key}: restore both from one backup")
    return private
