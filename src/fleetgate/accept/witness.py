"""What the edge writes down about a message that it refuses, or takes and suspects: facts for whoever decides later.

Decides the facts, as they are at that moment; how many of a flood are kept is `evidence.sampling`'s, where they are
kept `evidence.keeper`'s. Called for what is refused or suspicious only, so that any other message pays nothing.
"""

from __future__ import annotations

from fleetgate.accept.known import Caller
from fleetgate.clock import Clock
from fleetgate.evidence.keeper import Keeper
from fleetgate.evidence.sample import Facts, Sample, Slot
from fleetgate.evidence.sampling import Sampling
from fleetgate.judge import Reason, Verdict
from fleetgate.judge.envelope import Envelope
from fleetgate.judge.identity import Credential
from fleetgate.judge.sequence import WINDOW, tag_prefix

_TOPIC_CHARACTERS = 200  # of one that is not the device's own; ids make up to 150


class Witness:
    """Samples of what one edge refused. `passed_over` counts what was not sampled."""

    def __init__(self, keeper: Keeper, clock: Clock) -> None:
        self._sampling = Sampling()
        self._clock = clock
        self.keeper = keeper
        self.passed_over = 0

    def note(
        self, caller: Caller, what: str, verdict: Verdict, raw: bytes, topic: bytes | None, now: int, disorder: str
    ) -> None:
        """One message that came at `now` (Unix ms); `what` is the reason or signal, `disorder` its class or empty."""
        tenant, device_id = caller.known.key
        if not self._sampling.wants((tenant, device_id, what), self._clock.monotonic()):
            self.passed_over += 1
            return
        self.keeper.offer(Sample(tenant, device_id, now, _facts(caller, what, disorder, verdict, topic), raw))


def _facts(caller: Caller, what: str, disorder: str, verdict: Verdict, topic: bytes | None) -> Facts:
    envelope, credential = verdict.envelope, verdict.credential or caller.peer.credential
    looked = verdict.credential is not None or verdict.reason is Reason.BAD_MAC  # other refusals come before step 3
    verified = verdict.credential is not None if looked else None
    return Facts(
        what=what,
        disorder=disorder,
        outcome=verdict.outcome.name.lower(),
        edge_id=caller.edge_id,
        vehicle_id=caller.known.device.vehicle_id,
        address=caller.address,
        transport=caller.transport,
        topic=topic.decode("utf-8", "replace")[:_TOPIC_CHARACTERS] if topic is not None else "",
        fingerprint=credential.fingerprint,
        verified=verified,
        key_id=envelope.kid if envelope is not None else None,
        epoch=envelope.epoch if envelope is not None else None,
        seq=envelope.seq if envelope is not None else None,
        sent_at_ms=envelope.sent_at if envelope is not None else None,
        slot=_slot(caller, envelope, credential, verified=verified) if envelope is not None else None,
        state=caller.known.standing.state.value,
        policy_version=caller.policy_version,
    )


def _slot(caller: Caller, envelope: Envelope, credential: Credential, *, verified: bool | None) -> Slot:
    """Where the message stands in the windows; of one that was not found to be the device's own, where it claims to: a
    tag may be copied from a message that was taken."""
    epoch, window = caller.peer.device.epoch, credential.windows.by_epoch.get(envelope.epoch)
    if window is None:
        return Slot(epoch, None, "no window of its epoch")
    behind = window.highest - envelope.seq
    if behind < 0:
        found = "above the highest"
    elif behind >= WINDOW:
        found = "below the window"
    else:
        seen = window.slots[envelope.seq % WINDOW]
        same = "this message" if verified else "the tag of the message that was taken"
        found = "free" if not seen else same if seen == tag_prefix(envelope.tag) else "another message"
    return Slot(epoch, window.highest, found)
