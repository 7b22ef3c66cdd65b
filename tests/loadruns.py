"""Load tests as the tests run them: a whole gate with a proxy before its ClickHouse, and a small honest generator.

The generator here is the tests' own: a few cars over real TLS, one thread, that keep a journal as the users of locust
do. What is judged is real: processes, journals, samples, rows. Only the counts of locust are written by hand: it cannot
live in the process of the tests.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import mqtt5
import msgspec
import pytest
from loadtest.journal import Journal
from loadtest.locust_counts import Counts, Requests, Users
from loadtest.outcome import Verdict
from loadtest.sampler import Sampler
from loadtest.thresholds import Thresholds
from loadtest.verdict import judge

from fleetgate import configfile
from fleetgate.demo.figures import is_ready
from fleetgate.spool.cursor import read_cursor
from fleetgate.spool.reader import segment_paths
from tests.faults.clickhouse import Server
from tests.faults.outages import token_of
from tests.faults.processes import Process, Running, load_process
from tests.faults.proxy import Forward, Proxy, Reply, Request
from tests.gate import Car, Gate, Installation, until, until_stuck
from tests.http_peer import HttpPeer
from tests.http_peer import told as told_item
from tests.mqtt_peer import MqttPeer, told
from tests.units import EVENT

DATABASE = "loadtest"
MESSAGES, EVENTS = 12, 3
PATIENT_SECONDS = 120.0


class Rig:
    """A gate of three processes. `proxy` stands between it and the ClickHouse at `server`."""

    def __init__(self, authority: Installation, directory: Path, server: Server) -> None:
        self.server, self.proxy = server, Proxy(server.address)
        self.home = authority.copy(directory)
        self.home.configure(spool={"segment_seconds": 0.2})
        file = directory / "fleetgate.toml"
        named = f'[clickhouse]\nurl = "{self.proxy.url}"\ndatabase = "{DATABASE}"\ntoken_file = "password"\n'
        before, listen, after = file.read_text().partition("[clickhouse]\n")
        file.write_text(before + named + after.replace("[load]\n", "[load]\nretry_seconds = 0.3\n"))
        assert listen
        (directory / "password").touch(0o600)
        (directory / "password").write_text(server.password)
        self.home.config = configfile.load(file, {})
        self.edge = Gate(self.home)
        self.load: Process = load_process(directory, self.home.config.load.admin_listen)

    def start(self) -> None:
        self.server.create(DATABASE)
        config = self.home.config
        started: tuple[tuple[Running, str], ...] = (
            (self.edge, config.edge.admin_listen),
            (self.load, config.load.admin_listen),
        )
        for process, admin in started:
            process.launch()
            until(partial(is_ready, admin), f"{admin} is ready", PATIENT_SECONDS)

    def close(self) -> None:
        self.edge.close()
        self.load.close()
        self.proxy.close()

    def await_loaded(self) -> None:
        """Until load is done with everything in the spool, and with every answer of ClickHouse."""
        segments = self.edge.spool / "segments"

        def through() -> int:
            cursor = read_cursor(self.edge.spool)
            return cursor.segment if cursor is not None else 0

        def loaded() -> bool:
            at = through()  # before the segments: what is sealed meanwhile is then behind it
            sealed, unsealed = (segment_paths(segments, *suffix) for suffix in ((), (".open",)))
            return not unsealed and all(number <= at for number, _ in sealed)

        until_stuck(loaded, through, "everything is loaded", PATIENT_SECONDS)

    def double_inserts(self) -> None:
        """Each insert into `events` from now on happens twice, under two tokens, until the proxy heals."""

        def twice(request: Request, forward: Forward) -> Reply | None:
            if request.insert == "events":
                other = request.path.replace(token_of(request), f"again-{token_of(request)}")
                host, port = self.proxy.upstream
                again = urllib.request.Request(f"http://{host}:{port}{other}", request.body, request.headers)
                urllib.request.urlopen(again, timeout=20).close()
            return forward()

        self.proxy.behaviour = twice

    def sql(self, statement: str) -> None:
        """Past the proxy, with all rights."""
        self.server.client(DATABASE).command(statement)


@contextmanager
def standing(authority: Installation, directories: pytest.TempPathFactory) -> Iterator[Rig]:
    """One that has started, with a ClickHouse of its own."""
    server = Server(directories.mktemp("clickhouse"))
    made = Rig(authority, directories.mktemp("rig"), server)
    try:
        made.start()
        yield made
    finally:
        made.close()
        server.close()


class LoadRun:
    """The directory of one run, as `loadtest.run` leaves it for the verdict."""

    def __init__(self, rig: Rig, directory: Path) -> None:
        directory.mkdir()
        self.rig, self.directory = rig, directory
        self.cars: list[Car] = []

    @contextmanager
    def measured(self) -> Iterator[Journal]:
        """A journal to write, and a sampler that looks meanwhile; the files of a run afterwards."""
        config, started_ms = self.rig.home.config, _now_ms()
        processes = {"edge": self.rig.edge.process.pid, "load": self.rig.load.process.pid, "generator": os.getpid()}
        listeners = {"edge": config.edge.admin_listen, "load": config.load.admin_listen}
        with Sampler(self.directory, listeners, processes), Journal(self.directory, "0") as journal:
            yield journal
        facts = {"shape": "ramp", "users": 2, "started_ms": started_ms, "ended_ms": _now_ms()}
        facts["gate"] = str(self.rig.home.directory / "fleetgate.toml")
        (self.directory / "run.json").write_text(json.dumps(facts))
        write_counts(self.directory, self.rig.home.config.edge.mqtt_listen)

    def drive(self, journal: Journal, name: str, attack: str | None = None) -> None:
        """A car on MQTT and one on HTTPS, each with some messages in one go; the second one as an `attack`."""
        over_mqtt, over_https = (self.rig.home.enrol(f"{name}-{way}") for way in ("mqtt", "https"))
        self.cars += [over_mqtt, over_https]
        with MqttPeer(self.rig.edge, over_mqtt, deadline_s=PATIENT_SECONDS) as peer:
            epoch = peer.hello().epoch
            device = journal.device(over_mqtt.tenant, over_mqtt.device_id, "mqtt")
            for seq in range(MESSAGES):
                journal.sent(device, epoch, seq, EVENTS, time.time())
                peer.publish(sign(over_mqtt, epoch, seq))
            for seq in range(MESSAGES):
                code, reason = told(peer.packet(mqtt5.PubAckPacket))
                journal.answered(device, epoch, seq, reason or ("accepted" if code == 0 else "refused"))
        with HttpPeer(self.rig.edge, over_https, deadline_s=PATIENT_SECONDS) as client:
            kind = attack or "https-batch"
            device = journal.device(over_https.tenant, over_https.device_id, kind, hostile=attack is not None)
            for seq in range(MESSAGES):
                journal.sent(device, 1, seq, EVENTS, time.time())
            answer = client.batch(*(sign(over_https, 1, seq) for seq in range(MESSAGES)))
            for seq, item in enumerate(answer.items):
                status, reason = told_item(item)
                journal.answered(device, 1, seq, reason or status)

    def judge(self, settle_s: float = PATIENT_SECONDS, **limits: float) -> Verdict:
        """With the thresholds of the project, but for these. Only a test in which something stays lost waits for it in
        vain, and should not be patient."""
        return judge(self.directory, thresholds(**limits), settle_s)


def thresholds(**limits: float) -> Thresholds:
    """Those of the project with other limits. The generator may be as busy as it likes: on a machine that runs other
    tests it often is, and what that means has tests of its own."""
    found = Thresholds.load()
    given = msgspec.structs.replace(found.limits, **{"ack_p99_ms": 60_000.0, **limits})
    generator = msgspec.structs.replace(found.generator, share_of_seconds=1.0)
    return msgspec.structs.replace(found, limits=given, generator=generator)


def sign(car: Car, epoch: int, seq: int) -> bytes:
    return car.sign(epoch, seq, body=msgspec.msgpack.encode(["2026.44.1", "cfg-7f3a", [EVENT] * EVENTS]))


def write_counts(directory: Path, name: str, count: int = 2 * MESSAGES, failures: int = 0) -> None:
    """`counts.json`, as the users of locust leave it."""
    requests = [Requests("MQTT", name, count, failures, 12, 40)]
    Counts(requests, [Users(0.0, 2, 0), Users(1.0, 2, 2)], []).write(directory)


def missed(verdict: Verdict) -> set[str]:
    return {finding.name for finding in verdict.findings if not finding.met}


def _now_ms() -> int:
    return int(time.time() * 1000)
