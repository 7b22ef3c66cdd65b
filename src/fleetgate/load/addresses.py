"""Which addresses a webhook may reach: those of the public internet, and none of this machine, network or cloud.

Decides by IANA's registries of special-purpose addresses (RFC 6890), written down here: what the standard library
calls global differs between its versions. Where an IPv6 address is only another way to an IPv4 one, that one is judged.
What is resolved, and when, is decided by `load.posting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_NOT_PUBLIC_4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this host
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by carriers, and by clouds for their own
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local: where clouds hand out credentials
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
_PUBLIC_6: Final = IPv6Network("2000::/3")
_NOT_PUBLIC_6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # Teredo, benchmarking, ORCHID ...
            "2001:db8::/32",
            "2002::/16",  # 6to4: any IPv4 address may be inside
            "3fff::/20",
        ),
    )
)
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """False for what is no address, too."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address):
        if ip not in _MAPPED and ip not in _NAT64:
            return ip in _PUBLIC_6 and not any(ip in network for network in _NOT_PUBLIC_6)
        ip = IPv4Address(int(ip) & 0xFFFFFFFF)
    return not any(ip in network for network in _NOT_PUBLIC_4)


def is_never_public(host: str) -> bool:
    """Whether the host of a URL is known, before anybody is asked for its addresses, to have none that is public."""
    try:
        return not is_public(str(ip_address(host)))
    except ValueError:
        return host.rstrip(".").rpartition(".")[2] == "localhost"  # RFC 6761, 6.3


def first_not_public(addresses: Sequence[str]) -> str | None:
    """One bad address spoils a name: whoever gives out both kinds hopes that the other is taken."""
    return next((address for address in addresses if not is_public(address)), None)
