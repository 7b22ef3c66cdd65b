"""How a call to a webhook is signed, so that a receiver knows who sent it, that nobody changed it, and when.

Decides the header's value and which secrets are good enough. How a receiver checks it is in
docs/how-to/receive-alerts.md.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Final

from fleetgate.control.secretfile import read_secret
from fleetgate.errors import ConfigError

MIN_SECRET_BYTES: Final = 16


def signature(secret: bytes, at_s: int, body: bytes) -> str:
    """`t=...,v1=...`: HMAC-SHA-256 in hex over the Unix time, a dot and the bytes of the body."""
    return f"t={at_s},v1={hmac.digest(secret, b'%d.' % at_s + body, hashlib.sha256).hex()}"


def webhook_secret(path: Path) -> bytes:
    """The file's content without white space around it. Raises ConfigError."""
    remedy = f"`openssl rand -hex 32 > {path}` and `chmod 600 {path}` make one"
    secret = read_secret(path, remedy).strip()
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfigError(f"{path}: the secret of a webhook has at least {MIN_SECRET_BYTES} bytes: {remedy}")
    return secret
