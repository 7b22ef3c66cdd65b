"""The edge's own files are replaced while it runs: server certificate and key, trust bundle, keyring."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.clock import SystemClock
from fleetgate.control.pki import Authority, private_pem
from fleetgate.judge.keys import derive_mac_key
from tests.faults.cars import Driver
from tests.faults.processes import restart
from tests.faults.registry import fault
from tests.faults.trial import Trial
from tests.gate import now_ms, until
from tests.mqtt_peer import MqttPeer

NOTICED_SECONDS = 10.0
RENEWED_SECONDS = 30.0
NEW_KID = 2
BELATED = 3
COME_BACK = 0x89


def _put(path: Path, content: bytes) -> None:
    """Another file takes the name: nobody sees half of it."""
    new = path.with_suffix(".new")
    new.touch(path.stat().st_mode & 0o777)
    new.write_bytes(content)
    new.replace(path)


class Files:
    """The files of the trial's edge, and what it says of them."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._times = 0
        edge, path = trial.home.config.edge, trial.home.config.path
        self.certificate, self.private_key = path(edge.certificate), path(edge.private_key)
        self.trust_bundle, self.keyring = path(edge.trust_bundle), path(edge.keyring)

    def in_force(self) -> None:
        """Waits until the edge has taken what it now finds."""
        self._times += 1
        edge = self._trial.edge
        until(lambda: edge.metric("fleetgate_files_replaced_total") >= self._times, "they take effect", NOTICED_SECONDS)

    def refused(self, why: str) -> None:
        """Waits until the edge says that it does not take them, and why; the fleet goes on with the former ones."""
        edge = self._trial.edge
        until(lambda: why in edge.log(), f"the log says {why!r}", NOTICED_SECONDS)
        assert edge.metric("fleetgate_files_refused") == 1
        self._trial.fleet.fresh()

    def roots(self, **roots: dict[str, object]) -> None:
        """Writes a keyring; `k1={"root": ..., ...}`."""
        _put(self.keyring, msgspec.json.encode({"roots": {kid[1:]: entry for kid, entry in roots.items()}}))


@fault("A new server certificate, then its key; a part of a bundle, then one with another CA, which leaves again.")
def certificates_replaced(trial: Trial) -> None:
    files = Files(trial)
    pki = trial.directory / "pki"
    certificate, key = Authority.load(pki, SystemClock()).issue_server(["localhost"])
    _put(files.certificate, certificate.public_bytes(Encoding.PEM) + (pki / "issuing.pem").read_bytes())
    files.refused("do not fit together")  # yet
    _put(files.private_key, private_pem(key))
    files.in_force()
    shown = _shown(trial)
    assert shown == certificate.public_bytes(Encoding.DER), "the new certificate is not shown"

    ours = files.trust_bundle.read_bytes()
    other = Authority.create(trial.directory / "other", trial.home.config.trust_domain, SystemClock()).trust_pem
    _put(files.trust_bundle, ours[: len(ours) // 3])
    files.refused("no usable CA certificate")
    _put(files.trust_bundle, ours + other)
    files.in_force()
    with MqttPeer(trial.edge, trial.home.enrol("bystander")).hello() as bystander:
        _put(files.trust_bundle, ours)
        files.in_force()  # a CA is trusted no more: everybody connects again
        assert bystander.farewell().reason_code == COME_BACK
    trial.fleet.fresh()
    trial.edge.kill()
    restart(trial.edge)


@fault("A new root key: the cars go over to it, half of them first; then the old one is retired and verifies nothing.")
def keyring_replaced(trial: Trial) -> None:
    files = Files(trial)
    before = files.keyring.read_bytes()
    old = msgspec.json.decode(before)["roots"]["1"]
    root = secrets.token_bytes(32)
    new = {"root": root, "created_at": now_ms(), "state": "active"}

    _put(files.keyring, before[: len(before) // 2])
    files.refused("is not a keyring")
    files.roots(k2=new)  # somebody's mistake, which would lock the fleet out
    files.refused("no root key 1 any more")
    files.roots(k1=old, k2=new)
    files.in_force()
    drivers = trial.fleet.drivers
    suspect = trial.fleet.suspect
    former = (suspect.car.kid, suspect.car.key)
    for half in (drivers[::2], drivers[1::2]):
        for driver in half:
            _renew(driver, root)
        until(lambda: all(driver.renewed for driver in half), "they sign with the new key", RENEWED_SECONDS)  # noqa: B023
        trial.fleet.fresh()
    files.roots(k1=old | {"state": "retired"}, k2=new)
    files.in_force()
    suspect.outdated = former
    until(lambda: suspect.belated_signed >= BELATED, "the retired key is tried", RENEWED_SECONDS)
    trial.fleet.fresh()
    trial.edge.kill()
    restart(trial.edge)


def _renew(driver: Driver, root: bytes) -> None:
    car = driver.car
    driver.renew(NEW_KID, derive_mac_key(root, car.tenant, car.device_id, car.identity.key_digest))


def _shown(trial: Trial) -> bytes | None:
    """The certificate that the edge shows over HTTPS."""
    car = trial.fleet.drivers[0].car
    with (
        socket.create_connection(("127.0.0.1", trial.edge.https_port), NOTICED_SECONDS) as plain,
        car.context().wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        return sock.getpeercert(binary_form=True)
