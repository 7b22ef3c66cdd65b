"""The control database goes wrong: locked by another process, missing for a while, restored from an older day.

Cars that were revoked, banned and suspended before it try to get in all the while, and nobody of them may.
"""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fleetgate.control.quarantine import Origin, apply_transition
from fleetgate.load.records import transition_of
from fleetgate.spool.format import TransitionRecord
from tests.faults.processes import restart
from tests.faults.registry import fault
from tests.faults.trial import Trial
from tests.gate import Car, Installation, now_ms, until
from tests.mqtt_peer import Ended, MqttPeer, told

LOCKED_SECONDS, WRITER_SECONDS = 20.0, 6.0
PAUSE_SECONDS = 0.1
EFFECT_SECONDS = 10.0  # two, and a machine that is busy with other things
LEAST_TRIES = 5
_COME_BACK = 0x88
_WAL_LOCKS = (8, 120)  # length and start of the locks in the -shm file (sqlite.org/walformat.html, section 2.3.1)
_FILES = ("control.db", "control.db-wal", "control.db-shm")

_DENIALS: dict[str, Callable[[Installation, Car], None]] = {
    "revoked": Installation.revoke,
    "banned": Installation.ban,
    "suspended": Installation.suspend,
}


class Denied:
    """A car for each way to be denied. While entered all of them try to connect, again and again."""

    def __init__(self, trial: Trial, name: str) -> None:
        home = trial.home
        self._gate = trial.edge
        self.cars = {reason: home.enrol(f"{name}-{reason}") for reason in _DENIALS}
        self.codes: Counter[tuple[str, int]] = Counter()
        self.admitted: list[str] = []
        self._trouble: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="denied", daemon=True)
        trial.bystanders |= {(car.tenant, car.device_id, car.vehicle_id) for car in self.cars.values()}

    def deny(self, home: Installation) -> None:
        for reason, car in self.cars.items():
            _DENIALS[reason](home, car)

    def __enter__(self) -> Denied:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for reason, car in self.cars.items():
                    self._try(reason, car)
                self._stop.wait(PAUSE_SECONDS)
        except Exception:  # asserted by the fault: nothing goes wrong unseen in a thread
            self._trouble.append(traceback.format_exc())

    def _try(self, reason: str, car: Car) -> None:
        """Whom the gate lets in sends something, for the oracle to find."""
        try:
            with MqttPeer(self._gate, car, deadline_s=8) as peer:
                code = int(peer.greet().reason_code)
                self.codes[reason, code] += 1
                if code == 0:
                    self.admitted.append(reason)
                    self.admitted.append(str(told(peer.ask(car.sign(1, len(self.admitted))))))
        except (Ended, OSError):
            pass  # the edge is down, or waits for control

    def kept_out(self) -> None:
        """Waits until each of them was refused some more, then looks at all that they were ever told."""
        before = self.codes.copy()

        def tried_again() -> bool:
            return all(self._refused(self.codes, r) >= self._refused(before, r) + LEAST_TRIES for r in self.cars)

        until(tried_again, f"the denied are refused again: {before}, {self._trouble}", 30)
        assert not self.admitted, f"they were denied, and let in: {self.admitted}"
        assert not self._trouble, self._trouble

    @staticmethod
    def _refused(codes: Counter[tuple[str, int]], reason: str) -> int:
        """For good: not only told to come back."""
        return sum(count for (of, code), count in codes.items() if of == reason and code not in (0, _COME_BACK))


def _noticed(trial: Trial) -> None:
    """Waits until the edge has taken over all that stands in control."""
    with trial.home.control() as store:
        revision = store.revision()
    until(lambda: trial.edge.metric("fleetgate_control_revision") >= revision, "the edge knows it", EFFECT_SECONDS)


@contextmanager
def _denied(trial: Trial) -> Iterator[Denied]:
    """They were denied, and the edge was told so."""
    denied = Denied(trial, "denied")
    denied.deny(trial.home)
    _noticed(trial)
    with denied:
        denied.kept_out()
        yield denied


def _still_obeyed(trial: Trial, denied: Denied, name: str) -> None:
    """What is denied from now on takes effect, and what was denied before stands."""
    later = Denied(trial, name)
    later.deny(trial.home)
    _refuses(trial, later)
    denied.kept_out()


def _refuses(trial: Trial, later: Denied) -> None:
    for reason, car in later.cars.items():
        until(lambda: _code(trial, car) not in (0, _COME_BACK, None), f"who is {reason} is out", EFFECT_SECONDS)  # noqa: B023


def _code(trial: Trial, car: Car) -> int | None:
    try:
        with MqttPeer(trial.edge, car, deadline_s=8) as peer:
            return int(peer.greet().reason_code)
    except (Ended, OSError):
        return None


@fault("Another process locks control: first for writers, then for 20 s for everybody; fleet and load go on.")
def control_locked(trial: Trial) -> None:
    newcomer = trial.home.enrol("newcomer")
    trial.bystanders.add((newcomer.tenant, newcomer.device_id, newcomer.vehicle_id))
    with _denied(trial) as denied:
        with closing(sqlite3.connect(trial.directory / "control.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            time.sleep(WRITER_SECONDS)
            other.execute("ROLLBACK")
        with (trial.directory / "control.db-shm").open("r+b") as shared_memory:
            fcntl.lockf(shared_memory, fcntl.LOCK_EX, *_WAL_LOCKS)
            until_s = time.monotonic() + LOCKED_SECONDS
            until(lambda: trial.edge.metric("fleetgate_control_answers") == 0, "control is away", EFFECT_SECONDS)
            assert _code(trial, newcomer) == _COME_BACK, "nobody knows yet who that is"
            trial.fleet.fresh()
            time.sleep(max(0.0, until_s - time.monotonic()))
        until(lambda: _code(trial, newcomer) == 0, "the newcomer gets in", EFFECT_SECONDS)
        _still_obeyed(trial, denied, "later")


@fault("The control database is moved away, load is killed meanwhile and starts without it; then it is moved back.")
def control_missing(trial: Trial) -> None:
    elsewhere = trial.directory / "elsewhere"
    elsewhere.mkdir()
    newcomer = trial.home.enrol("newcomer")
    trial.bystanders.add((newcomer.tenant, newcomer.device_id, newcomer.vehicle_id))
    with _denied(trial) as denied:
        _move(trial.directory, elsewhere)
        until(lambda: trial.edge.metric("fleetgate_control_answers") == 0, "control is away", EFFECT_SECONDS)
        trial.load.kill()
        trial.load.launch()
        assert _code(trial, newcomer) == _COME_BACK, "nobody knows who that is"
        trial.fleet.fresh()
        trial.pass_time(1, 3)
        assert not (trial.directory / "control.db").exists(), "somebody made an empty one"
        _move(elsewhere, trial.directory)
        trial.load.await_ready()
        until(lambda: _code(trial, newcomer) == 0, "the newcomer gets in", EFFECT_SECONDS)
        _still_obeyed(trial, denied, "later")


def _move(source: Path, target: Path) -> None:
    for name in _FILES:
        if (source / name).exists():
            (source / name).rename(target / name)


@fault("Control is restored from an older day and goes on beyond the numbers of before: into the running gate, by "
       "another file, and before a start.")  # fmt: skip
def control_restored(trial: Trial) -> None:
    control = trial.directory / "control.db"
    denied = Denied(trial, "denied")
    waves = [Denied(trial, f"wave-{number}") for number in range(3)]
    yesterday = Installation(trial.directory / "yesterday")
    shutil.copytree(trial.directory / "pki", yesterday.directory / "pki")
    _backup(control, yesterday.directory / "control.db")
    denied.deny(trial.home)
    _noticed(trial)
    with denied:
        for wave, restore in zip(waves, (_into_the_running_gate, _by_another_file, _before_a_start), strict=True):
            denied.kept_out()
            next_day = Installation(trial.directory / f"next-{restore.__name__}")
            shutil.copytree(yesterday.directory, next_day.directory)
            wave.deny(next_day)
            _go_on(next_day, denied, int(trial.edge.metric("fleetgate_control_revision")) + 30)
            restore(trial, next_day.directory / "control.db")
            _refuses(trial, wave)
            trial.fleet.fresh()
        for wave in waves:  # of which each restore but the last has lost the one before
            _refuses(trial, wave)
        _still_obeyed(trial, denied, "later")


def _backup(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as of, closing(sqlite3.connect(target)) as into:
        of.backup(into)


def _go_on(home: Installation, denied: Denied, revision: int) -> None:
    """Changes that a machine makes, of cars whose denials these records have lost."""
    with home.control() as store:
        for number in range(store.revision(), revision):
            car = list(denied.cars.values())[number % len(denied.cars)]
            at_ms = now_ms()
            record = TransitionRecord(car.tenant, car.device_id, "trusted", "watched", at_ms, "bad_mac", 50.0, "1")
            apply_transition(store, Origin("00" * 16, 1, number), transition_of(record))


def _into_the_running_gate(trial: Trial, source: Path) -> None:
    """In one transaction: between two polls of the edge everything is another."""
    _backup(source, trial.directory / "control.db")


def _by_another_file(trial: Trial, source: Path) -> None:
    """Under the name of the one that edge and load have open."""
    for name in _FILES[1:]:
        (trial.directory / name).unlink(missing_ok=True)
    source.rename(trial.directory / "control.db")


def _before_a_start(trial: Trial, source: Path) -> None:
    trial.edge.kill()
    _by_another_file(trial, source)
    restart(trial.edge)
