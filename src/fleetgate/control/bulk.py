"""Enrols many devices from a list, so that it can be killed at any moment and run again.

Invariants
- A bundle that stands at its place, OUT/TENANT/DEVICE, is that of an enrolled device.
- A device enrolled here has its bundle on the disk: at its place, or in OUT/.enrolling, where the next run finds it.

So the order is: the bundles of a batch into OUT/.enrolling, durable; the commit; then each is renamed to its place.
What a killed run left in OUT/.enrolling goes to its place where its certificate is on record, and is deleted where it
is not: nobody was given those keys. A batch is one transaction, in which each device is a part of its own: a bad row
costs only itself. Which enrolments are possible is decided by `control.devices`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from fleetgate.control.bundle import is_on_record, stage_bundle, sync_bundles
from fleetgate.control.devices import Enrolment, check_names, enrol
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.records import CredentialStatus, DeviceRecord, DeviceStatus
from fleetgate.control.store import Store, Write
from fleetgate.durable import sync_directory
from fleetgate.errors import CheckFailed, ConfigError, Conflict, NotFound

BATCH = 40  # devices in one transaction: it holds the database for some 0.2 s
PAUSE_SECONDS = 0.15
"""Between two transactions. SQLite knows no queue: who waits for it looks again each 100 ms, and back to back they
would keep a revocation out for seconds."""
STAGING = ".enrolling"  # no tenant's name: those begin with a letter or a digit
_REFUSALS = (ConfigError, Conflict, NotFound, CheckFailed)


class Row(Struct, frozen=True):
    """A device of the list; `line` is where it stands there. `trouble`: why it cannot be read."""

    line: int
    tenant: str = ""
    vehicle_id: str = ""
    device_id: str = ""
    csr: bytes | None = None
    trouble: str | None = None


class Tally(Struct):
    """`before`: enrolled by an earlier run, or by other means; `elsewhere`: those of them whose bundle is not here."""

    enrolled: int = 0
    before: int = 0
    elsewhere: int = 0
    refused: int = 0


class Bulk:
    """One run. `issuers` is called in each transaction: the keyring may be another one by then. `on_refused` is called
    with the line and the reason, `on_progress` with the rows done."""

    def __init__(
        self,
        store: Store,
        actor: str,
        issuers: Callable[[], tuple[Authority, Keyring]],
        out: Path,
        days: int,
        on_refused: Callable[[int, str], None],
        on_progress: Callable[[int], None],
    ) -> None:
        self.tally = Tally()
        self._store = store
        self._actor = actor
        self._issuers = issuers
        self._out = out
        self._days = days
        self._on_refused = on_refused
        self._on_progress = on_progress
        self._refused: list[tuple[int, str]] = []

    def run(self, rows: Sequence[Row]) -> Tally:
        """Raises Conflict while another run works on the same directory, ConfigError where it cannot be written,
        ControlAway. Run again, it goes on where it ended."""
        seen: dict[tuple[str, str], int] = {}
        with _writing(self._out), _alone(self._out):
            self._recover()
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH]
                try:
                    self._enrol([row for row in batch if self._readable(row, seen)])
                finally:
                    self._tell_refused()
                self._on_progress(len(batch))
            shutil.rmtree(self._out / STAGING, ignore_errors=True)
        return self.tally

    def _readable(self, row: Row, seen: dict[tuple[str, str], int]) -> bool:
        first = seen.setdefault((row.tenant, row.device_id), row.line)
        try:
            if row.trouble is not None:
                raise ConfigError(row.trouble)
            check_names(row.tenant, row.vehicle_id, row.device_id)
            if first != row.line:
                raise Conflict(f"the same device as in line {first}")
        except _REFUSALS as error:
            self._refuse(row, str(error))
            return False
        return True

    def _refuse(self, row: Row, why: str) -> None:
        self.tally.refused += 1
        self._refused.append((row.line, why))

    def _tell_refused(self) -> None:
        """In the order of the lines: some are refused before the batch is begun, others in it."""
        for line, why in sorted(self._refused):
            self._on_refused(line, why)
        self._refused.clear()

    def _enrol(self, batch: list[Row]) -> None:
        records = self._store.devices([(row.tenant, row.device_id) for row in batch])
        todo = [row for row in batch if not self._is_there(row, records.get((row.tenant, row.device_id)))]
        if not todo:
            return
        with self._store.write(self._actor) as write:
            authority, keyring = self._issuers()
            enrolments = (self._enrol_one(write, authority, keyring, row) for row in todo)
            made = [enrolment for enrolment in enrolments if enrolment is not None]
            for enrolment in made:
                stage_bundle(self._staged(enrolment), enrolment)
            sync_bundles(self._staged(enrolment) for enrolment in made)
        for enrolment in made:
            self._place(self._staged(enrolment))
        for tenant in {enrolment.tenant for enrolment in made}:
            sync_directory(self._out / tenant)
        self.tally.enrolled += len(made)
        time.sleep(PAUSE_SECONDS)

    def _is_there(self, row: Row, record: DeviceRecord | None) -> bool:
        if record is None or record.status is not DeviceStatus.ACTIVE or record.vehicle_id != row.vehicle_id:
            return False
        if not any(entry.status is CredentialStatus.ACTIVE for entry in record.credentials):
            return False
        self.tally.before += 1
        self.tally.elsewhere += not (self._out / row.tenant / row.device_id).exists()
        return True

    def _enrol_one(self, write: Write, authority: Authority, keyring: Keyring, row: Row) -> Enrolment | None:
        try:
            with write.part():
                enrolment = enrol(
                    write,
                    authority,
                    keyring,
                    row.tenant,
                    row.vehicle_id,
                    row.device_id,
                    self._days,
                    row.csr,
                )
                if (self._out / row.tenant / row.device_id).exists():
                    raise Conflict(f"{self._out / row.tenant / row.device_id} exists already: move it away")
        except _REFUSALS as error:
            self._refuse(row, str(error))
            return None
        return enrolment

    def _staged(self, enrolment: Enrolment) -> Path:
        return self._out / STAGING / enrolment.tenant / enrolment.device_id

    def _place(self, staged: Path) -> None:
        place = self._out / staged.parent.name / staged.name
        place.parent.mkdir(exist_ok=True)
        staged.rename(place)

    def _recover(self) -> None:
        """Finishes what a killed run left."""
        for staged in sorted((self._out / STAGING).glob("*/*")):
            if is_on_record(self._store, staged):
                self._place(staged)
            else:
                shutil.rmtree(staged)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """What goes wrong on the disk ends the run; it is nobody's row."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot write into {out}: {error.strerror}; mend that and run the same again") from None


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """The lock goes with the process, however it ends."""
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another `fleetgate device enroll-many` is at work in {out}: wait until it ends") from None
        yield
    finally:
        os.close(descriptor)
