"""Control does not answer: who is known goes on for a while, flagged; who is not is neither let in nor refused."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

from tests.gate import START_SECONDS, Car, Gate, NewGate, until
from tests.http_peer import Answer, HttpPeer
from tests.mqtt_peer import MqttPeer, told

STALE_REVOCATION = 16
_WAL_LOCKS = (8, 120)  # length and start of the locks in the -shm file (sqlite.org/walformat.html, section 2.3.1)


@contextmanager
def locked(gate: Gate) -> Iterator[None]:
    """Holds every lock of the control database, as a process that hangs inside it would."""
    with (gate.home.directory / "control.db-shm").open("r+b") as shared_memory:
        fcntl.lockf(shared_memory, fcntl.LOCK_EX, *_WAL_LOCKS)
        yield


@contextmanager
def broken(gate: Gate) -> Iterator[None]:
    """Takes the tables away, and puts them back: every query fails at once."""
    with closing(sqlite3.connect(gate.home.directory / "control.db", isolation_level=None)) as control:
        for table in ("meta", "devices"):
            control.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
        yield
        for table in ("meta", "devices"):
            control.execute(f"ALTER TABLE {table}_away RENAME TO {table}")


def test_a_device_not_in_memory_is_told_to_come_back(new_gate: NewGate) -> None:
    """While the database is locked: CONNACK 0x88 and 503 with Retry-After; afterwards it is let in."""
    gate = new_gate()
    first, second = gate.home.enrol("first"), gate.home.enrol("second")

    def connect() -> int:
        with MqttPeer(gate, first) as peer:
            return int(peer.greet().reason_code)

    def post() -> Answer:
        with HttpPeer(gate, second) as peer:
            return peer.post(second.sign(1, 0))

    with ThreadPoolExecutor(2) as threads:
        with locked(gate):
            code, answer = threads.submit(connect), threads.submit(post)
            assert (code.result(15), answer.result(15).status) == (0x88, 503)
            assert int(answer.result().headers["retry-after"]) > 0
        until(lambda: connect() == 0, "control is back")
        assert post().status == 202


def _flags(gate: Gate, peer: MqttPeer, car: Car, seq: int) -> int:
    assert told(peer.ask(car.sign(1, seq))) == (0, None)
    return gate.stored(car)[-1].flags


def test_live_sessions_go_on_and_their_rows_are_flagged(new_gate: NewGate) -> None:
    """Acknowledged as before with `stale_revocation`; a known device may connect anew; the flag goes at the end."""
    gate = new_gate()
    car = gate.home.enrol("one")
    with MqttPeer(gate, car) as peer:
        assert _flags(gate, peer.hello(), car, 0) == 0
        with broken(gate):
            numbers = iter(range(1, 1000))
            until(lambda: _flags(gate, peer, car, next(numbers)) == STALE_REVOCATION, "rows are flagged")
            with MqttPeer(gate, car) as again:
                assert _flags(gate, again.hello(), car, 5000) == STALE_REVOCATION
        with MqttPeer(gate, car) as again:
            again.hello()
            later = iter(range(6000, 7000))
            until(lambda: _flags(gate, again, car, next(later)) == 0, "the flag is gone")


def test_after_the_grace_nobody_is_let_in_any_more(new_gate: NewGate) -> None:
    """Live sessions end with 0x89, known devices are told to come back, and come back when control does."""
    gate = new_gate(edge={"control_grace_seconds": 1})
    car = gate.home.enrol("one")
    with MqttPeer(gate, car) as peer, HttpPeer(gate, car) as client:
        peer.hello().ask(car.sign(1, 0))
        with broken(gate):
            assert peer.farewell().reason_code == 0x89
            with MqttPeer(gate, car) as again:
                assert again.greet().reason_code == 0x88
            assert client.post(car.sign(1, 1)).status == 503
        until(lambda: client.post(car.sign(1, 1)).status == 202, "control is back")


def test_a_restored_older_database_lets_nobody_in_again(new_gate: NewGate) -> None:
    """A revocation that the edge has seen holds against a control database that does not have it, and is alarmed."""
    gate = new_gate()
    car = gate.home.enrol("one")
    control = gate.home.directory / "control.db"
    with closing(sqlite3.connect(control)) as source, closing(sqlite3.connect(f"{control}.backup")) as copy:
        source.backup(copy)
    gate.home.revoke(car)
    until(lambda: gate.metric("fleetgate_control_revision") == 2, "the edge has seen the revocation")
    gate.kill()
    for name in ("control.db", "control.db-wal", "control.db-shm"):
        (gate.home.directory / name).unlink(missing_ok=True)
    (gate.home.directory / "control.db.backup").rename(control)
    gate.start()
    with MqttPeer(gate, car) as peer:
        assert peer.greet().reason_str == "revoked"
    until(lambda: gate.metric("fleetgate_control_older_than_seen") == 1, "the older database is alarmed")


def test_an_edge_that_starts_while_control_is_away_waits_for_it(new_gate: NewGate) -> None:
    """A disk that is mounted late, a backup that is being put back: nobody has to start it again."""
    gate = new_gate()
    car = gate.home.enrol("one")
    gate.kill()
    control = gate.home.directory / "control.db"
    away = control.rename(f"{control}.away")
    gate.launch()
    until(lambda: "waiting_for_control" in gate.log(), "it waits", START_SECONDS)
    away.rename(control)
    gate.await_ready()
    with MqttPeer(gate, car) as peer:
        assert told(peer.hello().ask(car.sign(1, 0))) == (0, None)
