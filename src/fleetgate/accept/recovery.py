"""The normal start: applies the records behind the checkpoint to the devices, as if they had just been received.

After it, windows, epochs, states and scores equal those before the crash, for everything that was acknowledged. The
checkpoint may hold a device as of later than its position: what it has already is applied to it again, and changes
nothing (a number claimed is claimed by the same tag, epochs and times only grow, scores come with their time).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

from fleetgate import log
from fleetgate.accept.disorder import signal_of
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.known import Key, KnownDevice
from fleetgate.accept.registry import Registry
from fleetgate.accept.standing import Part
from fleetgate.config import Policy
from fleetgate.control.records import DeviceRecord, DeviceState, DeviceStatus
from fleetgate.control.states import View
from fleetgate.errors import SpoolError
from fleetgate.judge.envelope import open_envelope
from fleetgate.judge.sequence import WINDOW
from fleetgate.judge.verdict import Reject
from fleetgate.spool.format import RejectionRecord
from fleetgate.spool.home import Spool
from fleetgate.spool.reader import Segment, read_segments

BATCH = 200  # 16 MB at most

_log = log.get("accept.recovery")


class Recovery:
    """The segments behind the checkpoint, each applied once. `messages` counts what they held, `alerts` are those that
    were open at their end, by key."""

    def __init__(self, spool: Spool, registry: Registry, fleet: Fleet, settings: Policy) -> None:
        self._spool = spool
        self._registry = registry
        self._fleet = fleet
        self._settings = settings
        self._applied = spool.checkpoint.segment()
        self.messages = 0
        self.alerts = {record.key: record for record in spool.checkpoint.alerts()}
        self._on_their_way: set[Key] = set()

    def run(self) -> None:
        """Applies what is not applied yet. Raises SpoolError, ControlAway; a second call goes on."""
        for segment in read_segments(self._spool.directory / "segments", self._applied):
            if segment.damaged:
                self._refuse_forgetting(segment)
            self._load_devices(segment)
            replay(segment, self._fleet, self._settings)
            self._note_steps(segment)
            self._note_alerts(segment)
            self._applied = segment.header.segment
            self.messages += len(segment.messages)
        if self.messages:
            _log.info("recovered", messages=self.messages)

    def _note_alerts(self, segment: Segment) -> None:
        for _, record in segment.alerts:
            if record.state == "open":
                self.alerts[record.key] = record
            else:
                self.alerts.pop(record.key, None)

    def _note_steps(self, segment: Segment) -> None:
        with suppress(SpoolError):  # a damaged cursor is load's trouble
            if segment.header.segment <= (self._spool.loaded_through() or 0):
                return
        self._on_their_way |= {(record.tenant, record.device_id) for _, record in segment.transitions}

    def untold(self) -> Iterator[KnownDevice]:
        """Devices under watch or in quarantine, but those whose latest step is in a segment that load will read.
        Raises ControlAway."""
        for state in (DeviceState.WATCHED, DeviceState.QUARANTINED):
            yield from (known for known in self.standing(state) if known.key not in self._on_their_way)

    def standing(self, state: DeviceState) -> Iterator[KnownDevice]:
        """All devices in this state, also those that are not in memory; these are, a few at a time, while they are
        looked at. Raises ControlAway."""
        in_memory = [known for known in self._fleet.all() if known.standing.state is state]
        yield from in_memory
        others = [key for key in self._spool.checkpoint.in_state(state) if self._fleet.get(key) is None]
        for start in range(0, len(others), BATCH):
            batch = others[start : start + BATCH]
            self._registry.load(batch)
            yield from (known for key in batch if (known := self._fleet.get(key)) is not None)
            self._fleet.forget_idle(math.inf)

    def _refuse_forgetting(self, segment: Segment) -> None:
        """What a damaged record held is lost and welcome again; but where load had it before it rotted, it would be
        taken twice. Load may have a part of the segment behind its cursor. Raises SpoolError for that."""
        with suppress(SpoolError):  # a damaged cursor is load's trouble, and told when deleting
            if segment.header.segment > (self._spool.loaded_through() or 0) + 1:
                _log.error("damaged_segment", segment=segment.name, error=str(segment.damaged[0]))
                return
        raise SpoolError(
            f"segment {segment.name} is damaged ({segment.damaged[0]}) and load may have it: what it had of it would "
            "be taken again; restore the file, or see what `fleetgate spool repair` makes of it"
        )

    def _load_devices(self, segment: Segment) -> None:
        """Takes the segment's devices into memory, those too that control does not have (any more, or just now)."""
        keys = {(peer.tenant, peer.device_id) for peer in segment.peers.values()}
        keys |= {(record.tenant, record.device_id) for _, record in segment.transitions}
        missing = [key for key in sorted(keys) if self._fleet.get(key) is None]
        self._registry.load(missing)
        for key in missing:
            if self._fleet.get(key) is None:
                # Nobody can connect as it, but its windows must be whole if the records come back from a backup.
                self._fleet.add(_unrecorded(*key), self._spool.checkpoint.device(*key), now_s=0.0)


def _unrecorded(tenant: str, device_id: str) -> DeviceRecord:
    return DeviceRecord(tenant, device_id, None, DeviceStatus.DECOMMISSIONED, DeviceState.TRUSTED, 0, ())


def replay(segment: Segment, fleet: Fleet, settings: Policy) -> None:
    """Applies what the segment holds of the devices that are in `fleet`."""
    for message in segment.messages:
        peer = segment.peers.get(message.peer)
        known = fleet.get((peer.tenant, peer.device_id)) if peer is not None else None
        if known is None or peer is None:
            continue  # the peer record is damaged
        credential = fleet.credential(known, peer.key_digest)
        try:
            envelope = open_envelope(message.raw, json_allowed=True)
        except Reject:
            _log.error("stored_envelope_unreadable", segment=segment.name, offset=message.offset)
            continue
        window = credential.windows.by_epoch.get(envelope.epoch)
        if window is None or envelope.seq > window.highest - WINDOW:  # else its slot is a newer number's by now
            credential.windows.claim(envelope.epoch, envelope.seq, envelope.tag, envelope.sent_at)
        if envelope.epoch > known.device.epoch:
            known.device.epoch, known.timeline.epoch_sent_at = envelope.epoch, envelope.sent_at
        if envelope.kid > known.device.kid:
            known.device.kid, known.device.kid_at = envelope.kid, message.received_at
        fleet.touch(known)
    for _, rejection in segment.rejections:
        peer = segment.peers.get(rejection.peer)
        known = fleet.get((peer.tenant, peer.device_id)) if peer is not None else None
        if known is not None and rejection.score:
            _restore(known, signal_of(rejection.reason, rejection.disorder), rejection, fleet, settings)
    for _, record in segment.transitions:
        known = fleet.get((record.tenant, record.device_id))
        if known is not None:
            _adopt(known, DeviceState(record.after), record.at, fleet)


def _restore(known: KnownDevice, signal: str, rejection: RejectionRecord, fleet: Fleet, settings: Policy) -> None:
    untroubled = known.standing.untroubled(rejection.scored_at, settings)
    if known.standing.restore(signal, Part(rejection.score, rejection.scored_at)):
        if untroubled:
            known.before_trouble = known.software, known.issuer
        fleet.touch(known)


def _adopt(known: KnownDevice, state: DeviceState, at: int, fleet: Fleet) -> None:
    if known.standing.adopt(View(state, at)):
        fleet.settle(known)
        fleet.touch(known)
