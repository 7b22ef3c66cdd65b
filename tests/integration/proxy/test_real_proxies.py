"""HAProxy and nginx from Debian in front of the edge, configured as docs/how-to/run-behind-a-proxy.md says.

And attackers who send the header themselves: what the page's configurations make of it, and what happens without them.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tests.gate import Car, Gate
from tests.http_peer import MSGPACK, HttpPeer
from tests.integration.proxy.daemons import Front, haproxy, lay_out, needs_haproxy, needs_nginx, nginx
from tests.integration.proxy.page import blocks
from tests.integration.proxy.stage import DIRECT, ENDS, ProxyAuthority, addresses, certificate_of
from tests.mqtt_peer import Ended, MqttPeer, told
from tests.proxy_peer import HttpsHop, client_cert

from fleetgate import configfile
from fleetgate.accept.proxies import Proxies

ACCEPTED = (202, [None])
SETS = "    http-request set-header Client-Cert :%[ssl_c_der,base64]:\n"
REMOVES = "    http-request del-header ^client.?cert -m reg\n"


@pytest.fixture(scope="module")
def directory(edge: Gate, proxies: ProxyAuthority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("proxy")
    lay_out(made, edge, proxies)
    return made


@pytest.fixture(scope="module")
def passing(edge: Gate, directory: Path) -> Iterator[Front]:
    with haproxy("TLS passed through", edge, directory) as front:
        yield front


@pytest.fixture(scope="module", params=[
    pytest.param(haproxy, marks=needs_haproxy, id="HAProxy"),
    pytest.param(nginx, marks=needs_nginx, id="nginx"),
])  # fmt: skip
def ending(request: pytest.FixtureRequest, edge: Gate, directory: Path) -> Iterator[Front]:
    """Each proxy that ends TLS."""
    with haproxy("TLS ended", edge, directory) if request.param is haproxy else nginx(edge, directory) as front:
        yield front


def test_the_settings_on_the_page_are_good(tmp_path: Path) -> None:
    """Each block is read as a configuration file, and its proxies are looked at as an edge does."""
    pages = blocks("toml")
    for text in pages:
        file = tmp_path / "fleetgate.toml"
        file.write_text(text)
        Proxies(configfile.load(file, {}).proxy)
    assert len(pages) == 2


# TLS passed through.


@needs_haproxy
def test_mqtt_through_haproxy_keeps_the_vehicles_address(edge: Gate, passing: Front, car: Car) -> None:
    """The edge's own TLS with the vehicle, the edge's own check of its certificate, the vehicle's own address."""
    with MqttPeer(passing, car) as peer:
        port = peer.sock.getsockname()[1]
        assert told(peer.hello().ask(car.sign(1, 0))) == (0, None)
    assert addresses(edge, car) == {f"{DIRECT}:{port}"}


@needs_haproxy
def test_https_through_haproxy_keeps_the_vehicles_address(edge: Gate, passing: Front, car: Car) -> None:
    """The same over HTTPS, and a header of the vehicle's is refused as if it came directly."""
    with HttpsHop(passing, car.context(), DIRECT) as hop:
        port = hop.sock.getsockname()[1]
        assert hop.post(car.sign(1, 0)) == ACCEPTED
        assert hop.post(car.sign(1, 1), client_cert(certificate_of(car)))[0] == 400
    assert addresses(edge, car) == {f"{DIRECT}:{port}"}


@needs_haproxy
def test_a_revocation_ends_a_session_behind_haproxy(edge: Gate, passing: Front, car: Car) -> None:
    """DISCONNECT with the reason, through the proxy."""
    with MqttPeer(passing, car) as peer:
        peer.hello()
        edge.home.revoke(car)
        assert peer.farewell().reason_str == "revoked"


# TLS ended by the proxy.


def test_a_vehicle_is_known_behind_the_proxy(edge: Gate, ending: Front, car: Car) -> None:
    """Its message is accepted and stored under its name, with the proxy's address."""
    with HttpPeer(ending, car) as client:
        raws = [car.sign(1, seq) for seq in range(3)]
        assert [client.ask(raw)["status"] for raw in raws] == ["accepted"] * 3
    assert [message.raw for message in edge.stored(car)] == raws
    assert {address.rpartition(":")[0] for address in addresses(edge, car)} == {ENDS}


def test_vehicles_that_share_the_proxys_connections_never_mix(edge: Gate, ending: Front) -> None:
    """Six at once, 40 requests each, over connections that the proxy gives now to one and now to another."""
    cars = [edge.home.enrol(f"{'abcdef'[number]}-{ending.https_port}") for number in range(6)]
    sent = {car.device_id: [car.sign(1, seq) for seq in range(40)] for car in cars}
    statuses: list[str] = []

    def send(car: Car) -> None:
        with HttpPeer(ending, car) as client:
            statuses.extend(client.ask(raw)["status"] for raw in sent[car.device_id])

    threads = [threading.Thread(target=send, args=(car,)) for car in cars]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == ["accepted"] * 240
    for car in cars:
        assert [message.raw for message in edge.stored(car)] == sent[car.device_id]


def test_a_revoked_vehicle_is_told_so_behind_the_proxy(edge: Gate, ending: Front, car: Car) -> None:
    """By the records, for each request."""
    edge.home.revoke(car)
    with HttpPeer(ending, car) as client:
        assert client.ask(car.sign(1, 0))["reason"] == "revoked"


@pytest.mark.parametrize("spelling", ["Client-Cert", "client-cert", "Client_Cert", "Client-Cert-Chain"])
def test_what_a_vehicle_sends_itself_is_removed(
    edge: Gate, ending: Front, car: Car, other_car: Car, spelling: str
) -> None:
    """Somebody with a good certificate names another's: the request stays that of the certificate in the handshake."""
    attack = (spelling, client_cert(certificate_of(other_car))[1])
    with HttpsHop(ending, car.context(), DIRECT) as hop:
        assert hop.post(car.sign(1, 0), attack) == ACCEPTED
        assert hop.post(other_car.sign(1, 0), attack, attack) == (202, ["bad_mac"])
    assert (len(edge.stored(car)), edge.stored(other_car)) == (1, [])
    assert (edge.refused(car, "bad_mac"), edge.refused(other_car, "bad_mac")) == (1, 0)


@pytest.mark.parametrize("lengths", [
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding:\tchunked\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 0",
    "Content-Length: 5",
])  # fmt: skip
def test_a_request_hidden_in_another_is_not_the_victims(
    edge: Gate, ending: Front, car: Car, other_car: Car, lengths: str
) -> None:
    """Lengths that contradict each other, and behind them a request in another's name: if proxy and edge disagreed
    about where a request ends, it would come with the proxy's word."""
    name, value = client_cert(certificate_of(other_car))
    raw = other_car.sign(1, 0, key=bytes(32))
    hidden = f"POST /v1/telemetry HTTP/1.1\r\nHost: gate\r\nContent-Type: {MSGPACK}\r\n{name}: {value}\r\n"
    outer = f"POST /v1/telemetry HTTP/1.1\r\nHost: gate\r\nContent-Type: {MSGPACK}\r\n{lengths}\r\n\r\n0\r\n\r\n"
    with HttpsHop(ending, car.context(), DIRECT) as hop:
        hop.sock.sendall(f"{outer}{hidden}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        hop.sock.settimeout(5)
        assert hop.sock.recv(12).startswith(b"HTTP/1.1 ")
    with HttpPeer(ending, other_car) as client:
        assert client.ask(other_car.sign(1, 1))["status"] == "accepted"
    assert edge.refused(other_car, "bad_mac") == 0


# Without what the page says.


@needs_haproxy
def test_a_proxy_that_only_adds_its_header_is_noticed(edge: Gate, directory: Path, car: Car, other_car: Car) -> None:
    """`add-header` where the page says `set-header`, and nothing removed: two headers are refused."""
    with (
        haproxy("TLS ended", edge, directory, {REMOVES: "", "set-header": "add-header"}) as front,
        ExitStack() as stack,
    ):
        hops = [stack.enter_context(HttpsHop(front, car.context(), DIRECT)) for _ in range(2)]
        assert hops[0].post(car.sign(1, 0)) == ACCEPTED
        status, why = hops[1].post(car.sign(1, 1), client_cert(certificate_of(other_car)))
    assert (status, "exactly one Client-Cert" in why) == (400, True)


@needs_haproxy
def test_a_proxy_that_lets_the_header_pass_is_believed_but_no_message_is(
    edge: Gate, directory: Path, car: Car, other_car: Car
) -> None:
    """The damage of the worst configuration: whoever has a certificate speaks in another's name, and brings a score on
    it; but no message of another's can be made without its MAC key."""
    with (
        haproxy("TLS ended", edge, directory, {REMOVES: "", SETS: ""}) as front,
        HttpsHop(front, car.context(), DIRECT) as hop,
    ):
        told = hop.post(car.sign(1, 0), client_cert(certificate_of(other_car)))
    assert told == (202, ["bad_mac"])
    assert (edge.stored(other_car), edge.refused(other_car, "bad_mac")) == ([], 1)


@needs_haproxy
def test_a_listed_proxy_that_sends_no_header_reaches_nobody(edge: Gate, directory: Path, car: Car) -> None:
    """`send-proxy-v2` forgotten: the connection ends before TLS."""
    with (
        haproxy("TLS passed through", edge, directory, {" send-proxy-v2": ""}) as front,
        pytest.raises(httpx.TransportError),
        HttpPeer(front, car) as client,
    ):
        client.ask(car.sign(1, 0))


@needs_haproxy
def test_mqtt_behind_a_proxy_that_ends_tls_reaches_nobody(edge: Gate, directory: Path, car: Car) -> None:
    """It is not offered: what comes is not TLS, and no session begins."""
    ends = {"bind :8883": f"bind :8883 ssl crt {directory}/gate-both.pem"}
    with (
        haproxy("TLS passed through", edge, directory, ends) as front,
        pytest.raises((Ended, ssl.SSLError)),
        MqttPeer(front, car) as peer,
    ):
        peer.greet()
