"""The header Client-Cert (RFC 9440), in which a proxy that ends TLS passes on the vehicle's certificate.

Decides whether a request says it once, in the one way that is taken: the leaf and only the leaf, DER, as a byte
sequence of RFC 8941 in canonical base64. Whether the peer may say it is decided by `proxies`; whether the certificate
is any good, by `vetting`. A request that says it in any other way is refused, and not read as if it said nothing: it
came through a proxy that lets pass what clients send.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from fleetgate.accept.problems import Problem

MAX_VALUE_BYTES: Final = 8192
"""A device's certificate takes about 1,000; a header section of more than 16 KiB does not get this far."""

_NAME: Final = b"client-cert"
_SPELLINGS: Final = frozenset({b"clientcert", b"clientcertchain"})  # without what servers confuse: client_cert is one
_CONFUSED: Final = re.compile(rb"[^a-z0-9]")

Headers = Iterable[tuple[bytes, bytes]]


def leaf_of(headers: Headers) -> bytes:
    """The DER certificate in the request of a proxy. Raises Problem (400)."""
    said = _said(headers)
    if [name for name, _ in said] != [_NAME]:
        raise _problem("the proxy must send exactly one Client-Cert, remove what clients send, and send no chain")
    [(_, value)] = said
    if len(value) > MAX_VALUE_BYTES:
        raise _problem(f"Client-Cert is longer than {MAX_VALUE_BYTES} bytes: it holds the leaf and only the leaf")
    if len(value) < 3 or value[:1] != b":" or value[-1:] != b":":
        raise _problem("Client-Cert is a byte sequence, base64 between two colons (RFC 9440), and nothing else")
    try:
        leaf = base64.b64decode(value[1:-1], validate=True)
    except binascii.Error:
        leaf = b""
    if base64.b64encode(leaf) != value[1:-1]:
        raise _problem("Client-Cert is not in canonical base64: RFC 4648 section 4, padded, without line breaks")
    return leaf


def refuse(headers: Headers) -> None:
    """Raises Problem (400) where somebody who is no proxy sends the header, in any spelling."""
    if _said(headers):
        raise _problem(
            "Client-Cert is taken from listed proxies only: a vehicle shows its certificate in the handshake"
        )


def _said(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [header for header in headers if _CONFUSED.sub(b"", header[0].lower()) in _SPELLINGS]


def _problem(detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, detail)
