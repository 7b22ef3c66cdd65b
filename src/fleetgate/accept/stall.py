"""A read that does not end: found, cut, and its sender kept out for a while.

OpenSSL handles what is no application data (above all a KeyUpdate of TLS 1.3) inside one read, for as long as the
kernel has more of it, and Python gives no way to bound that. A client that sends such records without a pause would
hold the loop, and with it every vehicle, for as long as it likes. So a thread looks at what the loop is doing: a socket
whose one read has taken too much CPU is taken from under it, and the read meets an end of file. What is shorter than
that, the loop finds itself: after a turn that was long it measures the reads of the next ones. It is CPU that counts,
not time: an honest read takes 10 us of it, however long the process had to wait for its turn.

Decides what is too long, and who stays out for how long. HTTPS needs none of this: trio reads the socket, 16 KiB at a
time, and OpenSSL only what it is given.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final, Protocol

LOOK_SECONDS: Final = 0.05
LONG_TURN_SECONDS: Final = 0.05  # one of 192 messages takes 5 ms
LONG_READ_SECONDS: Final = 0.02  # of CPU
MEASURED_TURNS: Final = 100
BARRED_SECONDS: Final = 600.0
MAX_BARRED: Final = 1_000


class Reader(Protocol):
    """What is being read: its descriptor, and whether it was taken from under it."""

    fd: int
    stalled: bool


class Stalls:
    """`reading` is what the loop reads now, `turn` counts its turns; both are the loop's to write. To be made in the
    loop's thread."""

    def __init__(self) -> None:
        self.reading: Reader | None = None
        self.turn = 0
        self._measured_until = 0
        self._barred: dict[str, float] = {}  # until when, in monotonic seconds
        self._over = threading.Event()
        self._cpu = time.pthread_getcpuclockid(threading.get_ident())
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="stalls", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        os.close(self._nothing)

    @property
    def measuring(self) -> bool:
        """Whether the reads of this turn are to be measured."""
        return self.turn < self._measured_until

    def end_turn(self, took_s: float) -> None:
        if took_s > LONG_TURN_SECONDS:
            self._measured_until = self.turn + MEASURED_TURNS

    def bar(self, who: str, now_s: float) -> None:
        """Keeps out who stalled the loop; of many the latest."""
        if len(self._barred) >= MAX_BARRED:
            del self._barred[next(iter(self._barred))]
        self._barred.pop(who, None)
        self._barred[who] = now_s + BARRED_SECONDS

    def barred(self, who: str, now_s: float) -> bool:
        return self._barred.get(who, 0.0) > now_s

    def _watch(self) -> None:
        seen: tuple[Reader | None, int] = (None, 0)
        since_s = 0.0
        while not self._over.wait(LOOK_SECONDS):
            now, spent_s = (self.reading, self.turn), time.clock_gettime(self._cpu)
            if now[0] is None or now != seen:
                seen, since_s = now, spent_s
            elif spent_s - since_s > LONG_READ_SECONDS:
                self._cut(now[0])

    def _cut(self, reader: Reader) -> None:
        """Another file takes the place of the socket, which the kernel closes; after a shutdown it could still be read
        for as long as something comes. Should the read end in this very moment, and the number be another connection's
        by then, that one is lost: its client comes again."""
        reader.stalled = True
        if self.reading is reader:
            os.dup2(self._nothing, reader.fd, inheritable=False)
