"""What load says it waits for: where the spool's own disk is the cause, ClickHouse is not called away."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from fleetgate.errors import ClickHouseAway, SpoolError
from fleetgate.load.counts import Counts
from fleetgate.load.inserts import Inserts
from fleetgate.load.patience import Patience, Stopped
from fleetgate.load.unknown import UnknownNames
from fleetgate.sdnotify import ServiceManager


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
def test_the_cause_of_waiting_is_told(counts: Counts, error: Exception, cause: str, away: int) -> None:
    """A full disk at `chain.json` is no ClickHouse that is away, though it is met on the way there."""
    stop = threading.Event()
    stop.set()
    patience = Patience(0.05, lambda: None, counts, os.urandom, stop, ServiceManager({}))

    def fails(_: int) -> None:
        raise error

    with pytest.raises(Stopped):
        patience.insist("ClickHouse", fails)
    assert (counts.retries.labels(cause)._value.get(), counts.away._value.get()) == (1, away)
    assert patience.why == str(error)


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
