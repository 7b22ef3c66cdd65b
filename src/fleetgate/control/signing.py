"""How the signer is asked: the messages on its socket, and a client of it.

Decides form, bounds and deadlines of a request, and that an answer counts only with the signer's signature: who holds
the socket alone is no signer. One JSON line asks, one JSON line answers, and the connection is over. What is signed is
decided by `control.signer`.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from fleetgate.control.heads import (
    AnyHead,
    AuditHead,
    Head,
    Hex16,
    Hex32,
    Signed,
    SignedAuditHead,
    SignedHead,
    check_signature,
    read_public_key,
)
from fleetgate.control.localsocket import short_name
from fleetgate.errors import CheckFailed, ConfigError, FleetgateError

MAX_STEPS = 500
"""Rows of the chain between two heads in one request; a longer way is gone in several."""

MAX_REQUEST_BYTES = 64 * 1024  # 500 digests of 64 hex digits are 34 KB
MAX_ANSWER_BYTES = 8 * 1024
REQUEST_SECONDS = 2.0
"""For a whole request, at the signer and at its client: signing and one fsync take a few ms."""


class AskNewest(Struct, frozen=True, forbid_unknown_fields=True, tag="newest", tag_field="ask"):
    """The newest head that was signed for this spool."""

    spool: Hex16


class AskSign(Struct, frozen=True, forbid_unknown_fields=True, tag="sign", tag_field="ask"):
    """A signature for `head`; `steps` are the digests of the rows from behind the newest signed head up to it."""

    head: Head
    steps: Annotated[list[Hex32], Meta(max_length=MAX_STEPS)]


class AskNewestAudit(Struct, frozen=True, forbid_unknown_fields=True, tag="newest_audit", tag_field="ask"):
    """The newest head that was signed for this chain of the audit; of whichever was signed last where none is named."""

    chain: Hex32 | None = None


class AskSignAudit(Struct, frozen=True, forbid_unknown_fields=True, tag="sign_audit", tag_field="ask"):
    """The same as AskSign, for a head of the audit. `former` is the chain that this one says it follows, if any."""

    head: AuditHead
    steps: Annotated[list[Hex32], Meta(max_length=MAX_STEPS)]
    former: Hex32 | None = None


Request = AskNewest | AskSign | AskNewestAudit | AskSignAudit

Refusal = Literal["malformed", "too_long", "too_slow", "too_often", "other_user", "rollback", "fork"]


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """`signed`, or `audit`, is the head that was asked for, or None where there is none yet; or `refused` says why
    not."""

    signed: SignedHead | None = None
    audit: SignedAuditHead | None = None
    refused: Refusal | None = None
    why: str = ""


class SignerAway(FleetgateError):
    """The signer does not answer, or not with an answer: heads are signed when it is back."""


class SignerRefused(FleetgateError):
    """The signer will not sign; `reason` is one of its closed set."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(f"the signer refuses ({reason}): {why}")
        self.reason = reason


_decode = msgspec.json.Decoder(Answer).decode


class SignerClient:
    """Every method raises SignerAway or SignerRefused. The audit public key is read for each answer: a signer that
    began anew has another one."""

    def __init__(self, path: Path, public_key: Path) -> None:
        self._path = path
        self._public_key = public_key

    def newest(self, spool: str) -> SignedHead | None:
        signed = self._ask(AskNewest(spool)).signed
        return None if signed is None else self._genuine(signed, signed.head.spool == spool)

    def sign(self, head: Head, steps: list[str]) -> SignedHead:
        signed = self._ask(AskSign(head, steps)).signed
        return self._genuine(signed, signed is not None and signed.head == head)

    def newest_audit(self, chain: str | None = None) -> SignedAuditHead | None:
        """Of the chain that was signed last where none is named."""
        signed = self._ask(AskNewestAudit(chain)).audit
        return None if signed is None else self._genuine(signed, chain in (None, signed.head.chain))

    def sign_audit(self, head: AuditHead, steps: list[str], former: str | None) -> SignedAuditHead:
        signed = self._ask(AskSignAudit(head, steps, former)).audit
        return self._genuine(signed, signed is not None and signed.head == head)

    def _genuine(self, signed: Signed[AnyHead] | None, is_asked: bool) -> Signed[AnyHead]:
        """What the signer signed, of what it was asked for. An answer that cannot be verified is none."""
        if signed is None or not is_asked:
            raise SignerAway("the signer answered something else than it was asked")
        try:
            check_signature(signed, read_public_key(self._public_key))
        except (CheckFailed, ConfigError) as error:
            raise SignerAway(f"what answers at {self._path} is not proven to be the signer: {error}") from None
        return signed

    def _ask(self, request: Request) -> Answer:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
                connection.settimeout(REQUEST_SECONDS)
                with short_name(self._path) as name:
                    connection.connect(name)
                connection.sendall(msgspec.json.encode(request) + b"\n")
                answer = _decode(_line(connection))
        except OSError as error:
            raise SignerAway(f"the signer does not answer at {self._path}: {error.strerror or error}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise SignerAway("what answers is no signer") from None
        if answer.refused is not None:
            raise SignerRefused(answer.refused, answer.why)
        return answer


def _line(connection: socket.socket) -> bytes:
    """Raises OSError, and SignerAway where it breaks off."""
    data = bytearray()
    while not data.endswith(b"\n"):
        more = connection.recv(MAX_ANSWER_BYTES)
        if not more or len(data) > MAX_ANSWER_BYTES:
            raise SignerAway("the signer's answer broke off")
        data += more
    return bytes(data)
