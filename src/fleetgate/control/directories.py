"""Hands over the bundles of many devices as directories, OUT/TENANT/DEVICE (`control.bundle`).

They wait in OUT/.enrolling; a rename, which is whole or not at all, hands one over.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fleetgate.control.bundle import is_on_record, stage_bundle, sync_bundles
from fleetgate.control.devices import Enrolment
from fleetgate.control.store import Store
from fleetgate.durable import sync_directory
from fleetgate.errors import ConfigError, Conflict
from fleetgate.lock import Taken, hold

BATCH = 40
"""Bundles are four files each, and are synced while the transaction holds the database."""
STAGING = ".enrolling"  # no tenant's name: those begin with a letter or a digit


class Directories:
    """A `control.bulk.Handover`."""

    def __init__(self, out: Path) -> None:
        self.batch = BATCH
        self._out = out

    @contextmanager
    def working(self, store: Store) -> Iterator[None]:
        """Raises ConfigError, Conflict."""
        try:
            with _alone(self._out):
                self._recover(store)
                yield
                shutil.rmtree(self._out / STAGING, ignore_errors=True)
        except OSError as error:
            raise ConfigError(
                f"cannot write into {self._out}: {error.strerror}; mend that and run the same again"
            ) from None

    def has(self, tenant: str, device_id: str) -> bool:
        return self._place(tenant, device_id).exists()

    def place_of(self, tenant: str, device_id: str) -> str:
        return str(self._place(tenant, device_id))

    def keep(self, enrolments: Sequence[Enrolment]) -> None:
        for enrolment in enrolments:
            stage_bundle(self._staged(enrolment), enrolment)
        sync_bundles(self._staged(enrolment) for enrolment in enrolments)

    def hand_over(self, enrolments: Sequence[Enrolment]) -> None:
        for enrolment in enrolments:
            self._move(self._staged(enrolment))
        for tenant in {enrolment.tenant for enrolment in enrolments}:
            sync_directory(self._out / tenant)

    def _place(self, tenant: str, device_id: str) -> Path:
        return self._out / tenant / device_id

    def _staged(self, enrolment: Enrolment) -> Path:
        return self._out / STAGING / enrolment.tenant / enrolment.device_id

    def _move(self, staged: Path) -> None:
        place = self._place(staged.parent.name, staged.name)
        place.parent.mkdir(exist_ok=True)
        staged.rename(place)

    def _recover(self, store: Store) -> None:
        """Finishes what a killed run left."""
        for staged in sorted((self._out / STAGING).glob("*/*")):
            if is_on_record(store, staged):
                self._move(staged)
            else:
                shutil.rmtree(staged)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """The lock goes with the process, however it ends."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = hold(out, os.O_RDONLY | os.O_DIRECTORY)
    except Taken:
        raise Conflict(f"another `fleetgate device enroll-many` is at work in {out}: wait until it ends") from None
    try:
        yield
    finally:
        os.close(descriptor)
