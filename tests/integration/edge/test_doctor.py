"""The doctor at a real gate, and at whoever else may answer on a port. Files and certificates are real."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.authorities import now, pem
from tests.gate import Car, Gate, Installation, fleetgate, now_ms
from tests.mqtt_peer import MqttPeer
from tests.papers import Workshop, new_key, private_pem
from tests.strangers import (
    Answer,
    closes,
    drips,
    drips_a_connack,
    floods,
    is_silent,
    knows_only_3_1_1,
    says,
    speaks_3_1_1,
    stranger,
    tls_of,
)

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.demo.prepare import free_ports
from fleetgate.doctor import https, mqtt, reach, tls
from fleetgate.doctor.examine import Ports, examine
from fleetgate.doctor.files import Paths
from fleetgate.doctor.findings import Check, Finding, Says
from fleetgate.doctor.reach import Target
from fleetgate.doctor.records import GateMachine

At = Callable[..., list[Check]]


@pytest.fixture
def at(tmp_path: Path) -> At:
    """What the doctor says on a vehicle, of these files and ports."""

    def look(car: Car | None, *, ahead_ms: int = 0, **ports: Target) -> list[Check]:
        config = msgspec.structs.replace(Config(), home=str(tmp_path))
        elsewhere = GateMachine(config, SystemClock(), configured=False)
        paths = Paths.of_bundle(car.directory) if car is not None else Paths()
        return trio.run(examine, paths, Ports(**ports), elsewhere, lambda: now_ms() + ahead_ms)

    return look


def found(checks: list[Check]) -> list[tuple[str, Finding]]:
    """Check and finding of what is wrong."""
    return [(check.check, check.finding) for check in checks if check.finding is not None]


def mqtt_of(gate: Gate, host: str = "localhost") -> Target:
    return Target(host, gate.mqtt_port)


def https_of(gate: Gate, host: str = "localhost") -> Target:
    return Target(host, gate.https_port)


def admin_of(gate: Gate) -> Target:
    return Target("localhost", int(gate.home.config.edge.admin_listen.rpartition(":")[2]))


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines of a fraction of a second: of these tests nobody is to wait for the real ones."""
    for module, name in (
        (reach, "CONNECT_SECONDS"),
        (reach, "PLAIN_SECONDS"),
        (tls, "HANDSHAKE_SECONDS"),
        (mqtt, "ANSWER_SECONDS"),
        (https, "ANSWER_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.4)
    for protocol in (mqtt, https):
        monkeypatch.setattr(protocol, "SETTLE_SECONDS", (0.1, 0.2))


# A good device.


def test_nothing_is_wrong_with_a_good_device(shared_gate: Gate, car: Car, at: At) -> None:
    """Both ports, and the clock; and a client of 3.1.1 would be told."""
    checks = at(car, mqtt=mqtt_of(shared_gate), https=https_of(shared_gate))
    assert found(checks) == []
    by_name = {check.check: check for check in checks}
    assert "lets the device in" in by_name["MQTT session"].what
    assert (by_name["clock"].says, by_name["MQTT 3.1.1"].says) == (Says.OK, Says.OK)
    assert "refused (code 1)" in by_name["MQTT 3.1.1"].what


def test_a_look_leaves_no_trace_on_the_device(shared_gate: Gate, car: Car, at: At) -> None:
    """No message, no number, no epoch, no refusal: only sessions that came and went."""
    with MqttPeer(shared_gate, car) as peer:
        epoch = peer.hello().epoch
        peer.ask(car.sign(epoch, 0))
    stored = shared_gate.stored(car)
    at(car, mqtt=mqtt_of(shared_gate), https=https_of(shared_gate))
    with MqttPeer(shared_gate, car) as peer:
        assert peer.hello().epoch == epoch + 1
        assert peer.ask(car.sign(epoch, 1)).reason_code == 0
    assert len(shared_gate.stored(car)) == len(stored) + 1
    rejections = [record for segment in shared_gate.segments() for _, record in segment.rejections if record.count]
    assert not [record for record in rejections if shared_gate.refused(car, record.reason)]


def test_https_alone_leaves_a_live_session_alone(shared_gate: Gate, car: Car, session: MqttPeer, at: At) -> None:
    """The empty batch is a request of its own."""
    at(car, https=https_of(shared_gate))
    assert session.ask(car.sign(session.epoch, 0)).reason_code == 0


def test_mqtt_takes_over_a_live_session_as_the_page_says(
    shared_gate: Gate, car: Car, session: MqttPeer, at: At
) -> None:
    """Like any second connection with its certificate."""
    assert found(at(car, mqtt=mqtt_of(shared_gate))) == []
    assert session.farewell().reason_code == 0x8E


def test_the_command_on_a_vehicle(shared_gate: Gate, car: Car, tmp_path: Path) -> None:
    """In a directory without a configuration: one line for each check, exit code 0."""
    done = fleetgate(tmp_path, "doctor", str(car.directory), "--mqtt", f"localhost:{shared_gate.mqtt_port}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "MQTT session      ok" in done.stdout
    assert "how to find out" in done.stdout


def test_the_command_on_the_gates_machine(shared_gate: Gate, car: Car) -> None:
    """Beside the configuration: records and keyring too, as JSON, and exit code 1 for what is wrong."""
    shared_gate.home.revoke(car)
    done = fleetgate(shared_gate.home.directory, "doctor", str(car.directory), "--json")
    told = {check["check"]: check for check in json.loads(done.stdout)}
    assert (done.returncode, told["records"]["finding"], told["MAC key"]["says"]) == (1, "revoked", "ok")
    assert done.stderr == "fleetgate: records: revoked\n"


# The way to the gate.


def test_a_port_that_is_closed(car: Car, at: At) -> None:
    """Nobody listens."""
    [port] = free_ports(1)
    assert found(at(car, mqtt=Target("127.0.0.1", port))) == [("MQTT port", Finding.PORT_CLOSED)]


def test_a_host_without_an_address(car: Car, at: At) -> None:
    """A name of a domain that never has any."""
    assert found(at(car, https=Target("gate.invalid", 8443))) == [("HTTPS port", Finding.UNKNOWN_HOST)]


def test_a_server_of_another_name(shared_gate: Gate, car: Car, at: At) -> None:
    """127.1 is the same host, and not in the certificate: what is in it is told."""
    checks = at(car, mqtt=mqtt_of(shared_gate, "127.1"), https=https_of(shared_gate, "127.1"))
    assert found(checks) == [(f"{name} server", Finding.SERVER_NAME_MISMATCH) for name in ("MQTT", "HTTPS")]
    assert "localhost" in checks[-1].what


def test_a_ca_file_that_does_not_verify_the_server(shared_gate: Gate, car: Car, at: At, tmp_path: Path) -> None:
    """The device's certificate is not shown to it."""
    (car.directory / "ca.pem").write_bytes(pem(Workshop(tmp_path / "other").root))
    assert ("MQTT server", Finding.SERVER_UNVERIFIED) in found(at(car, mqtt=mqtt_of(shared_gate)))


def test_the_admin_port_is_told_by_name(shared_gate: Gate, car: Car, at: At) -> None:
    """Plain HTTP where TLS is spoken to it."""
    checks = at(car, mqtt=admin_of(shared_gate), https=admin_of(shared_gate))
    assert found(checks) == [(f"{name} TLS", Finding.PLAIN_HTTP) for name in ("MQTT", "HTTPS")]
    assert "admin port of fleetgate" in checks[-1].what


@pytest.mark.parametrize("protocol", ["mqtt", "https"])
def test_plain_http_on_the_vehicles_port(car: Car, at: At, hurried: None, protocol: str) -> None:
    """A proxy that ends TLS, or a server without it."""
    with stranger(says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")) as target:
        [(_, finding)] = found(at(car, **{protocol: target}))
    assert finding is Finding.PLAIN_HTTP


def test_plain_mqtt(car: Car, at: At, hurried: None) -> None:
    """A broker's port without TLS."""
    with stranger(_plain_broker) as target:
        assert found(at(car, mqtt=target)) == [("MQTT TLS", Finding.PLAIN_MQTT)]


def _plain_broker(sock: socket.socket) -> None:
    if sock.recv(65536)[:1] == b"\x10":
        sock.sendall(b"\x20\x03\x00\x00\x00")
        sock.recv(65536)


def test_the_other_protocols_port(shared_gate: Gate, car: Car, at: At) -> None:
    """MQTT to the HTTPS port, HTTPS to the MQTT port; the gate's word in TLS is enough, without any files too."""
    for files in (car, None):
        checks = at(files, mqtt=https_of(shared_gate), https=mqtt_of(shared_gate))
        assert found(checks) == [(f"{name} TLS", Finding.WRONG_PORT) for name in ("MQTT", "HTTPS")]


def test_without_a_ca_file_it_is_what_is_asked_for(shared_gate: Gate, car: Car, at: At, tmp_path: Path) -> None:
    """The certificate is there, and not shown to a server that nothing verifies."""
    copy = Car(shutil.copytree(car.directory, tmp_path / "copy"))
    (copy.directory / "ca.pem").unlink()
    for name, target in (("mqtt", mqtt_of(shared_gate)), ("https", https_of(shared_gate))):
        [check] = [check for check in at(copy, **{name: target}) if check.check == f"{name.upper()} session"]
        assert (check.says, "without a CA file" in check.what) == (Says.CANNOT_TELL, True)
        assert "--ca" in check.mend


def test_without_files_the_way_is_told(shared_gate: Gate, at: At) -> None:
    """Port and TLS; of the rest, what to name."""
    checks = at(None, mqtt=mqtt_of(shared_gate), https=https_of(shared_gate))
    assert found(checks) == []
    assert [check.mend for check in checks if check.says is Says.CANNOT_TELL and "session" in check.check] == [
        "name the device's files too"
    ] * 2


# The device, by the gate's word.


@pytest.mark.parametrize(
    ("decide", "finding"),
    [
        (Installation.revoke, Finding.REVOKED),
        (Installation.suspend, Finding.SUSPENDED),
        (Installation.ban, Finding.BANNED),
    ],
    ids=["revoked", "suspended", "banned"],
)
def test_a_device_that_the_records_keep_out(
    shared_gate: Gate, car: Car, at: At, decide: Callable[[Installation, Car], None], finding: Finding
) -> None:
    """CONNACK says so, to a vehicle that knows nothing of the records."""
    decide(shared_gate.home, car)
    assert found(at(car, mqtt=mqtt_of(shared_gate))) == [("MQTT session", finding)]


def test_a_device_that_the_gate_does_not_know(shared_gate: Gate, stranger: Car, at: At) -> None:
    """A good certificate of its CA, and no record."""
    assert found(at(stranger, mqtt=mqtt_of(shared_gate))) == [("MQTT session", Finding.UNKNOWN_DEVICE)]


@pytest.fixture
def issue(shared_gate: Gate, car: Car) -> Callable[..., None]:
    """Gives the car another certificate of the gate's CA, with a mistake."""
    workshop = Workshop(shared_gate.home.directory / "pki")

    def give(*, by: Workshop = workshop, **mistake: Any) -> None:
        key = new_key()
        name = f"spiffe://fleet.example/tenant/{car.tenant}/device/{car.device_id}"
        leaf = by.leaf(key.public_key(), **{"names": [x509.UniformResourceIdentifier(name)]} | mistake)
        (car.directory / "certificate.pem").write_bytes(pem(leaf, by.issuing))
        (car.directory / "private.pem").write_bytes(private_pem(key))

    return give


@pytest.mark.parametrize(
    ("mistake", "finding"),
    [
        ({"begin": now() - timedelta(days=40), "days": 30}, Finding.EXPIRED),
        ({"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]}, Finding.WRONG_EKU),
    ],
    ids=["expired", "for servers"],
)
def test_an_alert_of_the_gate_is_translated(
    shared_gate: Gate, car: Car, at: At, issue: Callable[..., None], mistake: dict[str, Any], finding: Finding
) -> None:
    """Found in the file, and by what the gate's TLS says."""
    issue(**mistake)
    checks = found(at(car, mqtt=mqtt_of(shared_gate)))
    assert [each for _, each in checks] == [finding, finding]
    assert checks[-1][0] == "MQTT session"


def test_the_certificate_of_another_authority(
    shared_gate: Gate, car: Car, at: At, issue: Callable[..., None], tmp_path: Path
) -> None:
    """Unknown issuer, by the CA file and by the gate."""
    issue(by=Workshop(tmp_path / "other"))
    chain, mqtt_session, (https_check, https_finding) = found(
        at(car, mqtt=mqtt_of(shared_gate), https=https_of(shared_gate))
    )
    assert (chain, mqtt_session) == (("chain", Finding.UNKNOWN_ISSUER), ("MQTT session", Finding.UNKNOWN_ISSUER))
    # The HTTPS listener's library ends the connection without the alert that would say why.
    assert https_check == "HTTPS session"
    assert https_finding in (Finding.CERTIFICATE_REFUSED, Finding.UNKNOWN_ISSUER)


def test_the_profile_by_the_gates_word(shared_gate: Gate, car: Car, at: At, issue: Callable[..., None]) -> None:
    """Two names: TLS takes it, the gate says why it does not."""
    names = [x509.UniformResourceIdentifier(f"spiffe://fleet.example/tenant/acme/device/{name}") for name in "ab"]
    issue(names=names)
    checks = found(at(car, mqtt=mqtt_of(shared_gate), https=https_of(shared_gate)))
    assert checks == [
        ("profile", Finding.WRONG_SAN),
        ("MQTT session", Finding.PROFILE),
        ("HTTPS session", Finding.PROFILE),
    ]


def test_a_missing_intermediate_by_the_gates_word(shared_gate: Gate, car: Car, at: At) -> None:
    """A gate that has only the root: its alert is that for an unknown CA, and is told apart by what was shown."""
    pki = shared_gate.home.directory / "pki"
    _alone(car)
    with stranger(is_silent, tls_of(pki, trusted=pki / "root.pem")) as target:
        checks = found(at(car, mqtt=target))
    assert checks == [("chain", Finding.MISSING_INTERMEDIATE), ("MQTT session", Finding.MISSING_INTERMEDIATE)]


def test_a_gate_with_the_issuing_ca_needs_no_intermediate(shared_gate: Gate, car: Car, at: At) -> None:
    """Then its word counts, and nothing is called wrong."""
    _alone(car)
    assert found(at(car)) == [("chain", Finding.MISSING_INTERMEDIATE)]
    assert found(at(car, mqtt=mqtt_of(shared_gate))) == []


def _alone(car: Car) -> None:
    path = car.directory / "certificate.pem"
    path.write_text("".join(path.read_text().partition("-----END CERTIFICATE-----\n")[:2]))


@pytest.mark.parametrize(
    ("ahead_ms", "finding"),
    [(600_000, Finding.CLOCK_OFF), (-600_000, Finding.CLOCK_OFF), (20_000, None), (-20_000, None)],
    ids=["10 minutes ahead", "10 minutes behind", "20 s ahead", "20 s behind"],
)
def test_the_clock_beside_the_gates(
    shared_gate: Gate, car: Car, at: At, ahead_ms: int, finding: Finding | None
) -> None:
    """By CONNACK and by the header Date."""
    checks = at(car, ahead_ms=ahead_ms, mqtt=mqtt_of(shared_gate), https=https_of(shared_gate))
    assert [check.finding for check in checks if check.check == "clock"] == [finding] * 2


# Somebody else.


@pytest.mark.parametrize("broker", [speaks_3_1_1, knows_only_3_1_1])
def test_a_broker_of_mqtt_3_1_1(shared_gate: Gate, car: Car, at: At, hurried: None, broker: Answer) -> None:
    """Whether it refuses version 5 or closes on it."""
    with stranger(broker, tls_of(shared_gate.home.directory / "pki")) as target:
        assert found(at(car, mqtt=target)) == [("MQTT session", Finding.MQTT_3)]


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        (b"\x20\x03\x00\x00\x00", Finding.NOT_A_GATE),
        (b"\x20\x03\x00\x88\x00", Finding.GATE_NOT_READY),
        (b"\x20\x08\x00\x87\x05\x1f\x00\x02\xff\xfe", Finding.CERTIFICATE_REFUSED),
        (b"\x30\x02\x00\x00", Finding.NOT_A_GATE),
    ],
    ids=["another broker", "come back later", "not UTF-8", "no CONNACK"],
)
def test_an_answer_that_is_not_the_gates(
    shared_gate: Gate, car: Car, at: At, hurried: None, answer: bytes, finding: Finding
) -> None:
    """Each is told, and none ends the doctor."""
    with stranger(says(answer), tls_of(shared_gate.home.directory / "pki")) as target:
        assert found(at(car, mqtt=target)) == [("MQTT session", finding)]


@pytest.mark.parametrize("protocol", ["mqtt", "https"])
@pytest.mark.parametrize("manner", [is_silent, closes, drips, floods])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_hostile_server_neither_hangs_nor_ends_the_doctor(
    shared_gate: Gate, car: Car, at: At, hurried: None, protocol: str, manner: Answer, secure: bool
) -> None:
    """Something is found, whatever it does; the deadlines are for a whole step, not for each byte."""
    context = tls_of(shared_gate.home.directory / "pki") if secure else None
    with stranger(manner, context) as target:
        assert len(found(at(car, **{protocol: target}))) == 1


def test_an_answer_that_never_ends_is_none(shared_gate: Gate, car: Car, at: At, hurried: None) -> None:
    """Each byte of it would be in time, were there a deadline for each; the whole is too late."""
    with stranger(drips_a_connack, tls_of(shared_gate.home.directory / "pki")) as target:
        assert found(at(car, mqtt=target)) == [("MQTT session", Finding.NO_ANSWER)]


def test_a_server_cannot_ask_for_another_handshake() -> None:
    """In TLS 1.2 it could, and be silent from then on."""
    assert tls._context(tls.Means(), "mqtt").options & ssl.OP_NO_RENEGOTIATION


def test_a_banner_is_told(car: Car, at: At, hurried: None) -> None:
    """Another service: its first words, made safe for a terminal by the output."""
    with stranger(says(b"SSH-2.0-OpenSSH\r\n")) as target:
        [check] = [check for check in at(car, mqtt=target) if check.finding is not None]
    assert (check.finding, "SSH-2.0" in check.what) == (Finding.NOT_TLS, True)
