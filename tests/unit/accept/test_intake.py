"""The road itself: what a verdict leaves in spool, windows, scores and counts, and the states it causes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from tests.gates import Gate, credential, record, score_of
from tests.units import NOW, TOPIC, former, sign

from fleetgate.accept.rejections import MAX_RANGES
from fleetgate.config import DeviceLimit, Limits
from fleetgate.control.records import CredentialStatus, DeviceState
from fleetgate.control.suspicions import Suspicion
from fleetgate.errors import SpoolError
from fleetgate.judge import Outcome, Reason
from fleetgate.spool.format import RejectionRecord
from fleetgate.spool.reader import Segment, read_segment, segment_paths

FORGED = sign(key=bytes(32))


def sealed(gate: Gate) -> Segment:
    gate.intake.commit()
    gate.spool.writer.seal()
    return read_segment(segment_paths(gate.spool.directory / "segments")[-1][1])


def rejections(gate: Gate) -> list[RejectionRecord]:
    return [found for _, found in sealed(gate).rejections]


def test_an_accepted_message_is_stored_as_it_was_received(gate: Gate) -> None:
    """Bytes, time, outcome, flags and peer."""
    gate.receive(sign(sent_at=NOW + 6_000))
    (message,) = sealed(gate).messages
    assert message[1:] == (0, NOW, Outcome.ACCEPTED, 8, sign(sent_at=NOW + 6_000))


def test_a_held_message_is_stored_as_held(gate: Gate) -> None:
    """Load tells by it which table it belongs to."""
    gate.records[0] = record(state=DeviceState.QUARANTINED, state_at_ms=1)
    gate.receive(sign())
    assert [message.outcome for message in sealed(gate).messages] == [Outcome.HELD]


def test_a_held_message_has_used_its_number(gate: Gate) -> None:
    """Its retry is a duplicate, so that a release counts it once."""
    gate.records[0] = record(state=DeviceState.QUARANTINED, state_at_ms=1)
    gate.receive(sign())
    assert gate.receive(sign()).outcome is Outcome.DUPLICATE


def test_a_duplicate_leaves_no_record(gate: Gate) -> None:
    """It is counted and acknowledged, not stored."""
    caller = gate.caller()
    outcomes = [gate.receive(sign(), caller).outcome for _ in range(3)]
    assert (outcomes[1:], len(sealed(gate).messages)) == ([Outcome.DUPLICATE] * 2, 1)
    assert gate.counts.outcomes["mqtt"][Outcome.DUPLICATE] == 2


def test_refusals_of_a_peer_and_reason_are_one_record_of_a_commit(gate: Gate) -> None:
    """With their number, first and last time; those before step 3 have no ranges, nobody vouches for their numbers."""
    caller = gate.caller()
    for step in range(3):
        gate.clock.ms = NOW + step
        gate.receive(FORGED, caller)
        gate.receive(b"", caller)
    parts = caller.known.standing.parts
    assert [part.at for part in parts.values()] == [NOW + 2, NOW + 2]
    assert rejections(gate) == [
        RejectionRecord(0, "bad_mac", 3, NOW, NOW + 2, [], *parts["bad_mac"]),
        RejectionRecord(0, "malformed_envelope", 3, NOW, NOW + 2, [], *parts["malformed_envelope"]),
    ]


def test_refusals_behind_step_3_name_their_numbers(gate: Gate) -> None:
    """As ranges: neighbours join, others begin a new one."""
    caller = gate.caller()
    for seq in (4, 5, 6, 6, 9, 10, 2):
        gate.receive(sign(seq=seq, body=b"\x00"), caller)
    (found,) = rejections(gate)
    assert (found.count, found.ranges) == (7, [(1, 4, 6), (1, 9, 10), (1, 2, 2)])


def test_ranges_are_bounded_and_the_count_is_not(gate: Gate) -> None:
    """A flood of scattered numbers costs a bounded record."""
    caller = gate.caller()
    for seq in range(0, 4 * MAX_RANGES, 2):
        gate.receive(sign(seq=seq, body=b"\x00"), caller)
    (found,) = rejections(gate)
    assert (found.count, len(found.ranges)) == (2 * MAX_RANGES, MAX_RANGES)


def test_a_refusal_under_a_former_credential_names_it(gate: Gate) -> None:
    """What step 3 has verified is recorded under the credential that did."""
    old, key = former("old", NOW - 1)
    gate.records[0] = record(credentials=(credential(), credential(old.key_digest, CredentialStatus.FORMER, NOW - 1)))
    gate.receive(sign(key=key, body=b"\x00"))
    segment = sealed(gate)
    assert [segment.peers[found.peer].key_digest for _, found in segment.rejections] == [old.key_digest]


def test_what_admission_refused_is_recorded_with_its_count(gate: Gate) -> None:
    """A batch of 400 over the rate is one record of 400; no excess makes anybody even watched."""
    caller = gate.caller()
    gate.intake.refuse_unseen(caller, Reason.RATE_LIMITED, NOW, 400)
    assert [(found.reason, found.count) for found in rejections(gate)] == [("rate_limited", 400)]
    assert score_of(gate, caller.known) == 40.0
    assert caller.known.standing.state is DeviceState.TRUSTED


def test_connections_above_a_devices_own_limit_are_recorded_and_score_nobody(tmp_path: Path) -> None:
    """Whoever cuts them makes it begin more."""
    gate = Gate(tmp_path / "spool", limits=Limits(device=DeviceLimit(connections="1/h")))
    caller = gate.caller()
    waits = [gate.intake.admit_connection(caller, NOW) > 0 for _ in range(100)]
    assert (waits, score_of(gate, caller.known)) == ([False] + [True] * 99, 0.0)
    assert [(found.reason, found.count) for found in rejections(gate)] == [("rate_limited", 99)]


def test_three_forgeries_quarantine_the_peer_that_sent_them(gate: Gate) -> None:
    """Watched at the second, quarantined at the third; its next message is held, and both moves are in the spool."""
    caller = gate.caller()
    states = []
    for _ in range(3):
        gate.receive(FORGED, caller)
        states.append(caller.known.standing.state)
    held = gate.receive(sign(), caller).outcome
    assert (states.index(DeviceState.WATCHED), states.index(DeviceState.QUARANTINED), held) == (1, 2, Outcome.HELD)
    moves = [(found.before, found.after, found.why, found.score) for _, found in sealed(gate).transitions]
    assert moves == [("trusted", "watched", "bad_mac", 70.0), ("watched", "quarantined", "bad_mac", 105.0)]


def test_a_device_is_not_scored_for_what_another_claims_of_it(gate: Gate) -> None:
    """Bytes sent to another's topic score the connection they came on."""
    gate.records.append(record("tcu-0002"))
    victim, attacker = gate.caller(), gate.caller("tcu-0002")
    gate.receive(sign(), attacker, TOPIC)
    assert (score_of(gate, victim.known), score_of(gate, attacker.known)) == (0.0, 35.0)


def test_a_key_the_gate_lacks_scores_nobody(gate: Gate) -> None:
    """An edge with an old keyring counts the refusal and leaves the fleet alone."""
    caller = gate.caller()
    gate.receive(sign(kid=77), caller)
    assert (score_of(gate, caller.known), gate.counts.reasons["mqtt"][Reason.UNKNOWN_KEY]) == (0.0, 1)


def test_what_load_suspects_counts_from_when_it_was(gate: Gate) -> None:
    """An hour late it has faded by half, a time to come is taken for now, and it goes up to the bound; it moves the
    device like the rest."""
    known = gate.known()
    hour_ago = Suspicion("acme", "tcu-0001", "edge-1", "implausible_data", 4, NOW - 3_600_000, {})
    gate.scores.suspect(known, hour_ago)
    assert score_of(gate, known) == pytest.approx(20)
    gate.scores.suspect(known, msgspec.structs.replace(hour_ago, at_ms=NOW + 3_600_000))
    assert score_of(gate, known) == pytest.approx(55)
    assert [(found.after, found.why) for _, found in sealed(gate).transitions] == [("watched", "implausible_data")]


def test_trust_comes_after_the_watch_that_it_ends(gate: Gate) -> None:
    """Of two views of a device at one time the sterner would stand."""
    known = gate.known()
    for state in (DeviceState.WATCHED, DeviceState.TRUSTED):
        gate.scores.move(known, state, NOW, "test")
    assert [found.at for _, found in sealed(gate).transitions] == [NOW, NOW + 1]


def test_nothing_is_held_that_was_received_before_the_quarantine(gate: Gate) -> None:
    """Watched, in quarantine and held in one turn of the loop: a release gives back what was held since then."""
    caller = gate.caller()
    for _ in range(3):
        gate.receive(FORGED, caller)
    gate.receive(sign(), caller)
    found = sealed(gate)
    assert [(one.after, one.at, one.received_at) for _, one in found.transitions] == [
        ("watched", NOW, NOW),
        ("quarantined", NOW, NOW),
    ]
    assert [(message.outcome, message.received_at) for message in found.messages] == [(Outcome.HELD, NOW)]


def test_a_change_of_state_is_told(gate: Gate) -> None:
    """The loop ends a session whose device was banned."""
    told: list[object] = []
    gate.scores.on_state = told.append
    known = gate.known()
    gate.scores.move(known, DeviceState.BANNED, NOW, "test")
    assert (told, known.device.refusal) == ([known], Reason.BANNED)


def test_a_commit_of_nothing_writes_nothing(gate: Gate) -> None:
    """And still has the answers of the turn sent."""
    sent: list[int] = []
    gate.intake.on_commit = lambda: sent.append(1)
    gate.intake.commit()
    assert (gate.counts.commits, sent, gate.spool.writer.live_bytes) == (0, [1], 0)


def test_a_failed_commit_sends_no_answers(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error ends the process: nothing of the batch is acknowledged."""
    sent: list[int] = []
    gate.intake.on_commit = lambda: sent.append(1)
    gate.receive(sign())

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("os.fdatasync", fail)
        with pytest.raises(SpoolError):
            gate.intake.commit()
    assert sent == []


def test_a_waiter_goes_on_behind_the_commit(gate: Gate) -> None:
    """HTTP's answer waits until everything received so far is on disk; a duplicate's too."""
    order: list[str] = []

    async def wait() -> None:
        await gate.intake.committed()
        order.append("answered")

    async def main() -> None:
        gate.receive(sign())
        gate.intake.commit()
        gate.receive(sign())  # a duplicate
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            order.append("committed")
            gate.intake.commit()

    trio.run(main)
    assert order == ["committed", "answered"]


def test_nothing_pending_is_not_waited_for(gate: Gate) -> None:
    """A request of which nothing was judged does not wait for others."""
    trio.run(gate.intake.committed)


def test_a_commit_is_woken_for_what_came_outside_the_loop(gate: Gate) -> None:
    """The intake's own task commits when it is asked to."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.intake.run)
            gate.receive(sign())
            with trio.fail_after(5):
                await gate.intake.committed()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert gate.counts.commits == 1


def test_the_limit_of_a_device_is_its_own(tmp_path: Path) -> None:
    """A noisy device is slowed down, its neighbour is not."""
    gate = Gate(tmp_path, record(), record("tcu-0002"), limits=Limits(device=DeviceLimit(messages="1/s")))
    noisy, quiet = gate.caller(), gate.caller("tcu-0002")
    admitted = [who.known.account.take(1, 170, gate.clock.monotonic()) == 0.0 for who in (noisy, noisy, quiet)]
    gate.close()
    assert admitted == [True, False, True]
