"""Step 1 field by field, in both forms of the envelope."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from tests.units import NOW, elements, pack, sign, sign_json

from fleetgate.judge.envelope import MAX_BODY_BYTES, open_envelope
from fleetgate.judge.verdict import Reason, Reject

NAMES = ("v", "kid", "epoch", "seq", "sent_at", "enc", "body", "tag")
LARGEST = b"\x00" * MAX_BODY_BYTES


def changed(name: str, value: Any) -> bytes:
    fields = elements()
    fields[NAMES.index(name)] = value
    return pack(fields)


def json_changed(**fields: Any) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(sign_json()) | fields)


def refusal(raw: bytes, *, json_allowed: bool = True) -> Reason:
    with pytest.raises(Reject) as refused:
        open_envelope(raw, json_allowed)
    return refused.value.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("v", -1), ("v", 256), ("v", "1"), ("v", None), ("v", True), ("v", 1.0),
        ("kid", -1), ("kid", 2**32), ("kid", "1"),
        ("epoch", -1), ("epoch", 2**32), ("epoch", None),
        ("seq", -1), ("seq", 2**63), ("seq", 1.5),
        ("sent_at", 2**63), ("sent_at", "now"), ("sent_at", None),
        ("enc", 0), ("enc", 4), ("enc", 255),
        ("body", b""), ("body", LARGEST + b"\x00"), ("body", "text"), ("body", [1]), ("body", None),
        ("tag", b"\x00" * 15), ("tag", b"\x00" * 17), ("tag", b""), ("tag", "0" * 16),
    ],
)  # fmt: skip
def test_a_field_out_of_its_range_is_malformed(name: str, value: Any) -> None:
    """Every field is checked by type and range before anything else is done with it."""
    assert refusal(changed(name, value)) is Reason.MALFORMED_ENVELOPE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kid", 0), ("kid", 2**32 - 1), ("epoch", 0), ("epoch", 2**32 - 1), ("seq", 2**63 - 1),
        ("sent_at", -(2**63)), ("sent_at", 2**63 - 1), ("enc", 3), ("body", b"\x00"), ("body", LARGEST),
    ],
)  # fmt: skip
def test_the_ends_of_a_range_belong_to_it(name: str, value: Any) -> None:
    """The largest and smallest allowed values are decoded as they are."""
    assert getattr(open_envelope(changed(name, value), False), name) == value


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_told_apart_from_garbage(version: int) -> None:
    """An envelope that is well formed but of another version says so, that the device can be updated."""
    assert refusal(changed("v", version)) is Reason.UNSUPPORTED_VERSION


@pytest.mark.parametrize(
    "raw",
    [
        b"\x98",
        b"\xdc\x00\x08" + sign()[1:],  # array 16 of eight: the first byte of an envelope is 0x98
        b"\x80",
        pack(dict(zip(NAMES, elements(), strict=True))),
        b"[" * 10_000,
        b"\x98" + b"\x91" * 10_000,
        b'{"v":1}',
        b"null",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + sign_json(),
        sign_json() + b"x",
        sign_json()[:-1],
    ],
    ids=range(12),
)
def test_what_is_no_envelope_is_malformed(raw: bytes) -> None:
    """Other shapes, nesting, cut and trailing bytes are one reason, and never an exception of the decoder."""
    assert refusal(raw) is Reason.MALFORMED_ENVELOPE


@pytest.mark.parametrize("size", range(len(sign())))
def test_an_envelope_cut_anywhere_is_malformed(size: int) -> None:
    """No prefix of an envelope is an envelope."""
    assert refusal(sign()[:size]) is Reason.MALFORMED_ENVELOPE


def test_json_is_the_same_envelope() -> None:
    """Both forms decode to equal values."""
    assert open_envelope(sign_json(), True) == open_envelope(sign(), False)


def test_json_is_refused_where_the_transport_does_not_allow_it() -> None:
    """Over MQTT an envelope is MessagePack."""
    assert refusal(sign_json(), json_allowed=False) is Reason.MALFORMED_ENVELOPE


TAG_TEXT = base64.b64encode(bytes(16)).decode()


@pytest.mark.parametrize(
    "fields",
    [
        {"body": "AB=="},  # the unused bits are not zero
        {"body": "AA"},  # no padding
        {"body": "AA=="[:3]},
        {"body": "A A="},
        {"body": "AAAA\n"},
        {"body": "AA==AA=="},
        {"body": "AA-_"},  # the other alphabet
        {"body": ""},
        {"body": "===="},
        {"body": "ÄÄÄÄ"},
        {"tag": TAG_TEXT[:-3] + "B=="},
        {"tag": base64.b64encode(bytes(15)).decode()},
        {"tag": base64.b64encode(bytes(17)).decode()},
        {"tag": TAG_TEXT.rstrip("=")},
        {"extra": 1},
        {"seq": 1e300},
        {"seq": 10**30},
        {"kid": -1},
    ],
)
def test_json_that_is_not_canonical_is_malformed(fields: dict[str, Any]) -> None:
    """Base64 has one spelling for the signed bytes; unknown fields and numbers out of range are refused."""
    assert refusal(json_changed(**fields)) is Reason.MALFORMED_ENVELOPE


def test_a_missing_json_field_is_malformed() -> None:
    """All eight names are required."""
    for name in NAMES:
        fields = msgspec.json.decode(sign_json())
        del fields[name]
        assert refusal(msgspec.json.encode(fields)) is Reason.MALFORMED_ENVELOPE


def test_the_largest_body_fits_in_json() -> None:
    """64 KiB of body are allowed in either form."""
    raw = sign_json(body=LARGEST, sent_at=NOW)
    assert len(open_envelope(raw, True).body) == MAX_BODY_BYTES
