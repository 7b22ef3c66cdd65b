"""Cases sketch and sketch_batched: the throw-away sketch of an edge, under the load of chatty and batched.

The yardstick. It lies outside the project; where it is absent the case is skipped. It runs in a directory of its own
with a PKI of its own, with its own load generator and body (8 signals), and says its CPU for each message once a
second: the median of these lines counts, without the first and the last one, which hold handshakes and the end.
"""

from __future__ import annotations

import re
import shutil
import socket
import statistics
import subprocess
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
_LINE = re.compile(r"(\d+) msg/s cpu/msg ([0-9.]+)us")
_TOTAL = re.compile(r"(\d+) msg/s (\d+) events/s")
_MESSAGES = 4_000  # prepared for each connection: more than it can take


class Absent(Exception):
    """There is no sketch here: nothing to compare with."""


def run(context: Context, case: Case) -> Figures:
    """Raises Absent without the sketch."""
    if not SKETCH.is_dir():
        raise Absent(f"{SKETCH.name}/ is not beside the project")
    directory = context.directory / f"sketch-{case.connections}"
    _prepare(directory)
    edge = Process([sys.executable, "edge_sketch.py"], directory / "edge.log", directory)
    try:
        until(_listens, "the sketch listens", 20, edge)
        seconds = max(5.0, context.sizes.seconds + 2)
        arguments = [str(case.connections), str(case.events), str(seconds), str(_MESSAGES)]
        load = [sys.executable, "load_sketch.py", *arguments]
        done = subprocess.run(load, cwd=directory, capture_output=True, text=True, timeout=seconds + 60, check=False)
        edge.check()
    finally:
        edge.stop()
    found = _TOTAL.search(done.stdout)
    lines = [float(cpu) for _, cpu in _LINE.findall((directory / "edge.log").read_text())][1:-1]
    shutil.rmtree(directory)
    if found is None or not lines:
        raise BenchError(f"the sketch said nothing that can be read: {done.stderr[-400:]}")
    return {
        "edge_cpu_us_per_event": statistics.median(lines) / case.events,
        "events_per_s": float(found.group(2)),
    }


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
