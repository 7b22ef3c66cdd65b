"""A vehicle that renews itself, and the signer beside the edge, as the tests of renewal hold them."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.faults.processes import Process, signer_process
from tests.gate import Car, Gate, Installation
from tests.http_peer import Answer, HttpPeer
from tests.renewing import Key, Opener, new_key, opened, request

PKCS10 = "application/pkcs10"


@contextmanager
def signing(home: Installation) -> Iterator[Process]:
    """The signer of an installation; its log is searched when it goes."""
    signer = signer_process(home.directory, home.config.path(home.config.signer.socket))
    try:
        signer.launch()
        signer.await_ready()
        yield signer
        log = signer.log_file.read_text()
        assert "Traceback" not in log
        assert "PRIVATE KEY" not in log
    finally:
        signer.close()


def post(gate: Gate, car: Car, csr: bytes, form: str = PKCS10) -> Answer:
    """What the gate answers to a renewal under this car's certificate."""
    with HttpPeer(gate, car) as peer:
        return peer.request("POST", "/v1/renew", content=csr, headers={"content-type": form})


def renew(gate: Gate, car: Car, key: Key | None = None) -> Car:
    """The car after its renewal, with a P-256 key."""
    key = key or new_key()
    answer = post(gate, car, request(key))
    assert answer.status == 200, answer
    return stored(car, answer, key)


def stored(car: Car, answer: Answer, key: Key, opener: Opener | None = None) -> Car:
    """The car with what was answered, in a bundle of its own; `opener` opens its MAC key, else `key` does."""
    with_what = opener or key
    assert not hasattr(with_what, "sign") or hasattr(with_what, "exchange"), "an Ed25519 key opens nothing"
    mac_key = opened(answer.items["mac_key"], with_what)  # type: ignore[arg-type]
    directory = car.directory.with_name(car.directory.name + "-next")
    shutil.copytree(car.directory, directory)
    facts = json.loads((directory / "device.json").read_text())
    facts |= {"kid": answer.items["kid"], "mac_key": base64.b64encode(mac_key).decode()}
    (directory / "device.json").write_text(json.dumps(facts))
    (directory / "certificate.pem").write_text(answer.items["certificate"])
    (directory / "private.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Car(directory)
