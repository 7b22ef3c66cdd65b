"""What the service manager is told, by the protocol of sd_notify(3): ready, still at work, ending.

Decides how it is said and how often; each process decides when it is true of it. Without a service manager
(NOTIFY_SOCKET is not set) every call does nothing. A manager that does not listen is never a reason to end.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

PINGS = 3
"""In each watchdog interval: one that comes late does not end the process (systemd asks for two)."""


class ServiceManager:
    """`working` is called from the loop that does the work, as often as it turns: whoever stops calling it, hangs."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._ping_seconds = _watchdog_seconds(environment) / PINGS
        self._pinged_s = -self._ping_seconds
        self._status = ""

    def ready(self) -> None:
        """The start is over, and what depends on it may start."""
        self._tell("READY=1")

    def working(self, waits_for: str = "") -> None:
        """Not hanging; `waits_for` is what the work waits for, shown by `systemctl status`."""
        if waits_for != self._status:
            self._status = waits_for
            self._tell("STATUS=" + waits_for.replace("\n", " "))
        now_s = time.monotonic()  # the manager's time, whatever clock the gate was given
        if self._ping_seconds and now_s - self._pinged_s >= self._ping_seconds:
            self._pinged_s = now_s
            self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, message: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)  # the manager may be busy: a ping that is lost is followed by another
                sender.sendto(message.encode(errors="replace"), self._address)


def _address(name: str) -> str:
    """Empty when there is no manager; one that begins with @ is in the abstract namespace."""
    return "\0" + name[1:] if name.startswith("@") else name


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """0 when no watchdog waits for this process: WATCHDOG_PID says which one it is for."""
    usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    ours = not pid or pid == str(os.getpid())
    return int(usec) / 1e6 if usec.isdecimal() and ours else 0.0
