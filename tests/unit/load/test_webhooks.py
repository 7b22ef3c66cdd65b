"""A webhook is told each alert at least once, signed, until it took it; one that fails costs nobody anything."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from tests.receivers import OK, Receiver, receiver, saying
from tests.unit.control.conftest import SetClock

from fleetgate.config import Config, Webhook
from fleetgate.configfile import load
from fleetgate.control.store import Store
from fleetgate.errors import ConfigError, ControlAway
from fleetgate.load import steady, webhooks
from fleetgate.load.circuit import FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, Circuit
from fleetgate.load.counts import Counts
from fleetgate.load.posting import Poster
from fleetgate.load.signature import webhook_secret
from fleetgate.load.webhooks import TRY_MS, Endpoint, Webhooks

SECRET = b"0123456789abcdef"
BAD = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
NEVER = b"HTTP/1.1 422 Unprocessable\r\nContent-Length: 0\r\n\r\n"


def opening(number: int = 1, tenant: str = "acme") -> dict[str, Any]:
    return {"event": "alert.opened", "alert_id": f"{number:016x}", "tenant": tenant, "kind": "silent_vehicles"}


class Bench:
    """Makes endpoints on one control database, with a clock that is set by hand."""

    def __init__(self, directory: Path) -> None:
        self.clock = SetClock()
        self.config = msgspec.structs.replace(Config(), home=str(directory))
        self.store = Store.open(self.config, self.clock, create=True)
        self.registry = CollectorRegistry()
        self.counts = Counts(self.registry)

    def endpoint(self, found: Receiver, **settings: Any) -> Endpoint:
        entry = Webhook(url=found.url(), secret_file="x", allow_private=True, **settings)
        return Endpoint(
            entry, SECRET, Poster(entry.url, True), lambda: self.store, self.counts, self.clock, lambda n: b"\x80" * n
        )

    def metric(self, outcome: str) -> float:
        return self.registry.get_sample_value("fleetgate_webhook_deliveries_total", {"outcome": outcome}) or 0

    def waiting(self) -> float | None:
        return self.registry.get_sample_value("fleetgate_webhook_deliveries_waiting")

    def later(self, seconds: float) -> None:
        self.clock.ms += int(seconds * 1000) + 1


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    found.store.close()


def test_an_alert_is_told_signed_with_the_time(bench: Bench) -> None:
    """Over the bytes as they came."""
    with receiver(saying(OK)) as found:
        endpoint = bench.endpoint(found)
        endpoint.take(opening())
        assert (bench.waiting(), endpoint.step(), bench.waiting()) == (1, 0, 0)
        [(headers, body)] = found.requests
    assert json.loads(body) == opening()
    at_s = bench.clock.now_ms() // 1000
    mac = hmac.new(SECRET, f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    assert headers["fleetgate-signature"] == f"t={at_s},v1={mac}"
    assert headers["fleetgate-delivery"] == f"{1:016x}-opened"
    assert headers["request"].startswith("POST /alerts?key=")
    assert (bench.metric("delivered"), endpoint.step()) == (1, 60)


def test_what_was_not_taken_is_told_again_later_and_signed_anew(bench: Bench) -> None:
    """The same delivery, so that the receiver knows what it has."""
    with receiver(saying(BAD, OK)) as found:
        endpoint = bench.endpoint(found)
        endpoint.take(opening())
        endpoint.step()
        wait_s = endpoint.step()
        assert wait_s > 0
        bench.later(wait_s)
        assert endpoint.step() == 0
        (first, body), (second, body_again) = found.requests
    assert (first["fleetgate-delivery"], body) == (second["fleetgate-delivery"], body_again)
    assert first["fleetgate-signature"] != second["fleetgate-signature"]
    assert (bench.metric("failed"), bench.metric("delivered"), bench.waiting()) == (1, 1, 0)


def test_pauses_grow_up_to_a_bound(bench: Bench) -> None:
    """Whatever the receiver does for hours."""
    with receiver(saying(BAD)) as found:
        endpoint = bench.endpoint(found)
        endpoint.take(opening())
        pauses: list[float] = []
        while len(pauses) < 14:
            wait_s = endpoint.step()
            if wait_s:
                pauses[-1] += wait_s
                bench.later(wait_s)
            else:
                pauses.append(0.0)
        assert pauses[0] < 3
        assert max(pauses) <= LONGEST_PAUSE_S


def test_what_no_one_takes_for_a_day_is_dropped_and_said(bench: Bench) -> None:
    """Not kept for ever."""
    with receiver(saying(BAD)) as found, capture_logs() as said:
        endpoint = bench.endpoint(found)
        endpoint.take(opening())
        bench.later(TRY_MS / 1000)
        endpoint.step()
    assert (bench.metric("dropped"), bench.waiting()) == (1, 0)
    assert said[-1]["event"] == "webhook_not_told"


def test_a_receiver_that_refuses_one_alert_gets_the_others(bench: Bench) -> None:
    """It is not told that one again."""
    with receiver(saying(NEVER, OK)) as found:
        endpoint = bench.endpoint(found)
        endpoint.take(opening(1))
        endpoint.take(opening(2))
        assert (endpoint.step(), endpoint.step(), endpoint.step()) == (0, 0, 60)
    assert (bench.metric("refused"), bench.metric("delivered")) == (1, 1)


def test_a_receiver_that_fails_is_left_alone_and_asked_once_in_a_while(bench: Bench) -> None:
    """However many alerts wait for it."""
    with receiver(saying(*[BAD] * (FAILURES + 1), OK)) as found:
        endpoint = bench.endpoint(found)
        for number in range(20):
            endpoint.take(opening(number))
        for _ in range(FAILURES):
            assert endpoint.step() == 0
        assert endpoint.step() > 10
        bench.later(FIRST_PAUSE_S)
        assert endpoint.step() == 0  # one try, which fails
        assert endpoint.step() > 10
        assert len(found.requests) == FAILURES + 1
        bench.later(2 * FIRST_PAUSE_S)
        for _ in range(20):
            assert endpoint.step() == 0
    assert (bench.metric("delivered"), bench.waiting()) == (20, 0)


def test_the_pauses_of_a_circuit() -> None:
    """Five failures in a row open it; one success closes it."""
    circuit = Circuit()
    for _ in range(FAILURES - 1):
        circuit.bad(0.0, 1.0)
    assert circuit.wait_s(0.0) == 0
    pauses = []
    for _ in range(12):
        circuit.bad(0.0, 1.0)
        pauses.append(circuit.wait_s(0.0))
    assert pauses[:3] == [30, 60, 120]
    assert max(pauses) == LONGEST_PAUSE_S
    assert circuit.wait_s(pauses[-1]) == 0
    circuit.good()
    assert circuit.wait_s(0.0) == 0


def test_only_alerts_of_its_tenants_are_told(bench: Bench) -> None:
    """And none of the gate's own, which have no tenant."""
    with receiver(saying(OK)) as found:
        endpoint = bench.endpoint(found, tenants=("acme",))
        for number, tenant in enumerate(("globex", "", "acme")):
            endpoint.take(opening(number, tenant))
        assert (endpoint.step(), endpoint.step()) == (0, 60)
        assert [json.loads(body)["tenant"] for _, body in found.requests] == ["acme"]


def test_the_line_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is counted."""
    monkeypatch.setattr(webhooks, "MAX_WAITING", 3)
    with receiver(saying(OK)) as found:
        endpoint = bench.endpoint(found)
        for number in range(5):
            endpoint.take(opening(number))
    assert (bench.waiting(), bench.metric("dropped")) == (3, 2)


# A load that starts again


def test_what_was_told_is_not_told_again_and_what_was_not_is(bench: Bench) -> None:
    """The records say which; what happened before the webhook was first seen is nobody's news."""
    asked: list[int] = []

    def since(at_ms: int) -> list[dict[str, Any]]:
        asked.append(at_ms)
        return [opening(1), opening(2)]

    with receiver(saying(OK)) as found:
        begun_at_ms = bench.clock.now_ms()
        endpoint = bench.endpoint(found)
        endpoint.resume(lambda at_ms: [])
        endpoint.take(opening(1))
        endpoint.step()
        bench.later(60)
        again = bench.endpoint(found)
        again.resume(since)
        assert (again.step(), again.step()) == (0, 60)
        assert [headers["fleetgate-delivery"][:16] for headers, _ in found.requests] == [f"{1:016x}", f"{2:016x}"]
        assert asked == [begun_at_ms]
        bench.later(3 * TRY_MS / 1000)
        bench.endpoint(found).resume(since)
        assert asked[1] == bench.clock.now_ms() - TRY_MS


def test_what_was_told_is_noted_in_one_transaction(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control has one writer at a time, and edges renew their devices with it."""
    with receiver(saying(OK)) as found:
        endpoint = bench.endpoint(found)
        endpoint.take(opening())
        writes = Mock(wraps=bench.store.write)
        monkeypatch.setattr(bench.store, "write", writes)
        assert endpoint.step() == 0
    writes.assert_called_once()


def test_records_that_are_away_hold_up_no_delivery(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be told once more after a start: the delivery's name tells the receiver."""

    def away(*_: object) -> None:
        raise ControlAway("away")

    monkeypatch.setattr(webhooks, "note_told", away)
    with receiver(saying(OK)) as found:
        endpoint = bench.endpoint(found)
        endpoint.take(opening())
        assert (endpoint.step(), endpoint.step()) == (0, 60)
        assert len(found.requests) == 1


# Threads


def until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_receiver_that_hangs_holds_up_nobody(bench: Bench) -> None:
    """Neither who raises the alert, nor the other receiver, nor the end."""
    stuck = threading.Event()

    def hang(connection: object) -> None:
        stuck.wait(20)

    with receiver(hang) as slow, receiver(saying(OK)) as quick:
        told = Webhooks([bench.endpoint(slow), bench.endpoint(quick)])
        with told.telling(lambda at_ms: []):
            for number in range(3):
                told.deliver(opening(number))
            until(lambda: len(quick.requests) == 3 and len(slow.requests) == 1)
        stuck.set()


def test_what_nobody_foresaw_ends_no_telling(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of what came since the start, nor of what was before it, once that can be read."""
    monkeypatch.setattr(steady, "PAUSE_SECONDS", 0.001)
    failing = [ValueError("nobody foresaw this"), KeyError("nor this")]

    def since(_at_ms: int) -> list[dict[str, Any]]:
        if failing:
            raise failing.pop()
        return [opening(1)]

    with receiver(saying(OK)) as found, capture_logs() as logs:
        told = Webhooks([bench.endpoint(found)])
        told.deliver(opening(2))
        with told.telling(since):
            until(lambda: len(found.requests) == 2)
    assert [(line["event"], line["thread"]) for line in logs] == [("unforeseen", "webhook")] * 2


def test_no_secret_and_no_path_of_a_url_reaches_the_log(bench: Bench) -> None:
    """The host says enough."""
    with receiver(saying(BAD, NEVER)) as found, capture_logs() as said:
        endpoint = bench.endpoint(found)
        endpoint.take(opening())
        endpoint.step()
        bench.later(60)
        endpoint.step()
    assert [line["event"] for line in said] == ["webhook_fails", "webhook_refuses"]
    for hidden in (SECRET.decode(), "of-the-receiver"):
        assert hidden not in json.dumps(said) + repr(endpoint.__dict__["_waiting"])


# The configuration


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ('url = "http://hooks.example/x"', "allow_private"),
        ('url = "ftp://hooks.example/x"', "https://HOST"),
        ('url = "https:///x"', "https://HOST"),
        ('url = "https://user:word@hooks.example/"', "no user"),
        ('url = "https://hooks.example/#x"', "no fragment"),
        ('url = "https://hooks.example/a b"', "without spaces"),
        ('url = "https://hooks.example:99999/"', "(?i)port"),
        ('url = "https://[::1/"', "(?i)invalid"),
        ('url = "https://hooks.example/"\nother = 1', "other"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused(tmp_path: Path, entry: str, why: str) -> None:
    """With what is wrong with it."""
    file = tmp_path / "fleetgate.toml"
    file.write_text(f'[[webhooks]]\nsecret_file = "hook.secret"\n{entry}\n')
    with pytest.raises(ConfigError, match=why):
        load(file, {})


def test_a_secret_that_others_may_read_or_guess_is_refused(tmp_path: Path) -> None:
    """Its text is in no error."""
    path = tmp_path / "hook.secret"
    path.write_bytes(b"short\n")
    os.chmod(path, 0o600)
    with pytest.raises(ConfigError, match="at least 16 bytes") as refused:
        webhook_secret(path)
    assert "short" not in str(refused.value)
    path.write_bytes(SECRET + b"\n")
    assert webhook_secret(path) == SECRET
    os.chmod(path, 0o644)
    with pytest.raises(ConfigError):
        webhook_secret(path)
