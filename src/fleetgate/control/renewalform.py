"""How the signer is asked for a renewal: the messages on its second socket, and their bounds.

One line of JSON asks, one line of JSON answers, then the connection ends. What is asked is the edge's: whose
certificate TLS has verified, and the request that came with it. What is answered is decided by `control.renewal`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from fleetgate.control.heads import Hex32

MAX_CSR_BYTES = 16 * 1024  # as many as `control.csr` takes; the edge reads this file, and loads nothing of a CA with it
MAX_ASK_BYTES = 32 * 1024  # with the request in base64
MAX_ANSWER_BYTES = 32 * 1024
ASK_SECONDS = 2.0
"""For the whole of a question to be there."""
ANSWER_SECONDS = 8.0
"""The patience of who asks: longer than a writer of the records may have to wait for another (5 s)."""


class Refusal(StrEnum):
    """Why there is no renewal. The device is told the HTTP status that `accept.renew` has for it."""

    CSR = "csr"  # the request is not one that can be granted; the text says why
    UNKNOWN = "unknown_device"  # the records have no such device, or not this certificate of it
    REVOKED = "revoked"
    BANNED = "banned"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"  # the credential that this one was renewed to has been replaced itself
    LATER = "later"  # suspended, in quarantine, or a clone sign: the same request may be granted another day
    TOO_OFTEN = "too_often"  # the device's own excess
    BUSY = "busy"  # the signer's limit over all devices, or more connections than it serves
    AWAY = "away"  # records, keyring or issuing key cannot be used now
    MALFORMED = "malformed"  # not a question


class AskRenewal(Struct, frozen=True, forbid_unknown_fields=True):
    """`fingerprint` is the SHA-256 of the certificate that the edge verified; `csr` is PEM, DER or base64 of DER."""

    tenant: Annotated[str, Meta(max_length=63)]
    device_id: Annotated[str, Meta(max_length=63)]
    fingerprint: Hex32
    csr: Annotated[bytes, Meta(max_length=MAX_CSR_BYTES)]


class Renewed(Struct, frozen=True, forbid_unknown_fields=True, tag="renewed", tag_field="answer"):
    """`certificate` is PEM, the leaf and the issuing CA; `mac_key` a JWE, see `control.sealing`."""

    certificate: str
    kid: int
    mac_key: str


class NotRenewed(Struct, frozen=True, forbid_unknown_fields=True, tag="refused", tag_field="answer"):
    """`why` is one sentence without secrets, for the signer's log, and of a bad request for the device."""

    refused: Refusal
    why: str
    retry_after_s: int = 0


Answer = Renewed | NotRenewed
