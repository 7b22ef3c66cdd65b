"""How load ends when asked to, by SIGTERM or SIGINT: with the segment in hand finished, or given up after a while.

Decides that, and in which thread: not in a signal handler. That would run in the main thread between any two of its
steps, where setting an event whose lock this thread holds is a deadlock, and not at all while it is in the engine.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time

from fleetgate import log
from fleetgate.sdnotify import ServiceManager

LAST_SECONDS = 12.0
"""From SIGTERM to the end, whatever ClickHouse does; `fleetgate up` kills a child after 20."""


def end_when_asked(stop: threading.Event, manager: ServiceManager) -> None:
    """`stop` is set at the first signal, and LAST_SECONDS later the process ends. Any further one changes nothing. For
    the main thread, once."""
    awaited, asking = socket.socketpair()
    asking.setblocking(False)
    signal.set_wakeup_fd(asking.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # one is needed for the wakeup
    threading.Thread(target=_end, args=(awaited, stop, manager), name="ending", daemon=True).start()


def _end(awaited: socket.socket, stop: threading.Event, manager: ServiceManager) -> None:
    """An insert that hangs would hold the process for the client's two minutes. It is given up as a crash would: the
    next start repeats the segment, which changes nothing if ClickHouse had it."""
    awaited.recv(1)
    stop.set()
    manager.stopping()
    time.sleep(LAST_SECONDS)
    log.get("load").warning("ended_in_a_segment", means="the next start repeats it")
    os._exit(0)
