"""A captured message: the bytes of one envelope, from a file as the tools of the trade write them.

Decides how a file is told from its first bytes. What is in the envelope is decided by the judge, also that it is none.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from fleetgate.errors import ConfigError
from fleetgate.judge.envelope import ARRAY_OF_EIGHT

MAX_BYTES = 1024 * 1024
"""What HTTPS takes at most; of a message that is larger the judge never hears."""

_BEGINNINGS = (ARRAY_OF_EIGHT, b"{")


class Capture(NamedTuple):
    """`raw` are the bytes as the gate received them; `form` says how they stood in the file."""

    raw: bytes
    form: str


def read_capture(file: BinaryIO, name: str) -> Capture:
    """Opens hex and base64 where an envelope is in them. Raises ConfigError for a file that is empty or too large."""
    capture = _opened(file.read(2 * MAX_BYTES + 1))  # hex has two digits for each byte
    if not capture.raw:
        raise ConfigError(f"{name} is empty: give the bytes of one envelope, as the gate received them")
    if len(capture.raw) > MAX_BYTES:
        raise ConfigError(f"{name} has more than {MAX_BYTES} bytes: the gate refuses that as oversized, unread")
    return capture


def _opened(data: bytes) -> Capture:
    if data[:1] not in _BEGINNINGS:
        for form, decode in _FORMS.items():
            raw = decode(data)
            if raw is not None and raw[:1] in _BEGINNINGS:
                return Capture(raw, form)
    return Capture(data, "bytes as received")


def _from_hex(data: bytes) -> bytes | None:
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        return None


def _from_base64(data: bytes) -> bytes | None:
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error:
        return None


_FORMS: dict[str, Callable[[bytes], bytes | None]] = {"hex": _from_hex, "base64": _from_base64}
