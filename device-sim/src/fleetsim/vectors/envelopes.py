"""Decides the cases of sections 1 and 2 of schemas/envelope.md: the envelope's form, and its MAC."""

import base64
from collections.abc import Iterator

from fleetsim import encode, mac
from fleetsim.encode import Event
from fleetsim.vectors.case import (
    DEVICE,
    KEYS,
    ROOTS,
    SPKI,
    TENANT,
    Case,
    elements,
    message,
    pack,
)

_MALFORMED = "malformed_envelope"


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _accepted()
    yield from _msgpack_form()
    yield from _json_form()
    yield from _authentication()


def _body_of(size: int) -> tuple[encode.Body, bytes]:
    """A valid body of exactly `size` bytes, near 64 KiB: many texts, and nine that take up what is left."""

    def filled(left: int) -> encode.Body:
        texts: dict[encode.Name, str] = {f"Test.Text{i:03d}": "x" * 248 for i in range(247)}
        # Between 40 and 200 letters the header of a text keeps its length.
        texts |= {f"Test.Last{i}": "y" * (40 + min(160, max(0, left - 160 * i))) for i in range(9)}
        return encode.Body("2026.44.1", "cfg-7f3a", [Event(0, "heartbeat", {}, texts)])

    body = filled(size - len(encode.encode_body(1, filled(0))))
    raw = encode.encode_body(1, body)
    if len(raw) != size:
        raise AssertionError(f"{len(raw)} bytes instead of {size}: change the number of texts")
    return body, raw


def _accepted() -> Iterator[Case]:
    yield Case("plain", "An ordinary message in MessagePack.", "accepted", message(), flags=[])
    yield Case("json", "An ordinary message in JSON.", "accepted", message(form="json"), "json", flags=[])
    yield Case("kid-2", "A message under another root key that the gate has.", "accepted", message(kid=2))
    yield Case("largest-seq", "The largest sequence number is 2^63-1.", "accepted", message(seq=2**63 - 1), flags=[])
    yield Case(
        "largest-epoch",
        "The largest epoch is 2^32-1.",
        "accepted",
        message(epoch=2**32 - 1),
        flags=["epoch_jump"],
    )
    body, raw = _body_of(encode.MAX_BODY_BYTES)
    yield Case("body-65536", "A body may have 65,536 bytes.", "accepted", message(body=raw), body=body)
    pretty = message(form="json").replace(b",", b" ,\n ").replace(b":", b" : ", 3)
    yield Case(
        "json-whitespace",
        "Whitespace between the tokens of a JSON envelope is allowed.",
        "accepted",
        b" " + pretty + b"\n",
        "json",
        rebuilds=["body"],
    )
    twice = message(form="json").replace(b'"seq":0', b'"seq":7,"seq":0')
    yield Case(
        "json-duplicate-key",
        "Of a key that is there twice the last one counts.",
        "accepted",
        twice,
        "json",
        rebuilds=["body"],
    )
    fields = message(form="json")[1:-1].split(b",")
    yield Case(
        "json-other-order",
        "The names of a JSON envelope have no order.",
        "accepted",
        b"{" + b",".join(reversed(fields)) + b"}",
        "json",
        rebuilds=["body"],
    )


def _msgpack_form() -> Iterator[Case]:
    def bad(name: str, what: str, raw: bytes, expect: str = _MALFORMED) -> Case:
        return Case(name, what, expect, raw)

    whole = elements()
    yield bad("arity-7", "An array of seven is not an envelope.", pack(whole[:7]))
    yield bad("arity-9", "An array of nine is not an envelope.", pack([*whole, 0]))
    yield bad("array16", "The array's header is one byte, 0x98.", b"\xdc\x00\x08" + pack(whole)[1:])
    yield bad("map", "A MessagePack map is not an envelope.", pack(dict(enumerate(whole))))
    yield bad("trailing-byte", "Nothing follows the tag.", pack(whole) + b"\x00")
    yield bad("truncated", "An envelope that ends early is none.", pack(whole)[:-1])
    yield bad("empty", "No bytes at all.", b"")
    yield bad("not-msgpack", "0xc1 is no MessagePack.", b"\xc1")
    yield bad("body-str", "The body is bytes, not a string.", pack(elements(body="text")))
    yield bad("body-array", "The body is bytes, not an array.", pack(elements(body=[1, 2])))
    yield bad("body-nil", "The body is bytes, not nil.", pack(elements(body=None)))
    yield bad("body-empty", "The body has at least one byte.", pack(elements(body=b"")))
    yield bad("body-65537", "The body has at most 65,536 bytes.", message(body=_body_of(65_537)[1]))
    tag = encode.decode_envelope(message()).tag
    yield bad("tag-15", "The tag has 16 bytes, not 15.", pack(elements(tag=tag[:15])))
    yield bad("tag-17", "The tag has 16 bytes, not 17.", pack(elements(tag=tag + b"\x00")))
    yield bad("tag-str", "The tag is bytes, not a string.", pack(elements(tag="0123456789abcdef")))
    for name in ("kid", "epoch"):
        yield bad(f"{name}-over-u32", f"`{name}` ends at 2^32-1.", pack(elements(**{name: 2**32})))
    for name in ("kid", "epoch", "seq", "enc"):
        yield bad(f"{name}-negative", f"`{name}` is not negative.", pack(elements(**{name: -1})))
        yield bad(f"{name}-float", f"`{name}` is an integer, not 1.0.", pack(elements(**{name: 1.0})))
        yield bad(f"{name}-bool", f"`{name}` is an integer, not true.", pack(elements(**{name: True})))
    yield bad("seq-over", "`seq` ends at 2^63-1.", pack(elements(seq=2**63)))
    yield bad("sent-at-over-i64", "`sent_at` ends at 2^63-1.", pack(elements(sent_at=2**63)))
    yield bad("sent-at-float", "`sent_at` is an integer.", pack(elements(sent_at=float(2**40))))
    yield bad("kid-nil", "`kid` is an integer, not nil.", pack(elements(kid=None)))
    yield bad("kid-str", "`kid` is an integer, not a string.", pack(elements(kid="1")))
    for enc in (0, 4, 255, 256):
        yield bad(f"enc-{enc}", f"There is no encoding {enc}.", pack(elements(enc=enc)))
    for v in (0, 2):
        yield bad(f"v-{v}", f"There is no version {v}.", pack(elements(v=v)), "unsupported_version")
    yield bad("v-str", "The version is an integer, not a string.", pack(elements(v="1")))


def _json_form() -> Iterator[Case]:
    raw = message(form="json")
    body = base64.b64encode(encode.decode_envelope(raw).body)
    tag = base64.b64encode(encode.decode_envelope(raw).tag)

    def bad(name: str, what: str, old: bytes, new: bytes, expect: str = _MALFORMED) -> Case:
        if raw.count(old) != 1:
            raise AssertionError(f"{name}: {old!r} is not in the message once")
        return Case(f"json-{name}", what, expect, raw.replace(old, new), "json")

    # One byte and then padding leaves four bits that the decoder ignores and a second spelling uses.
    other_bits = tag[:21] + bytes([tag[21] + 1]) + tag[22:]
    yield bad("unknown-field", "A ninth name is refused.", b'{"v"', b'{"w":1,"v"')
    yield bad("missing-field", "All eight names are there.", b'"kid":1,', b"")
    yield bad("base64-bits", "Base64 with stray bits in the last digit is refused.", tag, other_bits)
    yield bad("base64-unpadded", "Base64 is padded.", tag, tag.rstrip(b"="))
    yield bad("base64-padding", "Base64 has no more padding than it needs.", tag, tag + b"====")
    yield bad("base64-space", "Base64 has no whitespace in it.", body, body[:4] + b" " + body[4:])
    yield bad("base64-newline", "Base64 has no escaped newline in it.", body, body[:4] + b"\\n" + body[4:])
    yield bad("tag-15", "The tag has 16 bytes, not 15.", tag, base64.b64encode(bytes(15)))
    yield bad("body-empty", "The body has at least one byte.", body, b"")
    yield bad("body-null", "The body is base64, not null.", b'"' + body + b'"', b"null")
    yield bad("kid-str", "`kid` is a number, not a string.", b'"kid":1', b'"kid":"1"')
    yield bad("kid-fraction", "`kid` is an integer, not 1.5.", b'"kid":1', b'"kid":1.5')
    yield bad("kid-float", "`kid` is an integer, not 1.0.", b'"kid":1', b'"kid":1.0')
    yield bad("kid-bool", "`kid` is an integer, not true.", b'"kid":1', b'"kid":true')
    yield bad("kid-big", "`kid` ends at 2^32-1.", b'"kid":1', b'"kid":' + b"9" * 40)
    yield bad("seq-over", "`seq` ends at 2^63-1.", b'"seq":0', b'"seq":9223372036854775808')
    yield bad("enc-4", "There is no encoding 4.", b'"enc":1', b'"enc":4')
    yield bad("v-2", "There is no version 2.", b'"v":1', b'"v":2', "unsupported_version")
    yield bad("wrong-key-last", "The last of two keys counts.", b'"seq":0', b'"seq":0,"seq":7', "bad_mac")
    padded = raw + b" " * (96 * 1024 - len(raw))
    yield Case("json-96-kib", "White space up to 96 KiB is allowed.", "accepted", padded, "json", rebuilds=["body"])
    yield Case("json-over-96-kib", "An envelope in JSON is not larger than that.", _MALFORMED, padded + b" ", "json")
    yield Case("json-trailing", "Nothing follows the object.", _MALFORMED, raw + b"{}", "json")
    yield Case("json-truncated", "An object that ends early is none.", _MALFORMED, raw[:-1], "json")
    yield Case("json-bom", "A byte order mark is not JSON.", _MALFORMED, b"\xef\xbb\xbf" + raw, "json")
    yield Case("json-utf8", "JSON is UTF-8.", _MALFORMED, raw.replace(b'"v"', b'"\xff"'), "json")
    yield Case("json-deep", "Nesting is refused, however deep.", _MALFORMED, b'{"v":' + b"[" * 5_000, "json")
    yield _url_safe()


def _url_safe() -> Case:
    for seq in range(200):
        raw = message(seq=seq, form="json")
        tag = base64.b64encode(encode.decode_envelope(raw).tag)
        if b"+" in tag or b"/" in tag:
            safe = tag.replace(b"+", b"-").replace(b"/", b"_")
            what = "Base64 is of section 4: the URL-safe alphabet is refused."
            return Case("json-base64-url", what, _MALFORMED, raw.replace(tag, safe), "json")
    raise AssertionError("no tag with + or / in it")


def _authentication() -> Iterator[Case]:
    def forged(name: str, what: str, raw: bytes, expect: str = "bad_mac") -> Case:
        return Case(name, what, expect, raw)

    good = encode.decode_envelope(message())
    parts = [good.v, good.kid, good.epoch, good.seq, good.sent_at, good.enc, good.body, good.tag]
    changes: dict[str, tuple[int, object]] = {
        "kid": (1, 2),
        "epoch": (2, 2),
        "seq": (3, 1),
        "sent-at": (4, good.sent_at + 1),
        "enc": (5, 2),
        "body": (6, bytes([*good.body[:-1], good.body[-1] ^ 1])),
        "body-shorter": (6, good.body[:-1]),
        "tag-first-bit": (7, bytes([good.tag[0] ^ 0x80, *good.tag[1:]])),
        "tag-last-bit": (7, bytes([*good.tag[:-1], good.tag[-1] ^ 1])),
        "tag-zero": (7, bytes(mac.TAG_BYTES)),
    }
    for name, (index, value) in changes.items():
        changed = [*parts[:index], value, *parts[index + 1 :]]
        yield forged(f"changed-{name}", f"`{name}` was changed after signing.", pack(changed))
    whose = {
        "other-device": mac.derive_key(ROOTS[1], TENANT, "tcu-0002", SPKI),
        "other-tenant": mac.derive_key(ROOTS[1], "globex", DEVICE, SPKI),
        "other-certificate": mac.derive_key(ROOTS[1], TENANT, DEVICE, bytes(32)),
        "other-root": KEYS[2],
        "root-itself": ROOTS[1],
    }
    for name, key in whose.items():
        yield forged(f"key-{name}", f"Signed with the wrong key: {name}.", message(key=key))
    # "acm" + "etcu-0001": the lengths in the key's info keep the two names apart.
    slid = mac.derive_key(ROOTS[1], TENANT[:-1], TENANT[-1] + DEVICE, SPKI)
    yield forged("key-slid-names", "The border between tenant and device id is signed.", message(key=slid))
    for kid in (0, 3, 2**32 - 1):
        what = f"The gate has no root key {kid}."
        yield forged(f"kid-{kid}", what, message(kid=kid, key=KEYS[1]), "unknown_key")
    long_tag = pack([*parts[:7], good.tag + good.tag])
    yield forged("tag-32", "There is one tag length only.", long_tag, _MALFORMED)
    bad_both = message(body=b"\xc1", key=KEYS[2])
    yield forged("before-body", "A body is not looked at before the MAC holds.", bad_both)
