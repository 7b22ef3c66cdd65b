"""What a service manager hears from a process, on a real socket; what there is without one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetgate.sdnotify import ServiceManager


class Manager:
    """The socket of a service manager, as systemd's."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Everything since the last call."""
        found: list[str] = []
        try:
            while True:
                found.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def manager(path: str) -> Iterator[Manager]:
    made = Manager(path)
    yield made
    made.close()


def test_a_life_is_told_in_its_order(manager: Manager, path: str) -> None:
    """Ready, what it waits for, that it no longer waits, and the end; the same reason is told once."""
    process = ServiceManager({"NOTIFY_SOCKET": path})
    process.ready()
    for reason in ("ClickHouse\nis away", "ClickHouse\nis away", ""):
        process.working(reason)
    process.stopping()
    assert manager.heard() == ["READY=1", "STATUS=ClickHouse is away", "STATUS=", "STOPPING=1"]


def test_the_watchdog_hears_of_work_only_while_there_is_some(manager: Manager, path: str) -> None:
    """At most three times in its interval, however often the loop turns, and never from a loop that stands still."""
    process = ServiceManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "300000", "WATCHDOG_PID": str(os.getpid())})
    for _ in range(1000):
        process.working()
    begun = len(manager.heard())
    time.sleep(0.11)
    assert (begun, manager.heard()) == (1, [])
    process.working()
    assert manager.heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_a_watchdog_of_nobody_or_of_somebody_else_hears_nothing(
    manager: Manager, path: str, watchdog: dict[str, str]
) -> None:
    """A child inherits its parent's variables; its pings would hide that the parent hangs."""
    ServiceManager({"NOTIFY_SOCKET": path} | watchdog).working()
    assert manager.heard() == []


def test_an_abstract_socket() -> None:
    """Its name begins with @ in the variable, and with a zero byte in fact."""
    manager = Manager(f"\0fleetgate-test-{os.getpid()}")
    ServiceManager({"NOTIFY_SOCKET": f"@fleetgate-test-{os.getpid()}"}).ready()
    assert manager.heard() == ["READY=1"]
    manager.close()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nonexistent/notify"}])
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    """Most gates have none; one that went away is no reason to end."""
    process = ServiceManager({"WATCHDOG_USEC": "1"} | environment)
    process.ready()
    process.working("why")
    process.stopping()


def test_a_manager_that_does_not_read_holds_up_nobody(manager: Manager, path: str) -> None:
    """Its queue is full: what is told then is lost, and the caller goes on."""
    process = ServiceManager({"NOTIFY_SOCKET": path})
    for number in range(2000):
        process.working(str(number))
    assert 0 < len(manager.heard()) < 2000
