"""The normal start: applies the records behind the checkpoint to the devices, as if they had just been received.

After it, windows, epochs, states and scores equal those before the crash, for everything that was acknowledged.
"""

from __future__ import annotations

from fleetgate import log
from fleetgate.accept.fleet import Fleet, KnownDevice
from fleetgate.accept.registry import Registry
from fleetgate.config import Policy
from fleetgate.control.records import DeviceState
from fleetgate.judge import Reason
from fleetgate.judge.envelope import open_envelope
from fleetgate.judge.verdict import Reject
from fleetgate.spool.home import Spool
from fleetgate.spool.reader import Segment, read_segments

_log = log.get("accept.recovery")


def recover(spool: Spool, registry: Registry, fleet: Fleet, policy: Policy) -> int:
    """Replays the segments behind the checkpoint; how many messages they held. Raises ControlAway."""
    messages = 0
    for segment in read_segments(spool.directory / "segments", spool.checkpoint.segment()):
        keys = {(peer.tenant, peer.device_id) for peer in segment.peers.values()}
        keys |= {(record.tenant, record.device_id) for _, record in segment.transitions}
        registry.load([key for key in sorted(keys) if fleet.get(key) is None])
        _replay(segment, fleet, policy)
        messages += len(segment.messages)
        if segment.damaged:
            _log.error("damaged_segment", segment=segment.name, error=str(segment.damaged[0]))
    if messages:
        _log.info("recovered", messages=messages)
    return messages


def _replay(segment: Segment, fleet: Fleet, policy: Policy) -> None:
    for message in segment.messages:
        peer = segment.peers.get(message.peer)
        known = fleet.get((peer.tenant, peer.device_id)) if peer is not None else None
        if known is None or peer is None:
            continue  # decommissioned since: nobody can connect as it
        credential = known.credentials.get(peer.key_digest)
        if credential is None:
            continue  # a credential that ended long ago: it verifies nothing any more
        try:
            envelope = open_envelope(message.raw, json_allowed=True)
        except Reject:
            _log.error("stored_envelope_unreadable", segment=segment.name, offset=message.offset)
            continue
        credential.windows.claim(envelope.epoch, envelope.seq, envelope.tag, envelope.sent_at)
        known.device.epoch = max(known.device.epoch, envelope.epoch)
        fleet.touch(known)
    for _, rejection in segment.rejections:
        peer = segment.peers.get(rejection.peer)
        known = fleet.get((peer.tenant, peer.device_id)) if peer is not None else None
        # An unknown key may have been one that the gate itself lacked, which never scores; the record does not say.
        if known is not None and rejection.reason != Reason.UNKNOWN_KEY and not _forgiven(known, rejection.last_at):
            known.standing.add(Reason(rejection.reason), rejection.count, rejection.last_at, policy)
            fleet.touch(known)
    for _, record in segment.transitions:
        known = fleet.get((record.tenant, record.device_id))
        if known is not None:
            _adopt(known, DeviceState(record.after), record.at, record.score, fleet)


def _forgiven(known: KnownDevice, at: int) -> bool:
    """Whether a refusal at `at` lies before the device's release, which set its score to zero."""
    standing = known.standing
    return standing.state is DeviceState.RELEASED and at <= standing.state_at


def _adopt(known: KnownDevice, state: DeviceState, at: int, score: float, fleet: Fleet) -> None:
    if known.standing.adopt(state, at):
        known.standing.score, known.standing.scored_at = score, at
        fleet.settle(known)
        fleet.touch(known)
