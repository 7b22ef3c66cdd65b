"""Certificate, trust bundle and keyring replaced under a running edge: what takes effect, and what is kept out."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.gate import Car, Gate, Installation, replace, running, until
from tests.http_peer import HttpPeer
from tests.mqtt_peer import Ended, MqttPeer, told

from fleetgate.clock import SystemClock
from fleetgate.control.pki import Authority, private_pem
from fleetgate.judge.keys import derive_mac_key

OTHER_ROOT = bytes(range(32))


@pytest.fixture
def gate(authority: Installation, tmp_path: Path) -> Iterator[Gate]:
    with running(authority, tmp_path / "gate") as started:
        yield started


@pytest.fixture
def car(gate: Gate) -> Car:
    return gate.home.enrol("car-1")


def change_keyring(gate: Gate, **entries: object) -> None:
    """Gives the keyring these entries ({"_2": {...}}), or takes them away (None)."""
    path = gate.home.directory / "keyring.json"
    roots = json.loads(path.read_text())["roots"] | {name[1:]: entry for name, entry in entries.items()}
    roots = {kid: entry for kid, entry in roots.items() if entry is not None}
    replace(path, msgspec.json.encode({"roots": roots}))


def root(content: bytes, state: str = "active") -> dict[str, object]:
    return {"root": content, "created_at": 0, "state": state}


def in_force(gate: Gate, times: int = 1) -> None:
    until(lambda: gate.metric("fleetgate_files_replaced_total") == times, "the files take effect", 5)
    assert gate.metric("fleetgate_files_refused") == 0


def refused(gate: Gate) -> str:
    until(lambda: gate.metric("fleetgate_files_refused") == 1, "the files are refused", 5)
    return gate.log().splitlines()[-1]


def served(peer: MqttPeer) -> bytes | None:
    return peer.sock.getpeercert(binary_form=True)


def test_a_new_server_certificate_is_shown_at_the_next_handshake(gate: Gate, car: Car) -> None:
    """On both listeners; the session that is open goes on."""
    home = gate.home
    certificate, key = Authority.load(home.directory / "pki", SystemClock()).issue_server(["localhost"])
    chain = (home.directory / "pki" / "issuing.pem").read_bytes()
    with MqttPeer(gate, car).hello() as before:
        replace(home.config.path(home.config.edge.certificate), certificate.public_bytes(Encoding.PEM) + chain)
        assert "do not fit together" in refused(gate)
        replace(home.config.path(home.config.edge.private_key), private_pem(key))
        in_force(gate)
        with MqttPeer(gate, car) as after:
            assert served(after) == certificate.public_bytes(Encoding.DER) != served(before)
        assert told(before.ask(car.sign(1, 0))) == (0, None)
    with (
        socket.create_connection(("127.0.0.1", gate.https_port)) as plain,
        car.context().wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        assert sock.getpeercert(binary_form=True) == certificate.public_bytes(Encoding.DER)


def test_a_new_root_key_verifies_and_a_retired_one_does_not(gate: Gate, car: Car) -> None:
    """From the next message of a session that is open, over both transports."""
    key = derive_mac_key(OTHER_ROOT, car.tenant, car.device_id, car.identity.key_digest)
    with MqttPeer(gate, car).hello() as mqtt, HttpPeer(gate, car) as http:
        assert told(mqtt.ask(car.sign(1, 0, kid=2, key=key)))[1] == "unknown_key"
        change_keyring(gate, _2=root(OTHER_ROOT))
        in_force(gate)
        assert told(mqtt.ask(car.sign(1, 0, kid=2, key=key))) == (0, None)
        assert told(mqtt.ask(car.sign(1, 1))) == (0, None), "the older one verifies as long as it is not retired"
        assert http.ask(car.sign(1, 2, kid=2, key=key))["status"] == "accepted"
        old = json.loads((gate.home.directory / "keyring.json").read_text())["roots"]["1"]
        change_keyring(gate, _1=old | {"state": "retired"})
        in_force(gate, 2)
        assert told(mqtt.ask(car.sign(1, 3)))[1] == "unknown_key"
        assert http.ask(car.sign(1, 3))["reason"] == "unknown_key"
        assert told(mqtt.ask(car.sign(1, 3, kid=2, key=key))) == (0, None)


def test_files_that_are_no_good_change_nothing(gate: Gate, car: Car) -> None:
    """Garbage, an absent file, a keyring open to others, another gate's: said and kept out, until they are mended."""
    home = gate.home
    keyring, bundle = home.directory / "keyring.json", home.config.path(home.config.edge.trust_bundle)
    good_keyring, good_bundle = keyring.read_bytes(), bundle.read_bytes()
    with MqttPeer(gate, car).hello() as peer:

        def then(what: str, seq: int) -> None:
            assert what in refused(gate)
            assert told(peer.ask(car.sign(1, seq))) == (0, None)
            with MqttPeer(gate, car, deadline_s=5) as another:
                assert served(another)
            replace_or_make(keyring, good_keyring)
            replace_or_make(bundle, good_bundle)
            in_force(gate, seq + 1)

        def replace_or_make(path: Path, content: bytes) -> None:
            path.unlink(missing_ok=True)
            path.touch(0o600)
            path.write_bytes(content)

        bundle.write_bytes(good_bundle[: len(good_bundle) // 3])
        then("no usable CA certificate", 0)
        keyring.unlink()
        then("does not exist", 1)
        keyring.chmod(0o644)
        then("open to other users", 2)
        change_keyring(gate, _1=root(OTHER_ROOT))
        then("is another one now", 3)
        change_keyring(gate, _1=None, _2=root(OTHER_ROOT))
        then("no root key 1 any more", 4)


def test_whoever_a_removed_ca_let_in_has_to_go(gate: Gate, car: Car, tmp_path: Path) -> None:
    """A bundle with one CA more leaves everybody in peace; one with a CA less ends all sessions, and verifies anew."""
    other = Authority.create(tmp_path / "other-pki", "fleet.example", SystemClock())
    bundle = gate.home.config.path(gate.home.config.edge.trust_bundle)
    ours = bundle.read_bytes()
    with MqttPeer(gate, car).hello() as mqtt, HttpPeer(gate, car) as http:
        assert http.ask(car.sign(1, 0))["status"] == "accepted"
        replace(bundle, ours + other.trust_pem)
        in_force(gate)
        assert told(mqtt.ask(car.sign(1, 1))) == (0, None)
        replace(bundle, other.trust_pem)
        assert mqtt.farewell().reason_code == 0x89
        in_force(gate, 2)
        with pytest.raises((Ended, OSError)), MqttPeer(gate, car) as refused_peer:
            refused_peer.hello()
        until(lambda: gate.metric('fleetgate_connections{transport="https"}') == 0, "HTTPS ends too")
        replace(bundle, ours)
        in_force(gate, 3)
        with MqttPeer(gate, car).hello() as back:
            assert told(back.ask(car.sign(1, 2))) == (0, None)
