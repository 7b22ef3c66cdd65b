"""One device as an edge would have it in memory now: records, root keys, replay windows, remembered denials.

Built by the edge's own parts from what is on this machine's disks. Reads only, beside an edge that runs: nothing is
locked, claimed or written. Windows stand in the checkpoint, and of the last seconds in the segments behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from fleetgate.accept.contact import Contact
from fleetgate.accept.denials import DenialMemory
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.known import Key, KnownDevice
from fleetgate.accept.limits import Limits, no_hits
from fleetgate.accept.recovery import replay
from fleetgate.accept.registry import Registry
from fleetgate.clock import Clock
from fleetgate.config import Config, Policy
from fleetgate.control.keyring import Keyring
from fleetgate.control.profile import CertificateIdentity
from fleetgate.control.store import Store
from fleetgate.errors import SpoolError
from fleetgate.judge import Peer
from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.files import reaching
from fleetgate.spool.format import DamagedError
from fleetgate.spool.identity import read_identity
from fleetgate.spool.reader import Segment, read_segment, segment_paths

TRIES = 5  # a checkpoint comes every 10 s, and is looked at in one
_NO_FILE = Path(":memory:")  # SQLite's name of a database that is empty and nowhere


class Recalled(NamedTuple):
    """`known` is None for a device that the records do not have; `fence_ms` is the spool's; `notes` say what is missing
    here that the edge has."""

    known: KnownDevice | None
    fleet: Fleet
    fence_ms: int
    notes: list[str]

    def peer(self, now_ms: int, *, json_allowed: bool) -> Peer | None:
        """A connection with the device's newest certificate, as the edge makes one."""
        if self.known is None or not self.known.record.credentials:
            return None
        newest, (tenant, device_id) = self.known.record.credentials[0], self.known.key
        identity = CertificateIdentity(tenant, device_id, newest.fingerprint, newest.key_digest, newest.not_after_ms)
        return self.fleet.peer(self.known, identity, now_ms, json_allowed=json_allowed)


def recall(config: Config, clock: Clock, keyring: Keyring, store: Store, key: Key) -> Recalled:
    """Raises ControlAway, SpoolError."""
    spool = config.path(config.spool.directory)
    notes: list[str] = []
    with reaching(spool):
        identity = read_identity(spool)
        for _ in range(TRIES):
            fleet = Fleet(keyring.roots, Limits(config.limits, no_hits()))
            if identity is None or not (spool / "checkpoint.db").exists():
                notes = [f"{spool} is no spool in use: replay windows are taken as empty, and step 5 as never refusing"]
                _take(fleet, store, clock, key, _NO_FILE, _NO_FILE)
                return Recalled(fleet.get(key), fleet, 0, notes)
            denials = spool / "denials.db"
            position = _take(fleet, store, clock, key, spool / "checkpoint.db", denials)
            try:
                notes = _replay(spool / "segments", position, fleet, config.policy)
            except FileNotFoundError:
                continue  # sealed or deleted since it was listed
            with closing(Checkpoint(spool / "checkpoint.db", write=False)) as saved:
                if saved.segment() == position:  # else segments behind the former one may be deleted already
                    return Recalled(fleet.get(key), fleet, identity.fence_ms, notes)
    raise SpoolError(f"{spool} changes too fast to be looked at: the same again")


def _take(fleet: Fleet, store: Store, clock: Clock, key: Key, checkpoint: Path, denials: Path) -> int:
    """Takes the device into memory as a first connection does; the position of the checkpoint."""
    there, known = checkpoint != _NO_FILE, denials != _NO_FILE and denials.exists()
    with (
        closing(Checkpoint(checkpoint, write=not there)) as saved,
        closing(DenialMemory(denials if known else _NO_FILE, write=not known)) as told,
    ):
        Registry(store, told, saved, fleet, Contact(clock, 0), clock).load([key])
        return saved.segment()


def _replay(directory: Path, position: int, fleet: Fleet, policy: Policy) -> list[str]:
    """Applies the segments behind the checkpoint. Raises FileNotFoundError."""
    notes = []
    for segment in _segments(directory, position):
        if isinstance(segment, str):
            notes.append(segment)
        else:
            replay(segment, fleet, policy)
    return notes


def _segments(directory: Path, position: int) -> Iterator[Segment | str]:
    """Sealed ones, then the live one. It is listed first: sealed in between, it comes twice, which changes nothing."""
    live = segment_paths(directory, ".open")
    for number, path in [*segment_paths(directory), *live]:
        if number > position:
            try:
                segment = read_segment(path)
            except DamagedError as damage:
                yield f"{path} cannot be read ({damage}): what it holds is missing in the replay windows here"
                continue
            if segment.damaged and path.suffix == ".seg":
                yield f"{path} is damaged ({segment.damaged[0]}): what it lost is missing in the replay windows here"
            yield segment
