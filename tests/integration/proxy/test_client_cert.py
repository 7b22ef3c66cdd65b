"""Client-Cert on the real HTTPS listener: who may send it, whose request it makes, what ends the proxy's connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from tests.authorities import CA
from tests.gate import Car, Gate, Installation, replace, until
from tests.integration.proxy.page import PROXY_NAME
from tests.integration.proxy.stage import (
    BOTH,
    DIRECT,
    ENDS,
    PASSES,
    ProxyAuthority,
    addresses,
    certificate_of,
    context_of,
)
from tests.proxy_peer import REFUSED, HttpsHop, client_cert, proxy_header

ACCEPTED = (202, [None])


def header_of(car: Car) -> tuple[str, str]:
    return client_cert(certificate_of(car))


# Whose request it is.


def test_a_request_is_that_of_the_named_certificate(edge: Gate, hop: HttpsHop, car: Car) -> None:
    """Accepted and stored under the device, with the proxy's own address: no header of HTTP names another."""
    port, raw = hop.sock.getsockname()[1], car.sign(1, 0)
    told = hop.post(raw, header_of(car), ("X-Forwarded-For", "203.0.113.7"), ("Forwarded", "for=203.0.113.7"))
    assert (told, [message.raw for message in edge.stored(car)]) == (ACCEPTED, [raw])
    assert addresses(edge, car) == {f"{ENDS}:{port}"}


def test_two_devices_on_one_connection_never_mix(edge: Gate, hop: HttpsHop, car: Car, other_car: Car) -> None:
    """Taking turns on one kept-alive connection: each message is stored under its own device, in its own order."""
    cars = (car, other_car)
    sent = {each.device_id: [each.sign(1, seq) for seq in range(25)] for each in cars}
    told = [hop.post(sent[each.device_id][seq], header_of(each)) for seq in range(25) for each in cars]
    assert told == [ACCEPTED] * 50
    for each in cars:
        assert [message.raw for message in edge.stored(each)] == sent[each.device_id]


def test_a_devices_message_in_anothers_name_is_forged(edge: Gate, hop: HttpsHop, car: Car, other_car: Car) -> None:
    """Between two good requests of its own: what the last one was does not help the next."""
    told = [
        hop.post(car.sign(1, 0), header_of(car)),
        hop.post(car.sign(1, 1), header_of(other_car)),
        hop.post(car.sign(1, 1), header_of(car)),
    ]
    assert told == [ACCEPTED, (202, ["bad_mac"]), ACCEPTED]
    assert edge.stored(other_car) == []


def test_a_request_without_the_header_is_not_the_former_ones(edge: Gate, hop: HttpsHop, car: Car) -> None:
    """400, although the same connection has just carried the same car's message."""
    assert hop.post(car.sign(1, 0), header_of(car)) == ACCEPTED
    status, why = hop.post(car.sign(1, 1))
    assert (status, "exactly one Client-Cert" in why) == (400, True)
    assert len(edge.stored(car)) == 1


def test_a_proxy_has_as_many_connections_as_it_needs(
    edge: Gate, proxy_context: ssl.SSLContext, car: Car, other_car: Car
) -> None:
    """More than the eight that one device may have."""
    with ExitStack() as stack:
        hops = [stack.enter_context(HttpsHop(edge, proxy_context, ENDS)) for _ in range(12)]
        told = [
            hop.post(each.sign(1, seq), header_of(each)) for seq, hop in enumerate(hops) for each in (car, other_car)
        ]
    assert told == [ACCEPTED] * 24


def test_a_proxys_header_may_name_the_address(edge: Gate, proxy_context: ssl.SSLContext, car: Car) -> None:
    """From a peer in both lists: PROXY protocol for the address, Client-Cert for the certificate."""
    with HttpsHop(edge, proxy_context, BOTH, proxy_header("203.0.113.7", 40_000)) as hop:
        assert hop.post(car.sign(1, 0), header_of(car)) == ACCEPTED
    assert addresses(edge, car) == {"203.0.113.7:40000"}


# What is refused.


@pytest.mark.parametrize(
    "more", ["Client-Cert", "Client_Cert", "client_cert", "Client-Cert-Chain", "Client_Cert-Chain"]
)
def test_a_second_header_is_refused(edge: Gate, hop: HttpsHop, car: Car, other_car: Car, more: str) -> None:
    """On either side of the proxy's own: a proxy that lets pass what clients send must be noticed."""
    status, why = hop.post(car.sign(1, 0), (more, header_of(other_car)[1]), header_of(car))
    assert (status, "exactly one Client-Cert" in why) == (400, True)
    assert edge.stored(car) == []
    assert f'"address": "{ENDS}:' in next(line for line in edge.log().splitlines() if "request_refused" in line)


@pytest.mark.parametrize("spelling", ["Client-Cert", "Client_Cert", "CLIENT_CERT", "Client-Cert-Chain"])
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/telemetry"), ("GET", "/"), ("POST", "/v1/else")])
def test_a_vehicle_that_sends_the_header_is_refused(
    edge: Gate, car: Car, other_car: Car, spelling: str, method: str, path: str
) -> None:
    """Not ignored, on any route: 400, and nothing is judged."""
    with HttpsHop(edge, car.context(), DIRECT) as hop:
        headers = [("Host", "gate"), ("Content-Length", "0"), (spelling, header_of(other_car)[1])]
        status, why = hop.ask(method, path, headers)
    assert (status, "listed proxies only" in why) == (400, True)


def leaf_and_another(car: Car) -> bytes:
    return certificate_of(car) * 2


def issuing_ca(car: Car) -> bytes:
    return x509.load_pem_x509_certificates((car.directory / "certificate.pem").read_bytes())[1].public_bytes(
        Encoding.DER
    )


@pytest.mark.parametrize(("named", "why"), [
    (leaf_and_another, "cannot be parsed"),
    (issuing_ca, "certificate"),
    (lambda car: b"junk", "cannot be parsed"),
    (lambda car: certificate_of(car)[:-1], "cannot be parsed"),
], ids=["leaf and another", "CA as leaf", "junk", "cut short"])  # fmt: skip
def test_what_is_no_devices_certificate_is_refused(
    hop: HttpsHop, car: Car, named: Callable[[Car], bytes], why: str
) -> None:
    """403 with the reason; the connection goes on for others."""
    status, detail = hop.post(car.sign(1, 0), client_cert(named(car)))
    assert (status, why in detail) == (403, True)
    assert hop.post(car.sign(1, 0), header_of(car)) == ACCEPTED


def test_a_certificate_that_the_edge_does_not_trust_is_refused(hop: HttpsHop, car: Car, tmp_path: Path) -> None:
    """Whatever the proxy has let in: the edge verifies the chain itself."""
    foreign = Installation.create(tmp_path).enrol(car.vehicle_id)
    status, why = hop.post(car.sign(1, 0), header_of(foreign))
    assert (status, "no path" in why) == (403, True)


def test_a_device_that_control_does_not_know_is_told_so(hop: HttpsHop, stranger: Car) -> None:
    """As if it had come itself."""
    assert hop.post(stranger.sign(1, 0), header_of(stranger)) == (202, ["unknown_device"])


def test_a_revocation_holds_on_an_open_connection(edge: Gate, hop: HttpsHop, car: Car, other_car: Car) -> None:
    """Within 2 s on the next request of that device; others on the same connection go on."""
    assert hop.post(car.sign(1, 0), header_of(car)) == ACCEPTED
    edge.home.revoke(car)
    until(lambda: hop.post(car.sign(1, 1), header_of(car)) == (202, ["revoked"]), "the revocation holds", 2)
    assert hop.post(other_car.sign(1, 0), header_of(other_car)) == ACCEPTED


def test_a_revocation_list_holds_on_an_open_connection(edge: Gate, hop: HttpsHop, car: Car, other_car: Car) -> None:
    """The list comes while the connection is open: the edge asks it for each request, whatever the proxy checks."""
    assert hop.post(car.sign(1, 0), header_of(car)) == ACCEPTED
    home = edge.home.directory
    issuer = x509.load_pem_x509_certificate((home / "pki" / "issuing.pem").read_bytes())
    key = load_pem_private_key((home / "pki" / "issuing.key").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    revoked = x509.load_der_x509_certificate(certificate_of(car))
    (home / "cars.crl").write_bytes(CA(issuer, key).crl(revoked))
    settings = home / "fleetgate.toml"
    put(edge, settings, settings.read_bytes() + b'[[crls]]\nfile = "cars.crl"\n')
    until(lambda: hop.post(car.sign(1, 1), header_of(car)) == (202, ["revoked"]), "the list holds", 2)
    assert hop.post(other_car.sign(1, 0), header_of(other_car)) == ACCEPTED


def test_a_certificate_is_not_renewed_through_the_proxy(hop: HttpsHop, car: Car) -> None:
    """403 says why; telemetry goes on over the same connection."""
    headers = [("Host", "gate"), ("Content-Length", "3"), ("Content-Type", "application/pkcs10"), header_of(car)]
    status, why = hop.ask("POST", "/v1/renew", headers, b"csr")
    assert (status, "renew over a connection whose TLS the edge ends" in why) == (403, True)
    assert hop.post(car.sign(1, 0), header_of(car)) == ACCEPTED


# Who is the proxy.


def test_a_vehicle_at_the_proxys_address_is_no_proxy(edge: Gate, car: Car) -> None:
    """The address alone does not do: the handshake fails."""
    with pytest.raises(REFUSED), HttpsHop(edge, car.context(), ENDS) as hop:
        hop.post(car.sign(1, 0), header_of(car))


def test_the_proxys_certificate_at_another_address_is_nobodys(
    edge: Gate, proxy_context: ssl.SSLContext, car: Car
) -> None:
    """The certificate alone does not do either."""
    with pytest.raises(REFUSED), HttpsHop(edge, proxy_context, DIRECT) as hop:
        hop.post(car.sign(1, 0), header_of(car))


def test_an_address_that_a_header_supplies_makes_no_proxy(edge: Gate, proxy_context: ssl.SSLContext, car: Car) -> None:
    """A PROXY header with the address of the proxy that ends TLS, from one that may name addresses only."""
    with pytest.raises(REFUSED), HttpsHop(edge, proxy_context, PASSES, proxy_header(ENDS, 40_000)) as hop:
        hop.post(car.sign(1, 0), header_of(car))


def test_a_certificate_of_another_name_is_no_proxys(edge: Gate, proxies: ProxyAuthority, car: Car) -> None:
    """Although the same CA vouches for it: the connection is closed, and the log says why."""
    context = context_of(edge, proxies.issue("web-1.example.org"))
    with pytest.raises(REFUSED), HttpsHop(edge, context, ENDS) as hop:
        hop.post(car.sign(1, 0), header_of(car))
    assert "bears none of proxy.client_cert_proxy_names" in edge.log()


def test_a_proxy_without_a_certificate_is_refused(edge: Gate, car: Car) -> None:
    """In the handshake."""
    context = ssl.create_default_context(cafile=edge.home.directory / "pki" / "root.pem")
    with pytest.raises(REFUSED), HttpsHop(edge, context, ENDS) as hop:
        hop.post(car.sign(1, 0), header_of(car))


# What ends its connection.


def test_an_open_connection_ends_when_the_proxys_certificate_expires(
    edge: Gate, proxies: ProxyAuthority, car: Car
) -> None:
    """By itself, without a request. (Tried with longer lives where the machine was too busy to use a short one.)"""
    for seconds in (3, 6, 12, 24):
        context = context_of(edge, proxies.issue(PROXY_NAME, timedelta(seconds=seconds)))
        try:
            with HttpsHop(edge, context, ENDS) as hop:
                assert hop.post(car.sign(1, seconds), header_of(car)) == ACCEPTED
                hop.sock.settimeout(seconds + 10)
                assert hop.sock.recv(1) == b""
                return
        except REFUSED:
            continue
    pytest.fail("no connection began before its certificate had expired")


def test_a_proxy_that_is_taken_out_of_the_trust_loses_its_connection(
    edge: Gate, proxies: ProxyAuthority, hop: HttpsHop, proxy_context: ssl.SSLContext, car: Car
) -> None:
    """The file is replaced under a running edge; the pinned certificate is not in it any more, and then it is again.
    Vehicles that come directly notice nothing."""
    trust = edge.home.directory / "pki" / "proxies.pem"
    before = trust.read_bytes()
    with HttpsHop(edge, car.context(), DIRECT) as bystander:
        assert bystander.post(car.sign(1, 2)) == ACCEPTED
        assert hop.post(car.sign(1, 0), header_of(car)) == ACCEPTED
        put(edge, trust, proxies.pem)
        assert hop.sock.recv(1) == b""
        assert bystander.post(car.sign(1, 3)) == ACCEPTED
    with pytest.raises(REFUSED), HttpsHop(edge, proxy_context, ENDS) as refused:
        refused.post(car.sign(1, 1), header_of(car))
    put(edge, trust, before)
    with HttpsHop(edge, proxy_context, ENDS) as again:
        assert again.post(car.sign(1, 1), header_of(car)) == ACCEPTED


def put(edge: Gate, file: Path, content: bytes) -> None:
    """Replaces a file and waits until the edge has taken it."""
    count = edge.metric("fleetgate_files_replaced_total")
    replace(file, content)
    until(lambda: edge.metric("fleetgate_files_replaced_total") > count, "the files are replaced")
