"""The PROXY protocol header: one table of good ones and one of bad ones, read whole, byte by byte and with a client's
bytes behind."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.accept.proxyprotocol import MAX_HEADER_BYTES, SIGNATURE, Header, HeaderError, parse

HELLO = bytes.fromhex("1603010200010001fc0303")  # how a ClientHello begins
IPV4 = socket.inet_aton("203.0.113.7") + socket.inet_aton("127.0.0.1") + struct.pack(">HH", 40_000, 8883)
IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(15) + b"\1" + struct.pack(">HH", 40_000, 8883)
UNIX = b"/run/client.sock".ljust(108, b"\0") + b"/run/proxy.sock".ljust(108, b"\0")
TLV = b"\x04\0\x03\0\0\0"  # PP2_TYPE_NOOP with three bytes of padding
TLS_TLV = b"\x20\0\x0d\x05\0\0\0\0\x21\0\5TLSv1"  # PP2_TYPE_SSL with a nested one


def header(family: int, content: bytes, command: int = 1, version: int = 2, length: int | None = None) -> bytes:
    size = len(content) if length is None else length
    return SIGNATURE + struct.pack(">BBH", version << 4 | command, family, size) + content


GOOD = {
    "IPv4": (header(0x11, IPV4), "203.0.113.7:40000"),
    "IPv6": (header(0x21, IPV6), "2001:db8::7:40000"),
    "IPv4 with TLVs": (header(0x11, IPV4 + TLV + TLS_TLV), "203.0.113.7:40000"),
    "IPv6 with TLVs": (header(0x21, IPV6 + TLS_TLV), "2001:db8::7:40000"),
    "TLVs that are none": (header(0x11, IPV4 + b"\xff\xff"), "203.0.113.7:40000"),
    "the largest": (header(0x11, IPV4 + bytes(MAX_HEADER_BYTES - 16 - 12)), "203.0.113.7:40000"),
    "unspecified": (header(0x00, b""), ""),
    "unspecified with TLVs": (header(0x00, TLV), ""),
    "UNIX": (header(0x31, UNIX), ""),
    "LOCAL": (header(0x00, b"", command=0), ""),
    "LOCAL with addresses": (header(0x11, IPV4, command=0), ""),
    "LOCAL of a family that nobody knows": (header(0xFF, b"anything", command=0), ""),
}
BAD = {
    "TLS": (HELLO + bytes(20), "sent no PROXY"),
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "sent no PROXY"),
    "version 1": (b"PROXY TCP4 203.0.113.7 127.0.0.1 40000 8883\r\n", "sent no PROXY"),
    "version 1 in binary": (header(0x11, IPV4, version=1), "version 1, command 1"),
    "version 3": (header(0x11, IPV4, version=3), "version 3, command 1"),
    "another command": (header(0x11, IPV4, command=2), "version 2, command 2"),
    "a datagram": (header(0x12, IPV4), "family and transport 0x12"),
    "a datagram over IPv6": (header(0x22, IPV6), "family and transport 0x22"),
    "a datagram of UNIX": (header(0x32, UNIX), "family and transport 0x32"),
    "a fourth family": (header(0x41, UNIX), "family and transport 0x41"),
    "a stream of no family": (header(0x01, b""), "family and transport 0x01"),
    "too short for IPv4": (header(0x11, IPV4[:-1]), "11 bytes, too few"),
    "too short for IPv6": (header(0x21, IPV4), "12 bytes, too few"),
    "too short for UNIX": (header(0x31, UNIX[:-1]), "215 bytes, too few"),
    "too large": (header(0x11, b"", length=MAX_HEADER_BYTES - 15), f"at most {MAX_HEADER_BYTES}"),
    "as large as can be said": (header(0x11, b"", length=65_535), f"at most {MAX_HEADER_BYTES}"),
    "one byte of the signature wrong": (SIGNATURE[:-1] + b"\r" + bytes(20), "sent no PROXY"),
}


def by_pieces(data: bytes, size: int) -> tuple[Header, int]:
    """Reads `data` as a socket is read: what is asked for, at most `size` bytes at a time; and how much was read."""
    read = bytearray()
    while isinstance(found := parse(read), int):
        assert found > 0
        read += data[len(read) : len(read) + min(found, size)]
    return found, len(read)


@pytest.mark.parametrize(("data", "address"), GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("behind", [b"", HELLO], ids=["alone", "with a ClientHello"])
def test_a_header_names_its_address_and_where_it_ends(data: bytes, address: str, behind: bytes) -> None:
    """Whole, with nothing or with the client's bytes behind it."""
    assert parse(data + behind) == Header(len(data), address)


@pytest.mark.parametrize(("data", "address"), GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("size", [1, 7, 65_536], ids=["byte by byte", "by sevens", "as asked"])
def test_no_byte_behind_the_header_is_ever_asked_for(data: bytes, address: str, size: int) -> None:
    """The next byte is the ClientHello's, which TLS must find on the socket."""
    assert by_pieces(data + HELLO, size) == (Header(len(data), address), len(data))


@pytest.mark.parametrize(("data", "why"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("size", [1, 65_536], ids=["byte by byte", "as asked"])
def test_what_is_no_header_is_refused_with_a_reason(data: bytes, why: str, size: int) -> None:
    """At once where it can be seen: nothing waits for more of what cannot become one."""
    with pytest.raises(HeaderError, match=why):
        by_pieces(data + bytes(MAX_HEADER_BYTES), size)


def test_the_first_wrong_byte_is_enough() -> None:
    """A ClientHello's first byte, of a client that came past the proxy's header."""
    with pytest.raises(HeaderError):
        parse(HELLO[:1])


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_header_or_refused_or_unfinished(data: bytes, signed: bool) -> None:
    """Nothing else is raised, and what is asked for stays within the bound."""
    data = SIGNATURE + data if signed else data
    try:
        found = parse(data)
    except HeaderError:
        return
    if isinstance(found, int):
        assert 0 < found <= MAX_HEADER_BYTES - len(data)
    else:
        assert found.size <= len(data)
