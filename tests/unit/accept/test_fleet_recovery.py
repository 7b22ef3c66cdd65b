"""A start after a kill, with a fleet: windows, epochs, states and scores are those before."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.gates import Gate, Records, credential, memory, record, score_of
from tests.units import DEVICE_ID, KEY_DIGEST, NOW, TENANT, former, hkdf, sign

from fleetgate.accept.recovery import Recovery
from fleetgate.accept.standing import Part
from fleetgate.control.records import CredentialStatus, DeviceState
from fleetgate.errors import SpoolError
from fleetgate.judge import Outcome, Reason
from fleetgate.judge.mac import FORMER_KID_MS
from fleetgate.spool.cursor import Cursor, write_cursor
from fleetgate.spool.reader import read_segments

FORGED = sign(key=bytes(32))
TWO = "tcu-0002"
KEY_OF_TWO = hkdf(bytes(range(32)), "acme", TWO, KEY_DIGEST)


def traffic(gate: Gate, epoch: int) -> None:
    """Two devices, a hole in the numbers, late ones, refusals; committed."""
    one = gate.caller()
    for seq in (0, 1, 5, 3, 2_000, 1_500):
        gate.receive(sign(epoch=epoch, seq=seq), one)
    two = gate.caller(TWO)
    for seq in range(3):
        gate.receive(sign(epoch=epoch, seq=seq, key=KEY_OF_TWO), two)
        gate.receive(sign(epoch=epoch, seq=seq + 7), two)  # the other's key: bad_mac
    gate.intake.commit()


def everything(gate: Gate) -> dict[object, object]:
    for each in gate.records:
        gate.known(each.device_id)
    return memory(gate)


@pytest.fixture
def two(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "spool", record(), record(TWO))


@pytest.mark.parametrize("checkpoints", [(), (1,), (1, 2), (1, 2, 3)])
def test_a_kill_changes_nothing_that_was_acknowledged(two: Gate, checkpoints: tuple[int, ...]) -> None:
    """Without a checkpoint, and with one after any part of the traffic."""
    for epoch in (1, 2, 3):
        traffic(two, epoch)
        if epoch in checkpoints:
            two.checkpoint()
    before = everything(two)
    two.kill_and_recover()
    after = everything(two)
    two.close()
    assert after == before


def test_every_acknowledged_message_is_a_duplicate_after_a_kill(two: Gate) -> None:
    """An honest retry is acknowledged, and a replay is not stored again."""
    raws = [sign(seq=seq) for seq in range(20)]
    for raw in raws:
        two.receive(raw)
    two.intake.commit()
    two.kill_and_recover()
    outcomes = {two.receive(raw).outcome for raw in raws}
    two.close()
    assert outcomes == {Outcome.DUPLICATE}


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_former_root_key_ends_after_a_kill_when_it_would_have_before(two: Gate, checkpoint: bool) -> None:
    """From the first message under the newer one, whether the spool or the checkpoint tells of it."""
    two.receive(sign(kid=2, key=hkdf(bytes(range(32, 64)), TENANT, DEVICE_ID, KEY_DIGEST)))
    two.intake.commit()
    if checkpoint:
        two.checkpoint()
    two.kill_and_recover()
    two.clock.ms += FORMER_KID_MS
    in_time = two.receive(sign(seq=1, sent_at=two.clock.ms)).outcome
    two.clock.ms += 1
    too_late = two.receive(sign(seq=2, sent_at=two.clock.ms)).reason
    two.close()
    assert (in_time, too_late) == (Outcome.ACCEPTED, Reason.UNKNOWN_KEY)


def test_what_was_not_committed_may_be_sent_again(two: Gate) -> None:
    """It was never acknowledged, so its number is free."""
    two.receive(sign())
    two.intake.commit()
    two.receive(sign(seq=1))
    two.kill_and_recover()
    outcomes = [two.receive(sign(seq=seq)).outcome for seq in (0, 1)]
    two.close()
    assert outcomes == [Outcome.DUPLICATE, Outcome.ACCEPTED]


def test_a_quarantine_survives_a_kill(two: Gate) -> None:
    """Even before load has told control of it, the next message is held."""
    caller = two.caller()
    for _ in range(10):
        two.receive(FORGED, caller)
    two.intake.commit()
    two.kill_and_recover()
    found = (two.receive(sign()).outcome, two.known().standing.state)
    two.close()
    assert found == (Outcome.HELD, DeviceState.QUARANTINED)


def test_a_score_survives_a_kill(two: Gate) -> None:
    """Refusals that have not yet moved the device are counted again, once."""
    two.receive(FORGED)
    for _ in range(3):
        two.receive(b"")
    two.intake.commit()
    before = two.known().standing.parts
    two.kill_and_recover()
    after = two.known().standing.parts
    two.close()
    assert before == after == {"bad_mac": Part(35.0, NOW), "malformed_envelope": Part(30.0, NOW)}


def test_a_score_is_not_counted_twice_over_a_checkpoint(two: Gate) -> None:
    """What the checkpoint holds is not replayed."""
    two.receive(FORGED)
    two.receive(b"")
    two.checkpoint()
    two.receive(FORGED)
    two.intake.commit()
    two.kill_and_recover()
    score = score_of(two, two.known())
    two.close()
    assert score == 80.0


def test_a_release_forgives_what_lies_before_it_in_the_spool(two: Gate) -> None:
    """A person released the device after its refusals: replaying them must not quarantine it again."""
    caller = two.caller()
    for _ in range(10):
        two.receive(FORGED, caller)
    two.intake.commit()
    two.records[0] = record(state=DeviceState.RELEASED, state_at_ms=NOW + 5)
    two.clock.ms += 10
    two.kill_and_recover()
    standing = two.known().standing
    two.close()
    assert (standing.state, standing.parts) == (DeviceState.RELEASED, {})


def test_keys_the_gate_lacked_score_nobody_after_a_kill_either(two: Gate) -> None:
    """Thousands of refusals for a missing root key do not come back as scores."""
    for _ in range(30):
        two.receive(sign(kid=77))
    two.intake.commit()
    two.kill_and_recover()
    score = score_of(two, two.known())
    two.close()
    assert score == 0.0


def test_a_newer_decision_of_a_person_stands_over_a_replayed_transition(two: Gate) -> None:
    """Of two views the newer counts, in whatever order they are met."""
    two.scores.move(two.known(), DeviceState.QUARANTINED, NOW, "test")
    two.intake.commit()
    two.records[0] = record(state=DeviceState.BANNED, state_at_ms=NOW + 1)
    two.kill_and_recover()
    refusal = two.receive(sign()).reason
    two.close()
    assert refusal is Reason.BANNED


def test_messages_of_a_former_credential_return_to_its_own_windows(tmp_path: Path) -> None:
    """Provenance in the spool says whose numbers they were."""
    old, key = former("old", NOW - 1)
    gate = Gate(
        tmp_path, record(credentials=(credential(), credential(old.key_digest, CredentialStatus.FORMER, NOW - 1)))
    )
    gate.receive(sign(seq=3))
    gate.receive(sign(seq=3, key=key))
    gate.intake.commit()
    before = everything(gate)
    gate.kill_and_recover()
    after = everything(gate)
    gate.close()
    assert after == before


def test_a_device_that_is_gone_from_the_records_keeps_its_windows_and_is_refused(two: Gate) -> None:
    """Nobody can connect as it; if the records come back from a backup, what it sent before is still known."""
    traffic(two, 1)
    before = everything(two)
    gone = two.records.pop()
    replayed = two.kill_and_recover()
    lost = two.fleet.get(("acme", gone.device_id))
    assert lost is not None
    assert (replayed, lost.device.refusal) == (9, Reason.UNKNOWN_DEVICE)
    two.checkpoint()
    two.records.append(gone)
    two.kill_and_recover()
    two.known(gone.device_id)
    after = everything(two)
    two.close()
    assert after == before


def test_a_device_that_is_ahead_of_the_position_is_the_same_after_a_kill(two: Gate) -> None:
    """Its window went on by more than a ring after the seal, over numbers that nobody has used yet, and was saved so:
    the older numbers do not come back into their slots."""
    for seq in range(3):
        two.receive(sign(seq=seq))
    parts = two.checkpointing()
    two.receive(sign(seq=1_030))
    next(parts)
    before = everything(two)
    two.kill_and_recover()
    after = everything(two)
    two.close()
    assert after == before


def test_what_a_checkpoint_holds_is_in_the_spool(two: Gate) -> None:
    """A part commits first: a message whose number it holds is stored, so its retry may be called a duplicate."""
    raw = sign(seq=7)
    two.receive(sign())
    parts = two.checkpointing()
    two.receive(raw)
    next(parts)
    replayed = two.kill_and_recover()
    outcome = two.receive(raw).outcome
    two.close()
    assert (replayed, outcome) == (2, Outcome.DUPLICATE)


def test_a_damaged_record_costs_that_record(two: Gate) -> None:
    """One flipped byte in a sealed segment that load is far from: one number may come again, all others are known."""
    two.receive(sign(seq=99))
    two.intake.commit()
    two.spool.writer.seal()
    for seq in range(5):
        two.receive(sign(seq=seq))
    two.intake.commit()
    two.spool.writer.seal()
    path = two.spool.directory / "segments" / f"{2:020d}.seg"
    data = bytearray(path.read_bytes())
    data[data.index(sign(seq=2)) + 40] ^= 1
    path.write_bytes(data)
    two.kill_and_recover()
    outcomes = [two.receive(sign(seq=seq)).outcome for seq in range(5)]
    two.close()
    assert outcomes == [Outcome.DUPLICATE] * 2 + [Outcome.ACCEPTED] + [Outcome.DUPLICATE] * 2


def test_starting_again_and_again_changes_nothing(two: Gate) -> None:
    """A crash loop replays the same records to the same end."""
    traffic(two, 1)
    before = everything(two)
    for _ in range(4):
        two.kill_and_recover()
    after = everything(two)
    two.close()
    assert after == before


@pytest.mark.parametrize("cursor", [3, 2, 1])
def test_a_record_that_rotted_is_forgotten_only_where_load_cannot_have_it(two: Gate, cursor: int) -> None:
    """What is lost is welcome again; what is in ClickHouse already must not come twice. Of the segment behind its
    cursor load may have inserted a part."""
    for seq in (5, 6, 7):
        two.receive(sign(seq=seq))
        two.intake.commit()
        number = two.spool.writer.seal()
    assert number == 3
    path = two.directory / "segments" / f"{number:020d}.seg"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    write_cursor(two.directory, Cursor(two.spool.identity.spool, cursor, "00"))
    if cursor + 1 >= number:
        with pytest.raises(SpoolError, match="fleetgate spool repair"):
            two.kill_and_recover()
    else:
        two.kill_and_recover()
    two.close()


def told_again(gate: Gate) -> list[tuple[str, str, int]]:
    """(device, state, time) of what a start after a kill records again."""
    gate.kill()
    gate.start()
    recovery = Recovery(gate.spool, Records(gate.fleet, gate.spool.checkpoint, gate.records), gate.fleet, gate.settings)
    recovery.run()
    for known in recovery.untold():
        gate.scores.tell_again(known)
    gate.intake.commit()
    gate.spool.writer.seal()
    left = list(read_segments(gate.spool.directory / "segments", 0))  # those that load has passed are deleted
    return [(found.device_id, found.after, found.at) for segment in left[-1:] for _, found in segment.transitions]


def quarantined(gate: Gate) -> int:
    """One device, in a segment that is sealed; since when."""
    for _ in range(10):
        gate.receive(FORGED)
    gate.intake.commit()
    gate.spool.writer.seal()
    assert gate.known().standing.state is DeviceState.QUARANTINED
    return gate.known().standing.state_at


def loaded(gate: Gate) -> None:
    """Load is behind everything that was sealed; so is the checkpoint."""
    gate.checkpoint()
    cursor = Cursor(gate.spool.identity.spool, gate.spool.writer.next_segment - 1, "00" * 32)
    write_cursor(gate.spool.directory, cursor)


def test_a_quarantine_of_which_control_never_heard_is_recorded_again(two: Gate) -> None:
    """With its own time, at the start after load has passed its record, which was damaged: else its device would be
    held for ever without a case."""
    at_ms = quarantined(two)
    loaded(two)
    two.clock.ms += 60_000
    assert told_again(two) == [(DEVICE_ID, "quarantined", at_ms)]
    two.close()


def test_a_quarantine_that_load_will_read_of_is_not_recorded_again(two: Gate) -> None:
    """Each start while load is behind would add to what it has to read."""
    quarantined(two)
    told_again(two)
    assert two.known().told_at == 0
    two.close()


@pytest.mark.parametrize("state", [DeviceState.QUARANTINED, DeviceState.RELEASED])
def test_a_quarantine_that_control_has_or_a_person_ended_is_not_recorded_again(two: Gate, state: DeviceState) -> None:
    """There is nothing to tell."""
    at_ms = quarantined(two)
    loaded(two)
    two.records = [record(state=state, state_at_ms=at_ms + 1), record(TWO)]
    assert told_again(two) == []
    two.close()


def test_what_an_edge_recorded_itself_is_recorded_again_once_it_was_forgotten_only(two: Gate) -> None:
    """Load may not have come to it: its device's records change for many reasons meanwhile."""
    at_ms = quarantined(two)
    two.scores.tell_again(two.known())
    two.spool.writer.seal()
    assert two.known().told_at == at_ms
    assert [len(segment.transitions) for segment in read_segments(two.spool.directory / "segments", 0)] == [2]
    two.checkpoint()
    two.fleet.forget_idle(math.inf)
    two.scores.taken(two.known())
    two.scores.taken(two.known())
    two.intake.commit()
    two.spool.writer.seal()
    [*_, newest] = read_segments(two.spool.directory / "segments", 0)
    assert [found.at for _, found in newest.transitions] == [at_ms]
    two.close()
