"""Cases sketch and sketch_batched: the throw-away sketch of an edge, under the load of chatty and batched.

The yardstick. It lies outside the project; where it is absent the case is skipped. It runs in a directory of its own
with a PKI of its own, and with its own load generator and body (8 signals), whose first message goes out when its last
connection is up: from then on the sketch's CPU counts, until the generator ends.
"""

from __future__ import annotations

import re
import shutil
import socket
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding
from loadtest.bench.context import Context, Figures
from loadtest.bench.edge_cases import Case
from loadtest.bench.processes import BenchError, Process, until

from fleetgate.clock import SystemClock
from fleetgate.control.pki import Authority, private_pem

SKETCH = Path(__file__).resolve().parents[3] / "shared" / "sketch"
_PORT = 18883  # written into the sketch
_TOTAL = re.compile(r"(\d+) events/s")
_MESSAGES = 4_000  # prepared for each connection: more than it can take


class Absent(Exception):
    """There is no sketch here: nothing to compare with."""


def run(context: Context, case: Case) -> Figures:
    """Raises Absent without the sketch."""
    if not SKETCH.is_dir():
        raise Absent(f"{SKETCH.name}/ is not beside the project")
    directory = context.directory / f"sketch-{case.connections}"
    _prepare(directory)
    seconds = max(4.0, context.sizes.seconds)
    arguments = [str(case.connections), str(case.events), str(seconds), str(_MESSAGES)]
    edge = Process([sys.executable, "edge_sketch.py"], directory / "edge.log", directory)
    try:
        until(_listens, "the sketch listens", 20, edge)
        idle_files = edge.open_files()
        load = Process([sys.executable, "load_sketch.py", *arguments], directory / "load.log", directory)
        try:
            until(lambda: edge.open_files() >= idle_files + case.connections, "all are connected", 60, load)
            cpu_s = edge.cpu_s()
            load.wait(seconds + 20)
            cpu_s = edge.cpu_s() - cpu_s
        finally:
            load.stop()
    finally:
        edge.stop()
    said = (directory / "load.log").read_text()
    shutil.rmtree(directory)
    found = _TOTAL.search(said)
    if found is None:
        raise BenchError(f"the sketch's load said nothing that can be read: {said[-400:]}")
    events_per_s = float(found.group(1))
    return {"edge_cpu_us_per_event": cpu_s / (events_per_s * seconds) * 1e6, "events_per_s": events_per_s}


def _prepare(directory: Path) -> None:
    shutil.copytree(SKETCH, directory)
    pki = directory / "pki"
    authority = Authority.create(directory / "authority", "sketch.example", SystemClock())
    certificate, key = authority.issue_server(["localhost"])
    device_key = generate_private_key(SECP256R1())
    device = authority.issue_device("acme", "sketch", device_key.public_key())
    pki.mkdir()
    (pki / "ca.pem").write_bytes(authority.trust_pem)
    (pki / "srv.pem").write_bytes(certificate.public_bytes(Encoding.PEM) + authority.chain_pem)
    (pki / "srv.key").write_bytes(private_pem(key))
    (pki / "dev.pem").write_bytes(device.public_bytes(Encoding.PEM) + authority.chain_pem)
    (pki / "dev.key").write_bytes(private_pem(device_key))


def _listens() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", _PORT)) == 0
