"""An external PKI with a CA for each tenant, their revocation lists, and what hostile chains come to at a real edge.

One edge for the whole file: `acme` may be spoken for by the gate's own CA and by acme's, `globex` by globex's only.
Acme's list is a file, globex's comes from a web server of the test. Each test has cars that no other test has, and
leaves a list in force that is newer than the one it found.
"""

from __future__ import annotations

import itertools
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.authorities import CA, DAY, Leaf, pem, spiffe
from tests.gate import Car, Gate, Installation, replace, started, until
from tests.http_peer import HttpPeer
from tests.mqtt_peer import Ended, MqttPeer, told

from fleetgate.control.pki import private_pem

GRACE_SECONDS = 2
STALE_REVOCATION = 16
_numbers = itertools.count(1)


class Vendor:
    """The external PKI: a root, a CA for each of two tenants, one that nobody named; and what they publish."""

    def __init__(self) -> None:
        self.root = CA.root("vendor root")
        self.acme, self.globex = self.root.below("acme CA"), self.root.below("globex CA")
        self.revoked: list[x509.Certificate] = []
        self.published = self.globex.crl(next_s=DAY)
        self.fetches = 0

    @property
    def bundle(self) -> bytes:
        return pem(*(ca.certificate for ca in (self.root, self.acme, self.globex)))


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture(scope="module")
def web(vendor: Vendor) -> Iterator[str]:
    """Where globex's list is published."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            vendor.fetches += 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(vendor.published)))
            self.end_headers()
            self.wfile.write(vendor.published)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in http.server
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/globex.crl"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def gate(authority: Installation, vendor: Vendor, web: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    home = authority.copy(tmp_path_factory.mktemp("external") / "gate")
    bundle = home.directory / "pki" / "trust.pem"
    own = x509.load_pem_x509_certificates(bundle.read_bytes())
    bundle.write_bytes(bundle.read_bytes() + vendor.bundle)
    (home.directory / "acme-ca.pem").write_bytes(pem(vendor.acme.certificate))
    (home.directory / "acme.crl").write_bytes(vendor.acme.crl())
    home.configure(
        edge={"crl_grace_seconds": GRACE_SECONDS, "tls_1_2": True},
        issuers={
            "acme": ["acme-ca.pem", own[0].fingerprint(SHA256()).hex()],
            "globex": [vendor.globex.certificate.fingerprint(SHA256()).hex(":").upper()],
        },
        crls=[{"file": "acme.crl"}, {"url": web, "refresh_seconds": 1}],
    )
    with started(home) as gate:
        yield gate


def key_of(car: Car) -> EllipticCurvePrivateKey:
    key = load_pem_private_key(car.key_file.read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    return key


class Vehicle:
    """A car whose key the gate knows, with a certificate of the external PKI."""

    def __init__(self, gate: Gate, issuer: CA, tenant: str, **options: object) -> None:
        self.car = gate.home.enrol(f"car-{next(_numbers)}", tenant)
        self.leaf = issuer.leaf(tenant, self.car.device_id, key=key_of(self.car), **options)  # type: ignore[arg-type]
        self.context = context_of(self.car, self.leaf)


def context_of(car: Car, leaf: Leaf, *extra: x509.Certificate) -> ssl.SSLContext:
    return car.context(*leaf.write(car.directory / f"vendor-{next(_numbers)}", *extra))


def connack(gate: Gate, car: Car, context: ssl.SSLContext) -> tuple[int, str | None]:
    with MqttPeer(gate, car, context) as peer:
        answer = peer.greet()
        return int(answer.reason_code), answer.reason_str


def problem(gate: Gate, car: Car, context: ssl.SSLContext) -> tuple[int, str]:
    with HttpPeer(gate, car, context) as peer:
        answer = peer.post(car.sign(1, 0))
        return answer.status, answer.items["detail"]


def refused_by_tls(gate: Gate, car: Car, context: ssl.SSLContext) -> bool:
    with pytest.raises((ssl.SSLError, OSError, Ended)), MqttPeer(gate, car, context) as peer:
        peer.greet()
    with pytest.raises(httpx.TransportError), HttpPeer(gate, car, context) as client:
        client.post(car.sign(1, 0))
    return True


@pytest.fixture
def vehicle(gate: Gate, vendor: Vendor) -> Vehicle:
    """One of acme's, with acme's CA."""
    return Vehicle(gate, vendor.acme, "acme")


def publish(gate: Gate, content: bytes) -> None:
    """As acme's PKI would: another list takes the place of the former one."""
    replace(gate.home.directory / "acme.crl", content)


def list_refused(gate: Gate, event: str) -> None:
    until(lambda: gate.metric("fleetgate_crls_refused") == 1, "the list is refused", 5)
    assert event in gate.log().splitlines()[-1]


class TestWhoSpeaksForWhom:
    """Chains that TLS lets through."""

    def test_a_tenants_own_ca_and_the_gates_both_speak_for_it(self, gate: Gate, vehicle: Vehicle) -> None:
        """Over both transports; the certificate on the rows is the one that was shown."""
        with MqttPeer(gate, vehicle.car, vehicle.context).hello() as peer:
            assert told(peer.ask(vehicle.car.sign(1, 0))) == (0, None)
        with HttpPeer(gate, vehicle.car) as client:
            assert client.ask(vehicle.car.sign(1, 1))["status"] == "accepted"
        shown = {peer.fingerprint for segment in gate.segments() for peer in segment.peers.values()}
        assert vehicle.leaf.certificate.fingerprint(SHA256()) in shown

    def test_a_certificate_of_another_tenant(self, gate: Gate, vendor: Vendor) -> None:
        """Acme's CA makes one that names a vehicle of globex, key and all."""
        stolen = Vehicle(gate, vendor.acme, "globex")
        code, why = connack(gate, stolen.car, stolen.context)
        assert code == 0x87
        assert "speaks for another tenant" in (why or "")
        status, detail = problem(gate, stolen.car, stolen.context)
        assert status == 403
        assert "speaks for another tenant" in detail

    def test_an_issuer_that_is_not_allowed_for_the_tenant(self, gate: Gate) -> None:
        """The gate's own CA speaks for acme: the certificate that globex's vehicle was enrolled with is refused."""
        car = gate.home.enrol(f"car-{next(_numbers)}", "globex")
        assert "speaks for another tenant" in str(connack(gate, car, car.context()))

    def test_an_issuer_that_nobody_named(self, gate: Gate, vendor: Vendor) -> None:
        """Below the same root, which is trusted: but acme has its own."""
        stray = Vehicle(gate, vendor.root.below("third CA"), "acme")
        assert "no issuer of the certificate speaks for the tenant" in str(connack(gate, stray.car, stray.context))

    def test_an_extra_certificate_behind_the_leaf_is_not_the_identity(self, gate: Gate, vendor: Vendor) -> None:
        """The victim's certificate behind one's own: the session is one's own."""
        victim, mine = Vehicle(gate, vendor.acme, "acme"), Vehicle(gate, vendor.acme, "acme")
        context = context_of(mine.car, mine.leaf, victim.leaf.certificate)
        with MqttPeer(gate, mine.car, context) as peer:
            assert peer.greet(client_id=victim.car.device_id).reason_code == 0x85
        with MqttPeer(gate, mine.car, context) as peer:
            assert peer.greet().assigned_client_id == mine.car.device_id

    def test_an_extra_ca_behind_the_leaf_does_not_speak_for_it(self, gate: Gate, vendor: Vendor) -> None:
        """Globex's CA makes a vehicle of acme and sends acme's CA along: it is not in the chain that was verified."""
        forged = Vehicle(gate, vendor.globex, "acme")
        context = context_of(forged.car, forged.leaf, vendor.acme.certificate)
        assert "speaks for another tenant" in str(connack(gate, forged.car, context))


RAW_NAMES = {
    "NUL": b"spiffe://fleet.example/tenant/acme/device/%s\x00.evil",
    "a Cyrillic letter": "spiffe://fleet.example/tenant/\u0430cme/device/%s".encode(),
    "a letter of full width": "spiffe://fleet.example/tenant/acme/device/%s\uff41".encode(),
    "a right-to-left mark": "spiffe://fleet.example/tenant/acme/device/\u202e%s".encode(),
    "bytes that are no UTF-8": b"spiffe://fleet.example/tenant/acme/device/%s\xff\xfe",
    "a line feed": b"spiffe://fleet.example/tenant/acme/device/%s\n",
    "a percent escape": b"spiffe://fleet.example/tenant/acme/device/%s%%00",
    "upper case": b"spiffe://FLEET.EXAMPLE/tenant/acme/device/%s",
}


def raw_name(uri: bytes) -> x509.UnrecognizedExtension:
    """A subject alternative name with these very bytes as its one URI, which no library would write."""
    name = b"\x86" + bytes([len(uri)]) + uri
    return x509.UnrecognizedExtension(x509.OID_SUBJECT_ALTERNATIVE_NAME, b"\x30" + bytes([len(name)]) + name)


ODD_CA = """
openssl ecparam -name prime239v1 -genkey -noout -out odd.key
openssl req -new -key odd.key -subj "/CN=odd CA" -out odd.csr
openssl x509 -req -in odd.csr -CA root.pem -CAkey root.key -set_serial 2 -days 30 -extfile ca.ext -out odd.pem
openssl req -new -key leaf.key -subj "/CN=car" -out leaf.csr
openssl x509 -req -in leaf.csr -CA odd.pem -CAkey odd.key -set_serial 3 -days 30 -extfile leaf.ext -out leaf.pem
cat leaf.pem odd.pem > chain.pem
"""
KEY_IDS = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
CA_EXT = f"basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n{KEY_IDS}"
LEAF_EXT = (
    f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n{KEY_IDS}"
)


def below_an_odd_ca(car: Car, root: CA, directory: Path) -> ssl.SSLContext:
    """`root` vouches for a CA on a curve that `cryptography` does not have, and that one for the car."""
    name = f"subjectAltName=URI:{spiffe('acme', car.device_id).value}\n"
    contents = {"root.pem": pem(root.certificate), "root.key": private_pem(root.key)}
    contents |= {
        "leaf.key": car.key_file.read_bytes(),
        "ca.ext": CA_EXT.encode(),
        "leaf.ext": (LEAF_EXT + name).encode(),
    }
    for file, content in contents.items():
        (directory / file).write_bytes(content)
    subprocess.run(["sh", "-e", "-c", ODD_CA], cwd=directory, capture_output=True, timeout=30, check=True)
    return car.context(directory / "chain.pem")


class TestHostileLeaves:
    """A CA that is trusted signs what it should not; or one that is not trusted signs what it should."""

    @pytest.mark.parametrize("trick", RAW_NAMES)
    def test_tricks_in_names(self, gate: Gate, vendor: Vendor, trick: str) -> None:
        """The name is compared byte by byte with what one may be: nothing is cut at NUL, folded or read leniently."""
        car = gate.home.enrol(f"car-{next(_numbers)}")
        leaf = vendor.acme.leaf(key=key_of(car), raw=raw_name(RAW_NAMES[trick] % car.device_id.encode()))
        assert connack(gate, car, context_of(car, leaf))[0] == 0x87

    def test_a_leaf_with_two_uri_names(self, gate: Gate, vendor: Vendor, vehicle: Vehicle) -> None:
        """One's own and another's."""
        names = [spiffe("acme", vehicle.car.device_id), spiffe("acme", "other-tcu")]
        leaf = vendor.acme.leaf(key=key_of(vehicle.car), names=names)
        assert "exactly one subject alternative name" in str(connack(gate, vehicle.car, context_of(vehicle.car, leaf)))

    def test_a_ca_certificate_as_leaf(self, gate: Gate, vendor: Vendor) -> None:
        """One that names a vehicle, and the issuing CA's own."""
        as_ca = Vehicle(gate, vendor.acme, "acme", ca=True)
        assert "a CA certificate, not a device's" in str(connack(gate, as_ca.car, as_ca.context))
        issuing = context_of(as_ca.car, Leaf(vendor.acme.certificate, vendor.acme.key, ()))
        assert connack(gate, as_ca.car, issuing)[0] == 0x87

    def test_a_self_signed_certificate(self, gate: Gate, vehicle: Vehicle) -> None:
        """With the right name and the right key: TLS fails."""
        alone = CA.root(vehicle.car.device_id)
        leaf = CA(alone.certificate, key_of(vehicle.car)).leaf("acme", vehicle.car.device_id, key=key_of(vehicle.car))
        assert refused_by_tls(gate, vehicle.car, context_of(vehicle.car, leaf))

    def test_an_expired_intermediate(self, gate: Gate, vendor: Vendor) -> None:
        """The leaf is valid, the root is trusted, what is between them has ended: TLS fails."""
        expired = Vehicle(gate, vendor.root.below("old CA", start_s=-2 * DAY, end_s=-DAY), "acme")
        assert refused_by_tls(gate, expired.car, expired.context)

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
    def test_a_ca_with_a_key_that_only_openssl_knows(
        self, gate: Gate, vendor: Vendor, vehicle: Vehicle, tmp_path: Path
    ) -> None:
        """A CA of the bundle without pathlen vouches for it, so the handshake succeeds: the edge goes on."""
        context = below_an_odd_ca(vehicle.car, vendor.root, tmp_path)
        code, why = connack(gate, vehicle.car, context)
        assert code == 0x87
        assert "cannot be read" in (why or "")
        assert problem(gate, vehicle.car, context)[0] == 403
        assert connack(gate, vehicle.car, vehicle.context)[0] == 0


class TestRevocationLists:
    """What arrives, what is kept out, and whom it ends."""

    def test_a_revoked_certificate(self, gate: Gate, vendor: Vendor, vehicle: Vehicle) -> None:
        """Live sessions of both transports end, a new one is told `revoked`; the car's other certificate lives."""
        car, bystander = vehicle.car, Vehicle(gate, vendor.acme, "acme")
        with (
            MqttPeer(gate, car, vehicle.context, deadline_s=5).hello() as mqtt,
            HttpPeer(gate, car, vehicle.context) as http,
            MqttPeer(gate, bystander.car, bystander.context).hello() as other,
        ):
            assert http.ask(car.sign(1, 0))["status"] == "accepted"
            vendor.revoked.append(vehicle.leaf.certificate)
            publish(gate, vendor.acme.crl(*vendor.revoked))
            assert mqtt.farewell().reason_str == "revoked"
            until(lambda: gate.metric('fleetgate_connections{transport="https"}') == 0, "HTTPS ends too", 2)
            item = http.ask(car.sign(1, 1))
            assert (item["status"], item["reason"]) == ("rejected", "revoked")
            assert told(other.ask(bystander.car.sign(1, 0))) == (0, None)
        assert connack(gate, car, vehicle.context) == (0x87, "revoked")
        assert connack(gate, car, car.context())[0] == 0, "a list is about certificates, the record about the device"

    def test_a_session_of_tls_1_2_is_not_resumed(self, gate: Gate, vendor: Vendor, vehicle: Vehicle) -> None:
        """TLS 1.2 would resume by its id and check no certificate: refused before and after the revocation."""
        context = vehicle.context
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with MqttPeer(gate, vehicle.car, context).hello() as first:
            assert first.sock.version() == "TLSv1.2"
            session = first.sock.session
            assert session is not None

            def resumes() -> bool:
                with socket.create_connection(("127.0.0.1", gate.mqtt_port), 5) as plain:
                    try:
                        with context.wrap_socket(plain, server_hostname="localhost", session=session) as again:
                            again.sendall(b"\x10")
                            return again.session_reused is True and again.recv(1) != b""
                    except OSError:
                        return False

            assert not resumes()
            vendor.revoked.append(vehicle.leaf.certificate)
            publish(gate, vendor.acme.crl(*vendor.revoked))
            assert first.farewell().reason_str == "revoked"
            assert not resumes()
        assert connack(gate, vehicle.car, context) == (0x87, "revoked")

    @pytest.mark.parametrize(
        ("kind", "says"),
        [("forged", "forged"), ("of another issuer", "another issuer"), ("older", "older"), ("half of one", "parsed")],
    )
    def test_a_list_that_is_no_good(self, gate: Gate, vendor: Vendor, vehicle: Vehicle, kind: str, says: str) -> None:
        """Is refused with its reason, and the former one stays: who is revoked by it stays so."""
        gone = Vehicle(gate, vendor.acme, "acme")
        vendor.revoked.append(gone.leaf.certificate)
        publish(gate, vendor.acme.crl(*vendor.revoked))
        until(lambda: connack(gate, gone.car, gone.context) == (0x87, "revoked"), "the list is in force", 5)
        good = vendor.acme.crl(*vendor.revoked)
        bad = {
            "forged": vendor.acme.crl(vehicle.leaf.certificate, key=vendor.globex.key),
            "of another issuer": vendor.root.crl(),
            "older": vendor.acme.crl(number=1),
            "half of one": good[: len(good) // 2],
        }[kind]
        with MqttPeer(gate, vehicle.car, vehicle.context).hello() as peer:
            publish(gate, bad)
            list_refused(gate, says)
            assert told(peer.ask(vehicle.car.sign(1, 0))) == (0, None)
            assert connack(gate, gone.car, gone.context) == (0x87, "revoked")
            publish(gate, good)
            until(lambda: gate.metric("fleetgate_crls_refused") == 0, "a good one is taken", 5)

    def test_a_list_that_grows_old(self, gate: Gate, vendor: Vendor) -> None:
        """Globex's server publishes one that ends soon and then nothing new: used and flagged for the grace, then its
        devices are told to come back later, until there is a new one. Acme's do not notice."""
        late, other = Vehicle(gate, vendor.globex, "globex"), Vehicle(gate, vendor.acme, "acme")
        numbers = itertools.count()

        def flags(of: Vehicle, peer: MqttPeer) -> int:
            assert told(peer.ask(of.car.sign(1, next(numbers)))) == (0, None)
            return gate.stored(of.car)[-1].flags & STALE_REVOCATION

        with (
            MqttPeer(gate, late.car, late.context).hello() as peer,
            MqttPeer(gate, other.car, other.context).hello() as bystander,
        ):
            vendor.published = vendor.globex.crl(next_s=3)
            assert flags(late, peer) == 0
            until(lambda: gate.metric('fleetgate_crls{age="stale"}') == 1, "the list is stale")
            assert (flags(late, peer), flags(other, bystander)) == (STALE_REVOCATION, 0)
            assert peer.farewell().reason_code == 0x89
            assert connack(gate, late.car, late.context) == (0x88, "come back later")
            assert problem(gate, late.car, late.context)[0] == 503
            assert flags(other, bystander) == 0
            vendor.published = vendor.globex.crl()
            until(lambda: connack(gate, late.car, late.context)[0] == 0, "a new list is fetched", 10)


def test_a_start_needs_neither_the_web_server_nor_the_file(gate: Gate, vendor: Vendor) -> None:
    """The last good lists lie in the spool: an edge that starts goes on with them, and takes no older ones."""
    gone = Vehicle(gate, vendor.acme, "acme")
    older = vendor.acme.crl(*vendor.revoked)
    vendor.revoked.append(gone.leaf.certificate)
    publish(gate, vendor.acme.crl(*vendor.revoked))
    until(lambda: connack(gate, gone.car, gone.context) == (0x87, "revoked"), "the list is in force", 5)
    good, vendor.published = vendor.published, b"no list"
    gate.kill()
    publish(gate, older)
    gate.start()
    assert connack(gate, gone.car, gone.context) == (0x87, "revoked")
    until(lambda: gate.metric("fleetgate_crls_refused") == 2, "both are told", 5)
    (gate.home.directory / "acme.crl").unlink()
    gate.kill()
    gate.start()
    assert connack(gate, gone.car, gone.context) == (0x87, "revoked")
    vendor.published = good
    publish(gate, vendor.acme.crl(*vendor.revoked))
    until(lambda: gate.metric("fleetgate_crls_refused") == 0, "both are well again", 70)


def test_policy_and_issuers_are_replaced_while_it_runs(gate: Gate, vendor: Vendor, vehicle: Vehicle) -> None:
    """From the configuration file: what does not fit is refused, what is not replaced that way is told, and who may not
    be spoken for any more has to go."""
    file = gate.home.directory / "fleetgate.toml"
    before = file.read_text()
    car = vehicle.car
    with MqttPeer(gate, car, vehicle.context).hello() as peer, MqttPeer(gate, car_of_gate(gate)).hello() as own:
        replaced = gate.metric("fleetgate_files_replaced_total")
        replace(file, before.replace("[policy]", "[policy]\nsignals.bad_weather.weight = 1.0").encode())
        until(lambda: gate.metric("fleetgate_files_refused") == 1, "the file is refused", 5)
        assert "bad_weather" in gate.log().splitlines()[-1]
        changed = before.replace("[policy]", '[policy]\nversion = "2"') + '[limits.device]\nmessages = "3/h"\n'
        changed = changed.replace("tls_1_2 = true", "tls_1_2 = false").replace('"acme-ca.pem", ', "")
        replace(file, changed.encode())
        until(lambda: gate.metric("fleetgate_files_replaced_total") == replaced + 1, "it takes effect", 5)
        assert '"settings": ["edge.tls_1_2"]' in gate.log()
        assert "no issuer of the certificate speaks for the tenant" in (peer.farewell().reason_str or "")
        answers = [told(own.ask(own.car.sign(1, seq)))[1] for seq in range(5)]
        assert answers[-1] == "rate_limited"
        versions = {peer.policy_version for segment in gate.segments() for peer in segment.peers.values()}
        assert versions == {"1", "2"}
        replace(file, before.encode())
        until(lambda: gate.metric("fleetgate_files_replaced_total") == replaced + 2, "it takes effect", 5)
        assert connack(gate, car, vehicle.context)[0] == 0


def car_of_gate(gate: Gate) -> Car:
    return gate.home.enrol(f"car-{next(_numbers)}")


def test_config_check_looks_at_issuers_and_lists(gate: Gate, vendor: Vendor) -> None:
    """Both well; then a list that is forged."""
    assert {"issuers ok", "crls ok"} <= {" ".join(line.split()) for line in check(gate).splitlines()}
    good = (gate.home.directory / "acme.crl").read_bytes()
    publish(gate, vendor.acme.crl(key=vendor.globex.key))
    with pytest.raises(AssertionError, match="1 of"):
        check(gate)
    publish(gate, good)


def check(gate: Gate) -> str:
    return gate.home.command("config", "check")
