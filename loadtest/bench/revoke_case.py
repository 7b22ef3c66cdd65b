"""Case revoke: from `fleetgate device revoke` to the end of the live session, with thousands of sessions open.

A swarm holds most of the sessions, each with a certificate of its own; the devices that are revoked have theirs in this
process, on plain sockets with TLS. One after another is revoked by the command, as a person would, each time a new
process. `effect_ms` counts from the start of the command until the DISCONNECT has been read, so Python's own start is
in it; `decision_ms` from the time that the change bears in control. A session that ends for another reason, or of
another device, fails the case.
"""

from __future__ import annotations

import select
import shutil
import socket
import sqlite3
import ssl
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import mqtt5
from loadtest.bench.context import Context, Figures
from loadtest.bench.gate import Gate
from loadtest.bench.herd_case import choose
from loadtest.bench.installation import TENANT
from loadtest.bench.processes import BenchError, Phases, Swarm

from fleetgate.config import host_and_port

CONNECT_SECONDS = 200.0
EFFECT_SECONDS = 30.0
HOLD_SECONDS = 3600.0  # until the case ends it


class Session:
    """A device's live MQTT session."""

    def __init__(self, gate: Gate, bundle: Path) -> None:
        self.device_id = bundle.name
        context = ssl.create_default_context(cafile=bundle / "ca.pem")
        context.load_cert_chain(bundle / "certificate.pem", bundle / "private.pem")
        plain = socket.create_connection(host_and_port("edge.mqtt_listen", gate.config.edge.mqtt_listen), 10)
        self._socket = context.wrap_socket(plain, server_hostname="localhost")
        self._socket.sendall(mqtt5.ConnectPacket("", clean_start=True, keep_alive=300).write())
        welcome, _ = mqtt5.read(memoryview(self._socket.recv(4096)))
        if not isinstance(welcome, mqtt5.ConnAckPacket) or welcome.reason_code != 0:
            raise BenchError(f"{self.device_id} was not let in: {welcome}")

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def ended(self) -> float:
        """Waits for the gate's DISCONNECT; when it came, in seconds of Unix time. Raises BenchError."""
        if not select.select([self], [], [], EFFECT_SECONDS)[0]:
            raise BenchError(f"the session of {self.device_id} did not end within {EFFECT_SECONDS:.0f} s")
        data, at_s = self._socket.recv(4096), time.time()
        packet = mqtt5.read(memoryview(data))[0] if data else None
        if not isinstance(packet, mqtt5.DisconnectPacket) or packet.reason_str != "revoked":
            raise BenchError(f"the session of {self.device_id} ended for another reason: {packet}")
        return at_s


def run(context: Context) -> Figures:
    sessions, revocations = context.sizes.revoke_sessions, context.sizes.revocations
    installation = context.installation(sessions)
    control = context.directory / "revoke.db"
    shutil.copyfile(installation.control, control)  # the other cases' devices stay as they are
    with context.gate(sessions, control) as gate, ExitStack() as ending:
        everybody = sorted(gate.devices.iterdir())[:sessions]
        gate.start_edge()
        crowd = choose(gate.directory / "crowd", everybody[revocations:])
        phases = Phases()
        options = ("--connections", str(sessions - revocations), "--seconds", "0", "--hold", str(HOLD_SECONDS))
        ending.enter_context(Swarm(crowd, (*gate.addresses, *options), HOLD_SECONDS, phases.tell))
        phases.wait_for("connected", CONNECT_SECONDS)
        live = [ending.enter_context(closing(Session(gate, bundle))) for bundle in everybody[:revocations]]
        told = [_revoke(gate, control, live[number:]) for number in range(revocations)]
    effects, decisions = (sorted(column) for column in zip(*told, strict=True))
    return {
        "effect_ms_p50": statistics.median(effects),
        "effect_ms_p99": _p99(effects),
        "decision_ms_p50": statistics.median(decisions),
        "decision_ms_p99": _p99(decisions),
    }


def _revoke(gate: Gate, control: Path, live: list[Session]) -> tuple[float, float]:
    """Revokes the first of these: ms to the end of its session, from the start of the command and from the decision."""
    session = live[0]
    command = (
        *(sys.executable, "-m", "fleetgate.cli.main", "--config", str(gate.file), "device", "revoke"),
        *("--tenant", TENANT, "--device", session.device_id, "--reason", "bench"),
    )
    begun_s = time.time()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            ended_s = session.ended()
        finally:
            _, said = process.communicate(timeout=EFFECT_SECONDS)
    if process.returncode:
        raise BenchError(f"`fleetgate device revoke` ended with {process.returncode}: {said.strip()}")
    if spoke := select.select(live[1:], [], [], 0)[0]:
        raise BenchError(f"the session of {spoke[0].device_id} was ended too")
    with closing(sqlite3.connect(control)) as db:
        [(decided_ms,)] = db.execute("SELECT at_ms FROM changes WHERE device_id = ? AND kind = 'revoke'",
                                     (session.device_id,))  # fmt: skip
    return (ended_s - begun_s) * 1000, ended_s * 1000 - decided_ms


def _p99(ordered: list[float]) -> float:
    """By nearest rank."""
    return ordered[max(0, -(-len(ordered) * 99 // 100) - 1)]
