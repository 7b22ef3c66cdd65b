"""Keeps samples without keeping anybody waiting: a bounded queue, and a thread that writes what is in it.

`offer` is called on the road and does nothing but append to the queue. What the queue has no room for, and what the
disk does not take, is lost and counted: telemetry goes on, and the metrics say that evidence does not. Decides when
samples are forgotten, and that a new file is begun where it is damaged; how many of them there may be is `store`'s.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from fleetgate import log
from fleetgate.clock import Clock
from fleetgate.config import Evidence as Settings
from fleetgate.errors import ControlAway
from fleetgate.evidence.sample import Sample
from fleetgate.evidence.store import Damaged, EvidenceError, Harmless, Store, forget_aside, set_aside

WRITE_SECONDS = 0.5
QUEUE_BYTES = 8 * 1024 * 1024
"""Of messages that wait for the thread: a request over HTTPS alone may have 1 MiB."""

FORGET_SECONDS = 3600.0
HARMLESS_DAYS = 7
"""How long samples outlive the decision that their device did no harm: time to see that it was the wrong one."""

ASIDE_DAYS = 7
"""How long a damaged file is kept for whoever can read something in it; nothing in it is forgotten meanwhile."""

_DAY_MS = 24 * 3600 * 1000
_STOP_SECONDS = 5.0
_log = log.get("evidence")

Cleared = Callable[[int, int], Sequence[tuple[str, str, int]]]
"""(tenant, device id, Unix ms of the decision) of devices that were last found harmless, between two times."""


class Keeper:
    """Samples of one edge in `directory`. `min_free_bytes` of its disk are left to others, telemetry among them.

    `failing` says why nothing is kept now; `lost` counts samples that were wanted and are not kept for it.
    """

    def __init__(
        self, directory: Path, settings: Settings, min_free_bytes: int, clock: Clock, cleared: Cleared
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._min_free_bytes = min_free_bytes
        self._clock = clock
        self._cleared = cleared
        self._queue: deque[Sample] = deque()
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
        self._store: Store | None = None
        self._forget_due_s = 0.0
        self.kept = self.lost = self.bytes = 0
        self.failing = ""

    def offer(self, sample: Sample) -> None:
        """Has it written within a second. Never waits, never raises."""
        size = len(sample.raw)
        with self._lock:
            if self._queued_bytes + size <= QUEUE_BYTES:
                self._queue.append(sample)
                self._queued_bytes += size
                return
        self.lost += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Writes what is queued; gives up on a disk that hangs."""
        self._stop.set()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(WRITE_SECONDS):
            self.step()
        self.step()
        self._close()

    def step(self) -> None:
        """Writes what is queued, and forgets what is too old, once an hour. Never raises."""
        with self._lock:
            samples, self._queue, self._queued_bytes = list(self._queue), deque(), 0
        try:
            store = self._opened()
            if samples:
                self._require_room(store)
                store.add(samples)
                self.kept += len(samples)
                samples = []  # whatever fails from here on, they are kept
            self._forget(store)
            self.bytes = store.used_bytes()
        except Exception as error:  # whatever is overlooked here, somebody has to hear of it
            self.lost += len(samples)
            self._close()  # a file that another took the place of is found only by opening it again
            self._tell(str(error) if isinstance(error, EvidenceError) else type(error).__name__)
            if isinstance(error, Damaged):
                self._set_aside()
        else:
            self._tell("")

    def _opened(self) -> Store:
        if self._store is None:
            self._store = Store(self._directory, self._settings.max_bytes)
        return self._store

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _set_aside(self) -> None:
        """The next step begins a new file: one that is damaged takes nothing any more."""
        try:
            aside = set_aside(self._directory, self._clock.now_ms())
        except EvidenceError as error:
            self._tell(str(error))
        else:
            _log.error("evidence_set_aside", file=str(aside), days=ASIDE_DAYS)

    def _require_room(self, store: Store) -> None:
        """Raises EvidenceError where telemetry may be on the same disk and needs what is left of it."""
        if store.free_disk_bytes() < self._min_free_bytes:
            raise EvidenceError(f"{self._directory}: free disk is below spool.min_free_bytes")

    def _forget(self, store: Store) -> None:
        now_s = self._clock.monotonic()
        if now_s < self._forget_due_s:
            return
        self._forget_due_s = now_s + FORGET_SECONDS
        now_ms = self._clock.now_ms()
        oldest_ms = now_ms - self._settings.max_days * _DAY_MS  # of who was cleared earlier nothing is kept
        try:
            found = self._cleared(oldest_ms, now_ms - HARMLESS_DAYS * _DAY_MS)
        except ControlAway as error:
            found = ()  # what is too old goes all the same
            _log.warning("harmless_cases_unknown", error=str(error))
        forget_aside(self._directory, now_ms - ASIDE_DAYS * _DAY_MS)
        gone = store.forget(oldest_ms, [Harmless(*one) for one in found])
        if gone:
            _log.info("evidence_forgotten", samples=gone)

    def _tell(self, failing: str) -> None:
        if bool(failing) != bool(self.failing):
            if failing:
                _log.error("evidence_is_not_kept", error=failing, means="telemetry goes on; refusals are counted")
            else:
                _log.warning("evidence_is_kept_again", lost=self.lost)
        self.failing = failing
