"""Clients that take their time: deaf ones, ones that send a byte a second, thousands that never say who they are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import quantiles
from typing import Any

from fleetgate.accept.https import SEND_SECONDS
from fleetgate.accept.mqtt import KEEP_ALIVE_FACTOR
from fleetgate.accept.request import BODY_SECONDS
from tests.faults.cars import HttpsDriver, MqttDriver
from tests.faults.crowd import client_hello
from tests.faults.idlers import Deaf, DeafHttps, Idler, Idlers, connected, secured
from tests.faults.journal import Answer, Send, read
from tests.faults.processes import ROOT
from tests.faults.registry import fault
from tests.faults.trial import Trial
from tests.gate import now_ms, until
from tests.http_peer import MSGPACK
from tests.mqtt_peer import MqttPeer

HANDSHAKE_SECONDS, KEEP_ALIVE_SECONDS = 4, 6
SILENCE_SECONDS = KEEP_ALIVE_SECONDS * KEEP_ALIVE_FACTOR
MARGIN_SECONDS = 6.0
EACH = 4
DEAF = 2
# At the default pace, answers to pings would fill no buffer for minutes.
UNLIMITED: dict[str, Any] = {"limits.device": {"messages": ""}}
FILLING_SECONDS = 15.0  # 3 MB, by request and answer
CROWD = 5_000
CROWD_SECONDS = 8.0
SLOWER = 20  # times, at the 90th percentile: two cores have the clients, the gate, load and ClickHouse on them
LEAST_MS = 10.0  # of what is compared with
KIB, MIB = 1024, 1024 * 1024
OF_A_CLIENT_BYTES = 256 * KIB  # TLS, a packet of 68 KiB half read, 64 KiB of answers
OF_A_HANDSHAKE_BYTES = 64 * KIB
SLACK_BYTES = 48 * MIB  # what the fleet's own traffic moves the resident set by


def _resident_bytes(trial: Trial) -> int:
    with open(f"/proc/{trial.edge.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _descriptors(trial: Trial) -> int:
    return len(os.listdir(f"/proc/{trial.edge.process.pid}/fd"))


def _ack_ms(trial: Trial, since_ms: int) -> float:
    """The 90th percentile of what the fleet waited for answers to what it sent since then."""
    sent: dict[int, int] = {}
    waited = []
    for entry in read(trial.fleet.journal_path):
        if isinstance(entry, Send) and entry.at_ms >= since_ms:
            sent[entry.number] = entry.at_ms
        elif isinstance(entry, Answer) and entry.send in sent:
            waited.append(entry.at_ms - sent[entry.send])
    assert len(waited) > 100, f"only {len(waited)} answers: too few to compare"
    return quantiles(waited, n=10)[-1]


@contextmanager
def _as_before(trial: Trial, growth_bytes: int) -> Iterator[None]:
    """While the block runs the fleet's answers come as before, about, and the edge's memory stays within bounds."""
    began_ms = now_ms()
    time.sleep(2)
    trial.fleet.fresh()
    before_ms, before_bytes = max(_ack_ms(trial, began_ms), LEAST_MS), _resident_bytes(trial)
    began_ms = now_ms()
    yield
    trial.fleet.fresh()
    during_ms, grown_bytes = _ack_ms(trial, began_ms), _resident_bytes(trial) - before_bytes
    assert during_ms < SLOWER * before_ms, f"answers took {during_ms:.0f} ms instead of {before_ms:.0f}"
    assert grown_bytes < growth_bytes + SLACK_BYTES, f"the edge grew by {grown_bytes / MIB:.0f} MiB"


def _idlers(trial: Trial) -> list[Idler]:
    """Some of each kind, each with a certificate of its own where a device may have one session."""
    edge, found = trial.edge, []
    hello = client_hello()
    for number in range(EACH):
        one, two, three = (trial.home.enrol(f"idler-{kind}-{number}") for kind in range(3))
        found += [
            Idler(f"handshake, port {port}", connected(port), hello, HANDSHAKE_SECONDS)
            for port in (edge.mqtt_port, edge.https_port)
        ]
        found.append(Idler("CONNECT", secured(edge.mqtt_port, one), b"\x10\xff\x01\x00\x04MQTT", HANDSHAKE_SECONDS))
        for who, what, drips in ((two, "PUBLISH", bytes(1000)), (three, "PUBLISH announced", b"")):
            peer = MqttPeer(edge, who).hello()
            peer.send(b"\x32\x80\x80\x04")  # 64 KiB will follow
            found.append(Idler(what, peer.sock, drips, SILENCE_SECONDS))
        for length, what, drips in ((1000, "body", bytes(900)), (65_536, "body announced", b"")):
            sock = secured(edge.https_port, one)
            sock.sendall(
                f"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MSGPACK}\r\n"
                f"Content-Length: {length}\r\n\r\n".encode()
            )
            found.append(Idler(what, sock, drips, BODY_SECONDS))
        # Headers may take as long as a connection may be idle, two minutes: longer than this trial.
        headers = b"POST /v1/telemetry HTTP/1.1\r\nHost: " + b"x" * 1000
        found.append(Idler("headers", secured(edge.https_port, two), headers, float("inf")))
    return found


def _cut(after_s: list[float | None], deadline_s: float) -> None:
    """The deaf ones were ended in time: it counts from when the buffers between are full, which takes a while."""
    latest_s = deadline_s + FILLING_SECONDS + MARGIN_SECONDS
    assert all(one_s is not None and one_s < latest_s for one_s in after_s), f"deaf ones ended after {after_s}"


@fault(
    "Dozens that read no answers, send a byte a second or announce 64 KiB and send none: each ends at its deadline.",
    edge={"handshake_seconds": HANDSHAKE_SECONDS, "keep_alive_seconds": KEEP_ALIVE_SECONDS},
    **UNLIMITED,
)
def idle_clients(trial: Trial) -> None:
    clients = EACH * 8 + 2 * DEAF
    with _as_before(trial, clients * OF_A_CLIENT_BYTES):
        idlers = Idlers(_idlers(trial))
        idlers.start()
        deaf = [trial.fleet.join(Deaf(*trial.fleet.newcomer(f"deaf-{number}"))) for number in range(DEAF)]
        deaf_https = [DeafHttps(trial.edge, trial.home.enrol(f"deaf-https-{number}")) for number in range(DEAF)]
        try:
            for one in deaf_https:
                one.start()
            time.sleep(BODY_SECONDS + MARGIN_SECONDS)
            late = [
                (idler.what, idler.ended_after_s, idler.deadline_s)
                for idler in idlers.all
                if (idler.ended_after_s or 10**6) > idler.deadline_s + MARGIN_SECONDS
            ]
            assert not late, f"not ended in time: {late}"
            _cut([one.cut_after_s for one in deaf], SILENCE_SECONDS)
            _cut([one.cut_after_s for one in deaf_https], SEND_SECONDS)
        finally:
            idlers.close()


@fault(
    f"{CROWD:,} connections that never finish the handshake, half of them behind a ClientHello: new cars get in.",
)
def crowd_before_the_handshake(trial: Trial) -> None:
    limit = trial.home.config.edge.max_handshakes
    descriptors = _descriptors(trial)
    with _as_before(trial, 2 * min(limit, CROWD) * OF_A_HANDSHAKE_BYTES):
        ports = (str(trial.edge.mqtt_port), str(trial.edge.https_port))
        command = [sys.executable, "-m", "tests.faults.crowd", *ports, str(CROWD)]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
            try:
                assert crowd.stdout is not None
                told = crowd.stdout.readline()
                if not told:
                    trial.skip("the limit of file descriptors is too low for the crowd: ulimit -Hn")
                most = 0
                newcomers = [
                    trial.fleet.join(MqttDriver(*trial.fleet.newcomer(f"new-{number}"))) for number in range(2)
                ]
                over_s = time.monotonic() + CROWD_SECONDS
                newcomers_https = [
                    trial.fleet.join(HttpsDriver(*trial.fleet.newcomer(f"new-https-{number}"), MSGPACK))
                    for number in range(2)
                ]
                while time.monotonic() < over_s:
                    most = max(most, _descriptors(trial))
                    time.sleep(0.2)
                trial.fleet.fresh()
                assert all(one.acknowledged for one in (*newcomers, *newcomers_https)), "a new car did not get in"
                assert most - descriptors > 500, f"at most {most - descriptors} were there at once: no crowd"
                assert most - descriptors < 2 * limit + 500, f"{most - descriptors} at once: max_handshakes is {limit}"
            finally:
                crowd.communicate()
    until(lambda: _descriptors(trial) < descriptors + 50, "descriptors come back", MARGIN_SECONDS)
