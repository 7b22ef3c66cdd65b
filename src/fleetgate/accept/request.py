"""One request of the vehicles' HTTPS listener: its form, its body, the envelopes in it.

Decides what is a request at all, and how much of one is taken. Who may send it is decided by `http`, what an envelope
is by the judge.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec
import trio

from fleetgate.accept.problems import Problem, Receive, Scope
from fleetgate.judge.envelope import UNDECODABLE

MAX_REQUEST_BYTES = 1024 * 1024
MAX_ITEMS = 500
BODY_SECONDS = 30.0
MSGPACK_TYPE = "application/vnd.fleetgate.v1+msgpack"
JSON_TYPE = "application/vnd.fleetgate.v1+json"
TELEMETRY_TYPES = (MSGPACK_TYPE, JSON_TYPE)
RENEWAL_TYPES = ("application/pkcs10",)  # RFC 7030, 4.2.1
HELP = "vehicles POST to /v1/telemetry and /v1/renew"

_BIN_HEADS = (0xC4, 0xC5, 0xC6)


def form_of(scope: Scope, types: tuple[str, ...]) -> str:
    """The content type, one of `types`. Raises Problem; Transfer-Encoding is refused: h11 lets a few pairs pass."""
    if scope["method"] != "POST":
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, HELP)
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers and name in (b"content-length", b"content-type", b"transfer-encoding"):
            raise Problem(HTTPStatus.BAD_REQUEST, f"{name.decode('ascii', 'replace')} stands there twice")
        headers[name] = value
    if b"transfer-encoding" in headers:
        raise Problem(HTTPStatus.BAD_REQUEST, "Transfer-Encoding is not taken: send Content-Length")
    if b"content-encoding" in headers:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Encoding is not taken")
    if b"content-length" not in headers:
        raise Problem(HTTPStatus.LENGTH_REQUIRED, "send Content-Length")
    form = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if form not in types:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is {' or '.join(types)}")
    return form


async def read_body(scope: Scope, receive: Receive, most_bytes: int, parts: list[bytes]) -> bytes:
    """The body, if it is announced and small enough. Raises Problem; `parts` has what had come by then."""
    announced = next(value for name, value in scope["headers"] if name == b"content-length")
    if not announced.isdigit():
        raise Problem(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
    if len(announced) > 10 or int(announced) > most_bytes:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {most_bytes} bytes")
    size = 0
    with trio.move_on_after(BODY_SECONDS):
        while True:
            message = await receive()
            if message["type"] != "http.request":  # a tunnel, or somebody on the way: nothing that it did wrong
                raise Problem(HTTPStatus.REQUEST_TIMEOUT, "the client left")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most_bytes:
                raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {most_bytes} bytes")
            if not message.get("more_body", False):
                return b"".join(parts)
    raise Problem(HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {BODY_SECONDS:.0f} s")


_decode_batch = msgspec.msgpack.Decoder(list[bytes]).decode
_decode_json_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode


def items_of(body: bytes, form: str) -> list[bytes]:
    """The envelopes of a request. What is no batch is one envelope, for the judge to refuse. Raises Problem (413)."""
    try:
        items = _json_items(body) if form == JSON_TYPE else _msgpack_items(body)
    except UNDECODABLE:
        return [body]
    if len(items) > MAX_ITEMS:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_ITEMS} envelopes: split the batch")
    return items


def _json_items(body: bytes) -> list[bytes]:
    text = body.lstrip(b" \t\r\n")
    if text[:1] != b"[":
        # A MessagePack envelope is not let in under the JSON type: one request has one form.
        return [b"" if body[:1] == b"\x98" else body]
    return [bytes(item) for item in _decode_json_batch(body)]


def _msgpack_items(body: bytes) -> list[bytes]:
    """An envelope is an array too; its first element is an integer, a batch's are byte strings."""
    head = body[:1]
    skip = 1 if head[:1] and 0x90 <= head[0] <= 0x9F else {b"\xdc": 3, b"\xdd": 5}.get(head, 0)
    if not skip:
        return [b""]
    if body == b"\x90" or (len(body) > skip and body[skip] in _BIN_HEADS):
        return [item if item[:1] == b"\x98" else b"" for item in _decode_batch(body)]
    return [body]
