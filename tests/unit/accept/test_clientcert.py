"""Client-Cert as RFC 9440 writes it, and the many ways that are refused."""

from __future__ import annotations

import base64
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.accept.clientcert import MAX_VALUE_BYTES, leaf_of, refuse
from fleetgate.accept.problems import Problem

LEAF = bytes(range(256)) * 2
BASE64 = base64.b64encode(LEAF)
VALUE = b":" + BASE64 + b":"
HOST = (b"host", b"gate.example.org")
FORM = (b"content-type", b"application/vnd.fleetgate.v1+json")

OTHER_SPELLINGS = [
    b"client_cert", b"Client_Cert", b"CLIENT_CERT", b"client.cert", b"clientcert", b"client-cert_", b"-client-cert",
    b"client-cert-chain", b"client_cert_chain", b"client-cert_chain",
]  # fmt: skip


def header(value: bytes) -> list[tuple[bytes, bytes]]:
    return [HOST, (b"client-cert", value), FORM]


def test_the_leaf_is_what_stands_between_the_colons() -> None:
    """One header among others."""
    assert leaf_of(header(VALUE)) == LEAF


def test_the_longest_value_is_taken() -> None:
    """The bound is the last that goes."""
    longest = bytes((MAX_VALUE_BYTES - 2) // 4 * 3)
    assert leaf_of(header(b":" + base64.b64encode(longest) + b":")) == longest


@pytest.mark.parametrize(("value", "why"), [
    (b"", "between two colons"),
    (b":", "between two colons"),
    (b"::", "between two colons"),
    (BASE64, "between two colons"),
    (b":" + BASE64, "between two colons"),
    (VALUE + b";by=proxy", "between two colons"),
    (VALUE + b" ", "between two colons"),
    (VALUE + b", " + VALUE, "canonical base64"),
    (VALUE[:-1] + VALUE, "canonical base64"),
    (b":" + BASE64[:-1] + b":", "canonical base64"),
    (b":" + BASE64 + b"=:", "canonical base64"),
    (b":" + BASE64[:64] + b"\n" + BASE64[64:] + b":", "canonical base64"),
    (b":" + BASE64[:64] + b" " + BASE64[64:] + b":", "canonical base64"),
    (b":" + BASE64.replace(b"+", b"-").replace(b"/", b"_") + b":", "canonical base64"),
    (b":AB==:", "canonical base64"),
    (b":AA=A:", "canonical base64"),
    (b":\xff\xfe\xfd\xfc:", "canonical base64"),
    (b"%2D%2D%2D%2D%2DBEGIN%20CERTIFICATE", "between two colons"),
    (b":" + b"A" * MAX_VALUE_BYTES + b":", "longer than"),
])  # fmt: skip
def test_any_other_value_is_refused(value: bytes, why: str) -> None:
    """400, and the proxy's operator learns what is wrong."""
    with pytest.raises(Problem, match=why) as refused:
        leaf_of(header(value))
    assert refused.value.status is HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("more", [b"client-cert", *OTHER_SPELLINGS])
def test_a_second_one_is_refused(more: bytes) -> None:
    """Whatever its value and spelling, and on whichever side it stands."""
    for headers in ([*header(VALUE), (more, VALUE)], [(more, b"x"), *header(VALUE)]):
        with pytest.raises(Problem, match="exactly one Client-Cert"):
            leaf_of(headers)


@pytest.mark.parametrize("headers", [[HOST, FORM], [], *([HOST, (name, VALUE)] for name in OTHER_SPELLINGS)])
def test_without_the_header_a_proxys_request_is_nobodys(headers: list[tuple[bytes, bytes]]) -> None:
    """Nor does another spelling stand for it."""
    with pytest.raises(Problem, match="exactly one Client-Cert"):
        leaf_of(headers)


@pytest.mark.parametrize("name", [b"client-cert", b"Client-Cert", *OTHER_SPELLINGS])
def test_from_anybody_else_it_is_refused_and_not_ignored(name: bytes) -> None:
    """In every spelling."""
    with pytest.raises(Problem, match="listed proxies only") as refused:
        refuse([HOST, (name, VALUE), FORM])
    assert refused.value.status is HTTPStatus.BAD_REQUEST


def test_other_headers_are_nobodys_business() -> None:
    """A name that only resembles it."""
    refuse([HOST, FORM, (b"client-certificate", b"x"), (b"x-client-cert", b"x"), (b"client", b"cert")])


@given(st.binary(max_size=400))
def test_any_bytes_are_taken_as_they_are_or_refused(value: bytes) -> None:
    """What is taken could be written in one way only."""
    try:
        leaf = leaf_of(header(value))
    except Problem:
        return
    assert b":" + base64.b64encode(leaf) + b":" == value
