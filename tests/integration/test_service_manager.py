"""Edge, load and signer as a service manager sees them: when they are ready, that they work, that they end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gate import Installation, clean_environment, until

from fleetgate.config import host_and_port

WATCHDOG_USEC = "300000"
NOBODY = "http://127.0.0.1:9"  # no server listens at the port of discard


class Service:
    """A command of the gate with a service manager that listens to it."""

    def __init__(self, home: Installation, command: str, socket_path: Path) -> None:
        self._heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(socket_path))
        self._socket.setblocking(False)
        manager = {"NOTIFY_SOCKET": str(socket_path), "WATCHDOG_USEC": WATCHDOG_USEC}
        self.log_file = home.directory / f"{command}.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fleetgate.cli.main", command],
                cwd=home.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment() | manager | {"FLEETGATE_CLICKHOUSE_URL": NOBODY},
            )

    def heard(self) -> list[str]:
        """Everything so far."""
        try:
            while True:
                self._heard.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return self._heard

    def await_word(self, word: str, times: int = 1) -> None:
        def found() -> bool:
            assert self.process.poll() is None, self.log_file.read_text()
            return sum(message.startswith(word) for message in self.heard()) >= times

        until(found, f"{word} is heard", 30)

    def end(self) -> list[str]:
        """After SIGTERM and the end with exit code 0: everything that was heard."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.log_file.read_text()
        return self.heard()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._socket.close()


@pytest.fixture
def home(authority: Installation, tmp_path: Path) -> Installation:
    copy = authority.copy(tmp_path / "gate")
    copy.configure()
    (copy.directory / "clickhouse.token").touch(0o600)
    (copy.directory / "clickhouse.token").write_text("a password\n")
    return copy


@pytest.fixture
def service(request: pytest.FixtureRequest, home: Installation, tmp_path: Path) -> Iterator[Service]:
    made = Service(home, request.param, tmp_path / "notify")
    yield made
    made.close()


def lived(service: Service) -> list[str]:
    """What was heard of a whole life, but for what it waits for; the life is in its order."""
    service.await_word("WATCHDOG=1", times=3)
    heard = [message for message in service.end() if not message.startswith("STATUS=")]
    assert heard.index("READY=1") < heard.index("STOPPING=1")
    return heard


EVERYTHING = {"READY=1", "WATCHDOG=1", "STOPPING=1"}


@pytest.mark.parametrize("service", ["edge"], indirect=True)
def test_an_edge_is_ready_when_vehicles_can_connect(service: Service, home: Installation) -> None:
    """Both of its doors are open by then; it works on, and says when it ends."""
    service.await_word("READY=1")
    for address in (home.config.edge.mqtt_listen, home.config.edge.https_listen):
        socket.create_connection(host_and_port("", address), timeout=5).close()
    assert set(lived(service)) == EVERYTHING


@pytest.mark.parametrize("service", ["load"], indirect=True)
def test_load_is_ready_and_works_while_it_waits_for_clickhouse(service: Service) -> None:
    """`systemctl status` shows for what: nobody has to read the log first."""
    service.await_word("STATUS=ClickHouse does not answer")
    assert set(lived(service)) == EVERYTHING


@pytest.mark.parametrize("service", ["signer"], indirect=True)
def test_a_signer_is_ready_when_it_can_be_asked(service: Service, home: Installation) -> None:
    """Its socket is there by then."""
    service.await_word("READY=1")
    assert home.config.path(home.config.signer.socket).is_socket()
    assert set(lived(service)) == EVERYTHING
