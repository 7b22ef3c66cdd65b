"""`fleetgate load` as a process: killed, stopped, and with another owner on its directory."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.segments import SpoolOnDisk, rows_body, sample

from fleetgate import configfile
from fleetgate.clock import SystemClock
from fleetgate.control.schema import transitions_applied
from fleetgate.control.store import Store
from fleetgate.load.endpoint import reader
from fleetgate.spool.cursor import read_cursor

SOURCE = Path(__file__).parents[3] / "src"
PROGRAM = (
    "import sys; from pathlib import Path; from fleetgate import configfile, log; "
    "from fleetgate.clock import SystemClock; from fleetgate.load.service import serve; log.configure('load'); "
    "serve(configfile.load(Path(sys.argv[1])), SystemClock())"
)
DEADLINE_SECONDS = 30.0


class Gate:
    """A directory with a spool and a configuration, and load processes on it."""

    def __init__(self, directory: Path) -> None:
        self.spool = SpoolOnDisk(directory / "spool")
        self.file = directory / "fleetgate.toml"
        listen, self.admin = _free_port(), _free_port()
        self.file.write_text(
            f'[clickhouse]\nlisten = "127.0.0.1:{listen}"\n[load]\nadmin_listen = "127.0.0.1:{self.admin}"\n'
        )
        self.processes: list[subprocess.Popen[bytes]] = []
        Store.open(configfile.load(self.file), SystemClock(), create=True).close()

    def start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(self.file)], env=environment)
        self.processes.append(process)
        return process

    def segments(self, count: int) -> None:
        """Seals so many of a hundred events each."""
        for _ in range(count):
            for _ in range(10):
                self.spool.message(rows_body(*(sample(-index, s1=50.0) for index in range(10, 0, -1))))
            self.spool.seal()

    def cursor(self) -> int:
        cursor = read_cursor(self.spool.directory)
        return cursor.segment if cursor is not None else 0

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "the loader did not get there in time"
            time.sleep(0.01)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5) as answer:
                return bool(json.load(answer)["ready"])
        except OSError:
            return False

    def ask(self, sql: str) -> list[list[object]]:
        client = reader(configfile.load(self.file))
        try:
            return client.rows(sql)
        finally:
            client.close()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def test_killed_again_and_again_everything_is_there_once(gate: Gate) -> None:
    """kill -9 in the middle of loading, three times: at the end each event and each reading is counted once."""
    gate.segments(20)
    for target in (3, 8, 14):
        process = gate.start()
        gate.wait_for(lambda target=target: gate.cursor() >= target)  # type: ignore[misc]
        process.kill()
        process.wait()
        assert gate.cursor() < 20
    gate.start()
    gate.wait_for(lambda: gate.cursor() == 20)
    assert gate.ask("SELECT (SELECT count() FROM events), (SELECT sum(readings) FROM signal_minute)") == [
        [2_000, 2_000]
    ]
    assert gate.ask("SELECT count(), uniqExact(segment) FROM segments") == [[20, 20]]


def test_sigterm_ends_it_cleanly(gate: Gate) -> None:
    """SIGTERM finishes the segment in hand: the process exits with 0, and the cursor stands on what is loaded."""
    gate.segments(15)
    process = gate.start()
    gate.wait_for(lambda: gate.cursor() >= 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_SECONDS) == 0
    stopped_at = gate.cursor()
    gate.start()
    gate.wait_for(gate.ready)
    gate.wait_for(lambda: gate.cursor() == 15)
    assert stopped_at < 15
    assert gate.ask("SELECT count() FROM events") == [[1_500]]


def test_it_waits_for_the_directorys_owner(gate: Gate) -> None:
    """A second loader does not fail on the spool and ClickHouse of the first: it takes over when that one ends."""
    first = gate.start()
    gate.wait_for(gate.ready)
    gate.file.write_text(gate.file.read_text().replace(str(gate.admin), str(second_admin := _free_port())))
    gate.admin = second_admin
    second = gate.start()
    gate.wait_for(lambda: _answers(second_admin))
    assert second.poll() is None
    assert not gate.ready()
    first.send_signal(signal.SIGTERM)
    assert first.wait(DEADLINE_SECONDS) == 0
    gate.wait_for(gate.ready)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5):
            return True
    except OSError:
        return False


def test_the_access_token_is_for_its_owner_only(gate: Gate) -> None:
    """The token is made at first start, with mode 0600."""
    gate.start()
    gate.wait_for(gate.ready)
    token = gate.file.parent / "clickhouse.token"
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_transition_is_in_control_once(gate: Gate) -> None:
    """The process hands a transition to the control records; the same segment again finds it applied."""
    gate.spool.transition()
    gate.spool.seal()
    for _ in range(2):
        process = gate.start()
        gate.wait_for(lambda: gate.cursor() == 1)
        process.kill()
        process.wait()
        (gate.spool.directory / "cursor.json").unlink()
    with Store.open(configfile.load(gate.file), SystemClock()) as store:
        applied = store.rows(select(transitions_applied))
    assert [(row.spool, row.segment) for row in applied] == [(gate.spool.identity.hex(), 1)]
