"""The yardstick of chatty and batched: the throw-away sketch of an edge, made ready for the swarm that loads the edge.

It lies outside the project; where it is absent what needs it is skipped. It takes the same envelopes over the same
mutual TLS, but one MAC key for all, and a body of its own: the kind is a number and there are no texts, 7 bytes less
of 90 for each event. So it gets bodies encoded here, and devices that share one certificate; all else is the swarm's.
Decides how the sketch is started; how it is loaded, and when its CPU is read, is `edge_cases`'.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding
from loadtest.bench.processes import BenchError, Process, Served, until

from fleetgate.clock import SystemClock
from fleetgate.control.pki import Authority, private_pem

SKETCH = Path(__file__).resolve().parents[3] / "shared" / "sketch"
_ADDRESS = ("127.0.0.1", 18883)  # written into the sketch, as is the key
_MAC_KEY = b"k" * 32
_SIGNALS = range(1, 9)
_VARIANTS = 32  # as many different bodies as the swarm makes itself
_LOG = "edge.log"
START_SECONDS = 20.0


class Absent(Exception):
    """There is no sketch here: nothing to compare with."""


class Sketch:
    """A context with a sketch in a directory of its own. Raises Absent."""

    def __init__(self, directory: Path, connections: int, events: int) -> None:
        if not SKETCH.is_dir():
            raise Absent(f"{SKETCH.parent.name}/{SKETCH.name} is not beside the project")
        self._directory = directory / f"sketch-{connections}"
        self._connections, self._events = connections, events
        self._process: Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._process is not None:
            self._process.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def serve(self) -> Served:
        """The sketch, once it listens."""
        if _listens():
            raise BenchError(f"something listens on port {_ADDRESS[1]} already, which the sketch needs: end it")
        directory = self._directory
        shutil.copytree(SKETCH, directory)
        devices = self._prepare(directory)
        bodies = directory / "bodies"
        bodies.write_bytes(msgspec.msgpack.encode(encode_bodies(self._events)))
        self._process = Process([sys.executable, "edge_sketch.py"], directory / _LOG, directory)
        until(_listens, "the sketch listens", START_SECONDS, self._process)
        options = ("--mqtt", f"{_ADDRESS[0]}:{_ADDRESS[1]}", "--bodies", str(bodies))
        return Served(self._process, devices, options, self._check)

    def _check(self, acknowledged: int) -> None:
        """Raises BenchError if it refused a message: it acknowledges those too, and says so in its log."""
        if "reject" in (self._directory / _LOG).read_text():
            raise BenchError("the sketch refused messages: its load is not what it expects")

    def _prepare(self, directory: Path) -> Path:
        """Writes its PKI, and a bundle for the swarm that every connection uses."""
        authority = Authority.create(directory / "authority", "sketch.example", SystemClock())
        certificate, key = authority.issue_server(["localhost"])
        device_key = generate_private_key(SECP256R1())
        device = authority.issue_device("acme", "sketch", device_key.public_key())
        pki, bundle, devices = directory / "pki", directory / "bundle", directory / "devices"
        for made in (pki, bundle, devices):
            made.mkdir()
        (pki / "ca.pem").write_bytes(authority.trust_pem)
        (pki / "srv.pem").write_bytes(certificate.public_bytes(Encoding.PEM) + authority.chain_pem)
        (pki / "srv.key").write_bytes(private_pem(key))
        (bundle / "ca.pem").write_bytes(authority.root_pem)
        (bundle / "certificate.pem").write_bytes(device.public_bytes(Encoding.PEM) + authority.chain_pem)
        (bundle / "private.pem").write_bytes(private_pem(device_key))
        said = {"tenant": "acme", "device_id": "car-000000-tcu", "vehicle_id": "car-000000", "kid": 1}
        (bundle / "device.json").write_text(json.dumps(said | {"mac_key": base64.b64encode(_MAC_KEY).decode()}))
        for number in range(self._connections):
            (devices / f"{number:06d}").symlink_to(bundle)
        return devices


def encode_bodies(events: int) -> list[bytes]:
    """Bodies of so many events of 8 signals, as the sketch decodes them."""
    return [
        msgspec.msgpack.encode(
            [
                "2026.44.1",
                "cfg-7f3a",
                [
                    [(index + 1 - events) * 100, 0, {n: 50.25 + n + (index + variant) % 4 / 4 for n in _SIGNALS}]
                    for index in range(events)
                ],
            ]
        )
        for variant in range(_VARIANTS)
    ]


def _listens() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(_ADDRESS) == 0
