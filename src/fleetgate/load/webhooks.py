"""Webhooks: tells each opening and closing of an alert to the URLs of the configuration, signed, until it was taken.

Decides whom an alert is told, what an answer means, and when it is tried again: at least once, in no fixed order, for a
day. A thread for each URL, so that a slow receiver holds up no other and no segment; one that fails is left alone for a
while. What was told stands in `control.deliveries`; a load that starts again tells what the table `alerts` has beyond
that. How a POST is made, and where it may go, is decided by `load.posting`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import msgspec
from msgspec import Struct

from fleetgate import log
from fleetgate.clock import Clock, Entropy
from fleetgate.config import Config, Webhook
from fleetgate.control.deliveries import note_told, told
from fleetgate.control.store import Store
from fleetgate.errors import ClickHouseAway, ConfigError, ControlAway
from fleetgate.load.circuit import Circuit
from fleetgate.load.clickhouse import Refused
from fleetgate.load.counts import Counts
from fleetgate.load.posting import Poster, PostFailed
from fleetgate.load.signature import signature, webhook_secret
from fleetgate.load.steady import Steady

TRY_MS: Final = 24 * 3_600_000
"""So long an alert is told again to a receiver that does not take it; and so far back a load looks that starts."""

MAX_WAITING: Final = 1_000  # alerts for one receiver; a fleet has a handful a day
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 600.0
_RESUME_PAUSE_S: Final = 5.0
_END_SECONDS: Final = 1.0  # for a POST under way when load ends; else it is made again at the next start
_NEVER_TAKEN: Final = frozenset({400, 413, 415, 422})
"""What is wrong is this alert, to that receiver. Everything else but 2xx is the receiver's state or address."""

Event = Mapping[str, Any]
Since = Callable[[int], Sequence[Event]]
"""Events of alerts from a time on. Raises ClickHouseAway, Refused."""


class Waiting(Struct):
    delivery: str
    body: bytes
    until_ms: int
    due_s: float = 0.0
    tries: int = 0


class Endpoint:
    """One URL, without its thread: `step` does what is due."""

    def __init__(
        self,
        settings: Webhook,
        secret: bytes,
        poster: Poster,
        store: Callable[[], Store],
        counts: Counts,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self.name = hashlib.sha256(settings.url.encode()).hexdigest()
        self._tenants = frozenset(settings.tenants)
        self._secret = secret
        self._poster = poster
        self._store = store
        self._counts = counts
        self._clock = clock
        self._entropy = entropy
        self._log = log.get("load")
        self._circuit = Circuit()
        self._lock = threading.Lock()
        self._waiting: dict[str, Waiting] = {}
        self._said = ""

    def take(self, event: Event) -> None:
        """Puts it in line. Never blocks."""
        if self._tenants and event["tenant"] not in self._tenants:
            return
        waiting = Waiting(_delivery(event), msgspec.json.encode(event), self._clock.now_ms() + TRY_MS)
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                self._counts.webhook_deliveries.labels("dropped").inc()
            elif self._waiting.setdefault(waiting.delivery, waiting) is waiting:
                self._counts.webhooks_waiting.inc()

    def resume(self, since: Since) -> None:
        """Puts in line what was not told before this start. Raises ControlAway, ConfigError, ClickHouseAway,
        Refused."""
        begun_at_ms, deliveries = told(self._store(), self.name)
        for event in since(max(begun_at_ms, self._clock.now_ms() - TRY_MS)):
            if _delivery(event) not in deliveries:
                self.take(event)

    def step(self) -> float:
        """Tells one alert if one is due; how long there is nothing to do then, at most a minute."""
        now_s = self._clock.monotonic()
        with self._lock:
            waiting = min(self._waiting.values(), key=lambda waiting: waiting.due_s, default=None)
        if waiting is None:
            return 60.0
        wait_s = max(waiting.due_s - now_s, self._circuit.wait_s(now_s))
        if wait_s > 0:
            return min(60.0, wait_s)
        self._tell(waiting)
        return 0.0

    def _tell(self, waiting: Waiting) -> None:
        at_s = self._clock.now_ms() // 1000
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "fleetgate",
            "Fleetgate-Delivery": waiting.delivery,
            "Fleetgate-Signature": signature(self._secret, at_s, waiting.body),
        }
        try:
            status = self._poster.post(waiting.body, headers)
        except PostFailed as error:
            self._failed(waiting, str(error))
            return
        if 200 <= status < 300 or status in _NEVER_TAKEN:
            self._answered(waiting, status)
        else:
            self._failed(waiting, f"it answers {status}" + ("; nothing is followed elsewhere" * (300 <= status < 400)))

    def _answered(self, waiting: Waiting, status: int) -> None:
        self._circuit.good()
        self._counts.webhook_deliveries.labels("refused" if status in _NEVER_TAKEN else "delivered").inc()
        facts = {"host": self._poster.host, "delivery": waiting.delivery, "status": status}
        if status in _NEVER_TAKEN:
            self._log.warning("webhook_refuses", **facts)
        elif self._said:
            self._log.warning("webhook_takes_again", **facts)
        self._said = ""
        self._done(waiting)

    def _failed(self, waiting: Waiting, why: str) -> None:
        now_s, jitter = self._clock.monotonic(), 0.5 + int.from_bytes(self._entropy(2)) / 0x20000
        waiting.tries += 1
        waiting.due_s = now_s + jitter * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(waiting.tries, 16))
        self._circuit.bad(now_s, jitter)
        self._counts.webhook_deliveries.labels("failed").inc()
        if why != self._said:
            self._said = why
            self._log.error("webhook_fails", host=self._poster.host, error=why)
        if self._clock.now_ms() >= waiting.until_ms:
            self._counts.webhook_deliveries.labels("dropped").inc()
            self._log.error("webhook_not_told", host=self._poster.host, delivery=waiting.delivery)
            self._done(waiting)

    def _done(self, waiting: Waiting) -> None:
        self._drop(waiting.delivery)
        try:
            note_told(self._store(), self.name, waiting.delivery, self._clock.now_ms() - 2 * TRY_MS)
        except (ControlAway, ConfigError) as error:  # a load that starts again will tell it once more
            self._log.warning("webhook_not_on_record", error=str(error))

    def _drop(self, delivery: str) -> None:
        with self._lock:
            if self._waiting.pop(delivery, None) is not None:
                self._counts.webhooks_waiting.dec()


def _delivery(event: Event) -> str:
    """The same whenever the same is told, so that a receiver knows what it has already."""
    return f"{event['alert_id']}-{event['event'].rpartition('.')[2]}"


class Webhooks:
    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._threads: list[Steady] = []
        self._resumed: set[str] = set()

    def deliver(self, event: Event) -> None:
        """Never blocks, raises nothing."""
        for endpoint in self._endpoints:
            endpoint.take(event)
        for thread in self._threads:
            thread.wake()

    @contextmanager
    def telling(self, since: Since) -> Iterator[None]:
        """A thread for each endpoint, in the block."""
        self._threads = [
            Steady("webhook", partial(self._step, endpoint, since), end_s=_END_SECONDS) for endpoint in self._endpoints
        ]
        with ExitStack() as entered:
            for thread in self._threads:
                entered.enter_context(thread)
            yield

    def _step(self, endpoint: Endpoint, since: Since) -> float:
        """What came since the start goes first: what keeps the rest from being read keeps no news back."""
        wait_s = endpoint.step()
        if endpoint.name in self._resumed:
            return wait_s
        try:
            endpoint.resume(since)
        except (ControlAway, ConfigError, ClickHouseAway, Refused):  # said by those who need these for more
            return min(wait_s, _RESUME_PAUSE_S)
        self._resumed.add(endpoint.name)
        return 0.0


def endpoints(
    config: Config, store: Callable[[], Store], counts: Counts, clock: Clock, entropy: Entropy
) -> list[Endpoint]:
    """Raises ConfigError for a secret that cannot be used."""
    return [
        Endpoint(
            settings,
            webhook_secret(config.path(settings.secret_file)),
            Poster(settings.url, settings.allow_private),
            store,
            counts,
            clock,
            entropy,
        )
        for settings in config.webhooks
    ]
