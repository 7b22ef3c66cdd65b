"""PROXY protocol, version 2: the header with which a load balancer says whose connection it passes on.

(https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt, section 2.2.) Without I/O, like the rest of the protocols.
Decides what a whole header is, how many bytes of the socket belong to it, and which address it names. Who may send one
is `proxies`'; the bytes behind it are TLS' and are never read here. Version 1 is refused: it is text without a length,
so that its end has to be looked for among bytes that may be the client's.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
MAX_HEADER_BYTES: Final = 2048
"""Addresses take at most 216 bytes. The rest is for what proxies add as TLVs, seldom more than 300 bytes."""

_FIXED_BYTES = 16  # signature, version and command, family and transport, length of what follows
_IPV4, _IPV6 = struct.Struct(">4s4sHH"), struct.Struct(">16s16sHH")
_VERSION, _LOCAL, _PROXY = 2, 0, 1
_UNSPECIFIED, _TCP_OVER_IPV4, _TCP_OVER_IPV6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_ADDRESS_BYTES = {_UNSPECIFIED: 0, _TCP_OVER_IPV4: _IPV4.size, _TCP_OVER_IPV6: _IPV6.size, _UNIX_STREAM: 216}


class HeaderError(Exception):
    """The bytes are no PROXY header that is taken here; the text says why."""


class Header(NamedTuple):
    """A whole header of `size` bytes. `address`: HOST:PORT of the client; empty where it names none, and the proxy's
    own is the address."""

    size: int
    address: str


def parse(data: bytes | bytearray) -> Header | int:
    """The header that `data` begins with, or how many more bytes of it to read: all of them belong to it.

    Raises HeaderError as soon as the bytes cannot become one.
    """
    if bytes(data[: len(SIGNATURE)]) != SIGNATURE[: len(data)]:
        raise HeaderError("a listed proxy sent no PROXY protocol header of version 2")
    if len(data) < _FIXED_BYTES:
        return _FIXED_BYTES - len(data)
    version, command, family = data[12] >> 4, data[12] & 15, data[13]
    length = int.from_bytes(data[14:16], "big")
    size = _FIXED_BYTES + length
    if version != _VERSION or command not in (_LOCAL, _PROXY):
        raise HeaderError(f"PROXY protocol header of version {version}, command {command}")
    if size > MAX_HEADER_BYTES:
        raise HeaderError(f"PROXY protocol header of {size} bytes: at most {MAX_HEADER_BYTES}")
    if len(data) < size:
        return size - len(data)
    # A LOCAL connection is the proxy's own, a health check: its family and addresses mean nothing. TLVs, which may
    # follow the addresses, are skipped: nothing here depends on what they say.
    return Header(size, _address(family, data, length) if command == _PROXY else "")


def _address(family: int, data: bytes | bytearray, length: int) -> str:
    if family not in _ADDRESS_BYTES:
        raise HeaderError(f"PROXY protocol header of family and transport {family:#04x}: this is a TCP listener")
    if length < _ADDRESS_BYTES[family]:
        raise HeaderError(f"PROXY protocol header with {length} bytes, too few for addresses of family {family:#04x}")
    if family == _TCP_OVER_IPV4:
        source, _, port, _ = _IPV4.unpack_from(data, _FIXED_BYTES)
        return f"{IPv4Address(source)}:{port}"
    if family == _TCP_OVER_IPV6:
        source, _, port, _ = _IPV6.unpack_from(data, _FIXED_BYTES)
        return f"{IPv6Address(source)}:{port}"
    return ""  # unspecified, or a path on the proxy's machine, which tells nobody anything
