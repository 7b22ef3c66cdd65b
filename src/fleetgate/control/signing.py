"""How the signer is asked: the messages on its socket, and a client of it.

Decides form, bounds and deadlines of a request. One JSON line asks, one JSON line answers; a connection may ask several
times. What is signed is decided by `control.signer`.
"""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from fleetgate.control.heads import AuditHead, Head, Hex16, Hex32, SignedAuditHead, SignedHead
from fleetgate.control.localsocket import short_name
from fleetgate.errors import FleetgateError

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
    """The newest head that was signed for this chain of the audit."""

    chain: Hex32


class AskSignAudit(Struct, frozen=True, forbid_unknown_fields=True, tag="sign_audit", tag_field="ask"):
    """The same as AskSign, for a head of the audit."""

    head: AuditHead
    steps: Annotated[list[Hex32], Meta(max_length=MAX_STEPS)]


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
    """One connection. Every method raises SignerAway or SignerRefused."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(REQUEST_SECONDS)
        try:
            with short_name(path) as name:
                self._socket.connect(name)
        except OSError as error:
            self._socket.close()
            raise SignerAway(f"the signer does not answer at {path}: {error.strerror or error}") from None

    def __enter__(self) -> SignerClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def newest(self, spool: str) -> SignedHead | None:
        return self._ask(AskNewest(spool)).signed

    def sign(self, head: Head, steps: list[str]) -> SignedHead:
        signed = self._ask(AskSign(head, steps)).signed
        if signed is None or signed.head != head:
            raise SignerAway("the signer answered something else than it was asked")
        return signed

    def newest_audit(self, chain: str) -> SignedAuditHead | None:
        return self._ask(AskNewestAudit(chain)).audit

    def sign_audit(self, head: AuditHead, steps: list[str]) -> SignedAuditHead:
        signed = self._ask(AskSignAudit(head, steps)).audit
        if signed is None or signed.head != head:
            raise SignerAway("the signer answered something else than it was asked")
        return signed

    def _ask(self, request: Request) -> Answer:
        try:
            self._socket.sendall(msgspec.json.encode(request) + b"\n")
            data = bytearray()
            while not data.endswith(b"\n"):
                more = self._socket.recv(MAX_ANSWER_BYTES)
                if not more or len(data) > MAX_ANSWER_BYTES:
                    raise SignerAway("the signer's answer broke off")
                data += more
            answer = _decode(data)
        except OSError as error:
            raise SignerAway(f"the signer does not answer: {error}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise SignerAway("what answers is no signer") from None
        if answer.refused is not None:
            raise SignerRefused(answer.refused, answer.why)
        return answer
