"""Step 1: the envelope. Decides whether bytes are an envelope of this version, and leaves its truth to step 3.

Written from schemas/envelope.md, section 1. Two forms: a MessagePack array (first byte 0x98), and over HTTPS a JSON
object. Every length and range is checked here, so that later steps need not.
"""

from __future__ import annotations

import binascii
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from fleetgate.judge.verdict import Reason, Reject

VERSION = 1
ARRAY_OF_EIGHT = b"\x98"
MAX_BODY_BYTES = 64 * 1024
TAG_BYTES = 16
MAX_JSON_BYTES = 96 * 1024
"""The largest body takes 86 KiB in base64, everything around it less than one. A MessagePack envelope needs no limit of
its own: it has one form, and so at most some 50 bytes beside its body."""
_MAX_BODY_BASE64 = 4 * ((MAX_BODY_BYTES + 2) // 3)

U8 = Annotated[int, Meta(ge=0, le=2**8 - 1)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Seq = Annotated[int, Meta(ge=0, le=2**63 - 1)]
I64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Encoding = Annotated[int, Meta(ge=1, le=3)]

UNDECODABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
"""All that msgspec raises for hostile input (0.22); the last two are not MsgspecErrors."""


class Envelope(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The eight elements, in the order of the wire."""

    v: U8
    kid: U32
    epoch: U32
    seq: Seq
    sent_at: I64
    enc: Encoding
    body: Annotated[bytes, Meta(min_length=1, max_length=MAX_BODY_BYTES)]
    tag: Annotated[bytes, Meta(min_length=TAG_BYTES, max_length=TAG_BYTES)]


class JsonEnvelope(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The JSON form before its base64 is opened; msgspec itself would accept base64 that is not canonical."""

    v: U8
    kid: U32
    epoch: U32
    seq: Seq
    sent_at: I64
    enc: Encoding
    body: Annotated[str, Meta(min_length=4, max_length=_MAX_BODY_BASE64)]
    tag: Annotated[str, Meta(min_length=24, max_length=24)]


_MALFORMED = Reason.MALFORMED_ENVELOPE  # looking a member up by name costs 40 ns each time
_decode_msgpack = msgspec.msgpack.Decoder(Envelope).decode
_decode_json = msgspec.json.Decoder(JsonEnvelope).decode


def open_envelope(raw: bytes, json_allowed: bool) -> Envelope:
    """The envelope in `raw`; the form is told by the first byte, JSON only where the transport allows it.

    Raises Reject(malformed_envelope) or Reject(unsupported_version).
    """
    try:
        if raw[:1] == ARRAY_OF_EIGHT:
            envelope = _decode_msgpack(raw)
        elif json_allowed:
            envelope = _from_json(raw)
        else:
            envelope = None
    except UNDECODABLE:
        envelope = None
    if envelope is None:  # not raised in the handler, where chaining costs a flood of garbage 0.1 us a message
        raise Reject(_MALFORMED)
    if envelope.v != VERSION:
        raise Reject(Reason.UNSUPPORTED_VERSION)
    return envelope


def _from_json(raw: bytes) -> Envelope:
    if len(raw) > MAX_JSON_BYTES:  # white space has no bound, and what is accepted must fit a record of the spool
        raise Reject(Reason.MALFORMED_ENVELOPE)
    text = _decode_json(raw)
    body, tag = _canonical_base64(text.body), _canonical_base64(text.tag)
    if not 1 <= len(body) <= MAX_BODY_BYTES or len(tag) != TAG_BYTES:
        raise Reject(Reason.MALFORMED_ENVELOPE)
    return Envelope(text.v, text.kid, text.epoch, text.seq, text.sent_at, text.enc, body, tag)


def _canonical_base64(text: str) -> bytes:
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise Reject(Reason.MALFORMED_ENVELOPE) from None
    # Two texts can decode to the same bytes (unused bits of the last character); only one of them is signed for.
    if binascii.b2a_base64(data, newline=False) != text.encode("ascii"):
        raise Reject(Reason.MALFORMED_ENVELOPE)
    return data
