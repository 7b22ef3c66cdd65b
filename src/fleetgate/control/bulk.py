"""Enrols many devices from a list, so that it can be killed at any moment and run again.

Invariants
- A bundle that was handed over is that of an enrolled device.
- A device enrolled here has its bundle on the disk: handed over, or where the next run finds it.

So the order is: the bundles of a batch where they wait, durable; the commit; then they are handed over. What a killed
run left waiting is handed over where its certificate is on record, and is deleted where it is not: nobody was given
those keys. A batch is one transaction, in which each device is a part of its own, so that a bad row costs only itself;
those that the records know nothing of are one part together, as nothing can forbid them. Keys and certificates are made
between the transactions, when others may write. Which enrolments are possible is decided by `control.devices`, and by
`control.newcomers` for those; where bundles wait and go, by `control.directories` and `control.archive`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from msgspec import Struct

from fleetgate.control.devices import Enrolment, check_names, enrol
from fleetgate.control.keyring import Keyring
from fleetgate.control.newcomers import Newcomer, enrol_newcomers, make_newcomers, on_record
from fleetgate.control.pki import Authority
from fleetgate.control.records import CredentialStatus, DeviceRecord, DeviceStatus
from fleetgate.control.store import PAUSE_SECONDS, Store, Write
from fleetgate.errors import CheckFailed, ConfigError, Conflict, NotFound

_REFUSALS = (ConfigError, Conflict, NotFound, CheckFailed)


class Handover(Protocol):
    """Where bundles go. `batch`: how many devices in one transaction, which holds the database for some 0.2 s."""

    batch: int

    def working(self, store: Store) -> AbstractContextManager[None]:
        """The time of one run: what a killed one left is settled. Raises Conflict while another run works there, and
        turns what goes wrong on the disk, which is nobody's row, into ConfigError."""

    def has(self, tenant: str, device_id: str) -> bool:
        """Whether a bundle of this device was handed over."""

    def place_of(self, tenant: str, device_id: str) -> str:
        """What a person would look for."""

    def keep(self, enrolments: Sequence[Enrolment]) -> None:
        """Inside the transaction: durable when it returns."""

    def hand_over(self, enrolments: Sequence[Enrolment]) -> None:
        """Behind the commit."""


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
        handover: Handover,
        days: int,
        on_refused: Callable[[int, str], None],
        on_progress: Callable[[int], None],
    ) -> None:
        self.tally = Tally()
        self._store = store
        self._actor = actor
        self._issuers = issuers
        self._handover = handover
        self._days = days
        self._on_refused = on_refused
        self._on_progress = on_progress
        self._refused: list[tuple[int, str]] = []
        self._others_turn_until = 0.0

    def run(self, rows: Sequence[Row]) -> Tally:
        """Raises as `Handover.working`, and ControlAway. Run again, it goes on where it ended."""
        seen: dict[tuple[str, str], int] = {}
        size = self._handover.batch
        with self._handover.working(self._store):
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                try:
                    self._enrol([row for row in batch if self._readable(row, seen)])
                finally:
                    self._tell_refused()
                self._on_progress(len(batch))
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
        authority, _ = self._issuers()
        newcomers = self._make_newcomers(authority, todo)
        time.sleep(max(0.0, self._others_turn_until - time.monotonic()))
        with self._store.write(self._actor) as write:
            authority_now, keyring = self._issuers()
            if authority_now.issuing != authority.issuing:  # replaced in this moment
                newcomers = self._make_newcomers(authority_now, todo)
            made = self._enrol_batch(write, authority_now, keyring, todo, newcomers)
            self._handover.keep(made)
        self._others_turn_until = time.monotonic() + PAUSE_SECONDS
        self._handover.hand_over(made)
        self.tally.enrolled += len(made)

    def _is_there(self, row: Row, record: DeviceRecord | None) -> bool:
        if record is None or record.status is not DeviceStatus.ACTIVE or record.vehicle_id != row.vehicle_id:
            return False
        if not any(entry.status is CredentialStatus.ACTIVE for entry in record.credentials):
            return False
        self.tally.before += 1
        self.tally.elsewhere += not self._handover.has(row.tenant, row.device_id)
        return True

    def _make_newcomers(self, authority: Authority, rows: Sequence[Row]) -> dict[int, Newcomer]:
        """By line, those of `rows` whose key is made here, and that no other row or bundle speaks against."""
        found: dict[tuple[str, str], Row] = {}
        for row in rows:
            if row.csr is None and not self._handover.has(row.tenant, row.device_id):
                found.setdefault((row.tenant, row.vehicle_id), row)
        names = [(row.tenant, row.vehicle_id, row.device_id) for row in found.values()]
        made = make_newcomers(authority, names, self._days)
        return {row.line: newcomer for row, newcomer in zip(found.values(), made, strict=True)}

    def _enrol_batch(
        self,
        write: Write,
        authority: Authority,
        keyring: Keyring,
        rows: Sequence[Row],
        newcomers: dict[int, Newcomer],
    ) -> list[Enrolment]:
        known = on_record(write, list(newcomers.values()))
        new = {line: newcomer for line, newcomer in newcomers.items() if newcomer not in known}
        made = enrol_newcomers(write, authority, keyring, list(new.values()))
        others = (self._enrol_one(write, authority, keyring, row) for row in rows if row.line not in new)
        return made + [enrolment for enrolment in others if enrolment is not None]

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
                if self._handover.has(row.tenant, row.device_id):
                    place = self._handover.place_of(row.tenant, row.device_id)
                    raise Conflict(f"{place} exists already: move it away")
        except _REFUSALS as error:
            self._refuse(row, str(error))
            return None
        return enrolment
