"""Whose request an HTTPS request is.

A vehicle that connects itself is known by the connection's certificate. Through a proxy that ends TLS, by the one that
the request names, verified anew for each: nothing that a request left is found by the next on the same connection.
Decides which of the two is believed, and for what: not for a new key. Whether the device may send is the registry's.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, NamedTuple

from fleetgate.accept import clientcert, strangers
from fleetgate.accept.known import Caller
from fleetgate.accept.problems import Problem, Scope
from fleetgate.accept.vetting import Vetting
from fleetgate.control.profile import CertificateIdentity, ProfileError

NOT_THROUGH_A_PROXY: Final = {
    "/v1/renew": "a certificate is not renewed through a proxy that ends TLS, which could ask for one in any vehicle's "
    "name: renew over a connection whose TLS the edge ends"
}
"""Routes, and why no proxy's word is enough there (docs/adr/0008)."""


class Link:
    """The certificate's identity or why it has none, and the caller once known.

    `through_proxy`: of one request, not of a connection, because a proxy has ended the vehicle's TLS. `requests` counts
    those that are not answered yet; once `ending`, the next answer is the last one.
    """

    __slots__ = ("address", "caller", "ending", "identity", "profile_error", "requests", "through_proxy")

    def __init__(
        self, identity: CertificateIdentity | None, profile_error: str, address: str, *, through_proxy: bool = False
    ) -> None:
        self.identity = identity
        self.profile_error = profile_error
        self.address = address
        self.through_proxy = through_proxy
        self.caller: Caller | None = None
        self.ending = False
        self.requests = 0

    @property
    def who(self) -> str:
        return strangers.who(self.identity, self.address)


class Hop(NamedTuple):
    """The connection of a proxy that ends the vehicles' TLS, until its own certificate expires. It is no vehicle's."""

    address: str
    until_ms: int

    @property
    def who(self) -> str:
        return f"proxy {self.address.rpartition(':')[0]}"


def link_of(scope: Scope, vetting: Vetting) -> Link:
    """The link of a request. Raises Problem: 400 where the header Client-Cert is missing, wrong, or not for this peer
    to send, 403 where its word is not enough."""
    of_connection: Link | Hop = scope["state"]["link"]
    if isinstance(of_connection, Link):
        clientcert.refuse(scope["headers"])
        return of_connection
    leaf = clientcert.leaf_of(scope["headers"])
    if (why := NOT_THROUGH_A_PROXY.get(scope["path"])) is not None:
        raise Problem(HTTPStatus.FORBIDDEN, why)
    try:
        return Link(vetting.verify(leaf), "", of_connection.address, through_proxy=True)
    except ProfileError as error:
        return Link(None, str(error), of_connection.address, through_proxy=True)
