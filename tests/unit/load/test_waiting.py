"""What load says it waits for: where the spool's own disk is the cause, ClickHouse is not called away."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from fleetgate.catalogue import catalogue
from fleetgate.clock import SystemClock
from fleetgate.errors import ClickHouseAway, SpoolError
from fleetgate.load.alerts import Alerts
from fleetgate.load.counts import Counts
from fleetgate.load.inserts import Inserts
from fleetgate.load.loader import Loader, Settings, Stopped
from fleetgate.load.progress import Progress
from fleetgate.load.release import Releases
from fleetgate.load.transitions import Transitions
from fleetgate.load.unknown import UnknownNames


class Noted:
    """In the place of ClickHouse: which rows came under which token."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    def insert(self, _table: str, _rows: pa.Table, token: str) -> None:
        self.tokens.append(token)


@pytest.fixture
def counts() -> Counts:
    return Counts(CollectorRegistry())


@pytest.fixture
def inserts(tmp_path: Path, counts: Counts) -> Inserts:
    clickhouse: Any = Noted()
    return Inserts(clickhouse, counts, tmp_path)


@pytest.mark.parametrize(
    ("error", "cause", "away"),
    [(ClickHouseAway("no answer"), "ClickHouse", 1), (SpoolError("cannot write chain.json"), "spool", 0)],
)
def test_the_cause_of_waiting_is_told(
    tmp_path: Path, inserts: Inserts, counts: Counts, error: Exception, cause: str, away: int
) -> None:
    """A full disk at `chain.json` is no ClickHouse that is away, though it is met on the way there."""
    stop = threading.Event()
    stop.set()
    loader = Loader(
        Settings(tmp_path, 0.05),
        inserts,
        catalogue(),
        Transitions(tmp_path, lambda *_: "applied", lambda _: None, counts, stop),
        Alerts(inserts._clickhouse, counts, SystemClock()),
        Progress(lambda *_: None, lambda *_: None),
        Releases(inserts._clickhouse, lambda _: [], lambda *_: [], counts, SystemClock()),
        counts,
        SystemClock(),
        os.urandom,
        stop,
    )

    def fails(_: int) -> None:
        raise error

    with pytest.raises(Stopped):
        loader._insist("ClickHouse", fails)
    assert (counts.retries.labels(cause)._value.get(), counts.away._value.get()) == (1, away)
    assert loader.unready() == str(error)


def test_other_names_have_another_token(inserts: Inserts) -> None:
    """Under the token of others of the same millisecond ClickHouse would drop them; a repetition has its own again."""
    names = UnknownNames({})
    for name in ("Foo.One", "Foo.Two"):
        names.admit("acme", name)
        inserts._insert_names(names, 1_000)
    again = UnknownNames({})
    again.admit("acme", "Foo.One")
    inserts._insert_names(again, 2_000)
    clickhouse: Any = inserts._clickhouse
    first, second, third = clickhouse.tokens
    assert first != second
    assert first == third
