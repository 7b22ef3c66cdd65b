"""A device that goes on with what is refused is told more slowly, and every time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gates import Gate, feed, packets_in, publish
from tests.units import elements, pack, sign

from fleetgate.accept.brake import BRAKING, LIMITED_AT_ONCE, LONGEST_LIMITED_SECONDS, Brake
from fleetgate.config import DeviceLimit, Limit, Limits, Policy
from fleetgate.judge import Reason
from fleetgate.spool.reader import read_segment, segment_paths

POLICY = Policy(refused_at_once=32, refused_per_second=0.5)
AT_ONCE = POLICY.refused_at_once
WAIT_MS = 2000
TIME_REASONS = {Reason.CLOCK_AHEAD, Reason.TOO_OLD, Reason.BEHIND_WINDOW, Reason.STALE_EPOCH}


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    opened = Gate(tmp_path, settings=POLICY)
    yield opened
    opened.close()


def forged(count: int, first: int = 0) -> bytes:
    """So many PUBLISH packets, each with a tag that nobody made."""
    return b"".join(
        publish(pack(elements(seq=seq, key=bytes(32))), packet_id=seq + 1) for seq in range(first, first + count)
    )


def test_what_a_good_device_may_cause_does_not_brake_it() -> None:
    """Its clock, its backlog; and what is above its limits only until it may send again."""
    assert BRAKING.isdisjoint(TIME_REASONS | {Reason.RATE_LIMITED, Reason.OVERSIZED})
    assert {Reason.BAD_MAC, Reason.MALFORMED_ENVELOPE, Reason.MALFORMED_BODY, Reason.EQUIVOCATION} <= BRAKING


def test_some_refusals_are_free_and_then_it_is_one_every_two_seconds() -> None:
    """And free again when it has behaved for as long."""
    brake = Brake()
    held = []
    for _ in range(AT_ONCE):
        brake.refused(100.0, POLICY)
        held.append(brake.until_s > 100.0)
    assert held == [False] * (AT_ONCE - 1) + [True]
    assert brake.until_s == 102.0
    brake.refused(102.0, POLICY)
    assert brake.until_s == 104.0
    brake.refused(102.0 + 2 * AT_ONCE, POLICY)
    assert brake.until_s == 104.0


def test_a_flood_of_one_read_is_answered_a_few_at_a_time(gate: Gate) -> None:
    """The rest waits where it is and is judged later: nothing that came is passed over, and nothing is told twice."""
    session = gate.live()
    feed(session, gate.clock, forged(AT_ONCE + 3))
    assert (len(session.acks), session.slowed) == (AT_ONCE, True)
    for _ in range(3):
        gate.clock.ms += WAIT_MS
        feed(session, gate.clock, b"")
    assert (len(session.acks), session.slowed) == (AT_ONCE + 3, True)
    gate.clock.ms += WAIT_MS
    feed(session, gate.clock, b"")
    assert not session.slowed
    told = [packet.packet_id for packet in packets_in(b"".join(session.acks))]
    assert told == list(range(1, AT_ONCE + 4))


def test_every_refusal_that_was_told_is_on_record(gate: Gate) -> None:
    """As without a brake."""
    session = gate.live()
    feed(session, gate.clock, forged(AT_ONCE + 3))
    gate.intake.commit()
    gate.spool.writer.seal()
    segment = read_segment(segment_paths(gate.spool.directory / "segments")[-1][1])
    assert sum(record.count for _, record in segment.rejections) == len(session.acks)


def test_a_new_connection_of_the_same_device_gains_nothing(gate: Gate) -> None:
    """The brake is the device's."""
    feed(gate.live(), gate.clock, forged(AT_ONCE))
    again = gate.live()
    feed(again, gate.clock, forged(5, first=40))
    assert (len(again.acks), again.slowed) == (1, True)


def test_its_good_messages_behind_are_late_and_not_lost(gate: Gate) -> None:
    """One that was sent after the flood is accepted once it is read."""
    session = gate.live()
    feed(session, gate.clock, forged(AT_ONCE) + publish(sign(seq=0), packet_id=99))
    assert session.slowed
    gate.clock.ms += WAIT_MS
    feed(session, gate.clock, b"")
    assert (gate.counts.events, session.slowed) == (1, False)


def refused(gate: Gate) -> int:
    return gate.counts.reasons["mqtt"][Reason.RATE_LIMITED]


class TestAboveItsOwnLimits:
    @pytest.fixture
    def narrow(self, tmp_path: Path) -> Iterator[Gate]:
        opened = Gate(tmp_path, limits=Limits(device=DeviceLimit(messages="10/s")))
        yield opened
        opened.close()

    def test_it_is_told_as_often_as_it_may_have_messages_in_flight_and_then_waits(self) -> None:
        """Until something may pass again, and not for hours; in a while it is told at once again."""
        brake = Brake()
        for _ in range(LIMITED_AT_ONCE):
            assert brake.until_s < 100.0
            brake.limited(100.0, 0.3)
        assert brake.until_s == 100.3
        brake.limited(100.3, 3600.0)
        assert brake.until_s == 100.3 + LONGEST_LIMITED_SECONDS
        brake.limited(100.3 + 2 * LIMITED_AT_ONCE, 3600.0)
        assert brake.until_s == 100.3 + LONGEST_LIMITED_SECONDS

    def test_a_flood_is_not_read_and_what_may_pass_does(self, narrow: Gate) -> None:
        """Ten pass, as many as may be in flight are refused, and from then on in each second as many as its limit lets
        pass, and one refusal."""
        session = narrow.live()
        feed(session, narrow.clock, b"".join(publish(sign(seq=seq), qos=0) for seq in range(1000)))
        assert (narrow.counts.events, refused(narrow), session.slowed) == (10, LIMITED_AT_ONCE, True)
        for second in (1, 2, 3):
            narrow.clock.ms += 1000
            feed(session, narrow.clock, b"")
            assert (narrow.counts.events, refused(narrow)) == (10 + 10 * second, LIMITED_AT_ONCE + second)
            assert session.slowed

    def test_pings_are_answered_and_count(self, narrow: Gate) -> None:
        """A ping is a packet as any other; all that are read are answered, as a client may rely on."""
        session = narrow.live()
        session.out.clear()
        feed(session, narrow.clock, b"\xc0\x00" * 1000)
        assert (len(session.out) // 2, session.slowed) == (10 + LIMITED_AT_ONCE, True)

    def test_who_keeps_alive_beside_a_backlog_is_not_slowed(self, narrow: Gate) -> None:
        """A device that is told to come later, and does, is read from as ever."""
        session = narrow.live()
        for seq in range(300):
            feed(session, narrow.clock, publish(sign(seq=seq), packet_id=seq + 1) + b"\xc0\x00")
            session.acks.clear()
            narrow.clock.ms += 200
            assert not session.slowed
        assert narrow.counts.events == 300


def test_what_waited_is_charged_to_those_with_whom_its_device_shares_limits(tmp_path: Path) -> None:
    """When it is judged: what was read in one piece, and judged in three."""
    gate = Gate(tmp_path, settings=POLICY, limits=Limits(tenant=Limit(messages="1000/day")))
    session = gate.live()
    feed(session, gate.clock, forged(AT_ONCE + 1) + b"".join(publish(sign(seq=seq)) for seq in range(20)))
    left = []
    for _ in range(3):
        left.append(tenants_left(gate))
        gate.clock.ms += WAIT_MS
        feed(session, gate.clock, b"")
    assert left == [1000 - AT_ONCE, 1000 - AT_ONCE - 1, 1000 - AT_ONCE - 21]
    gate.close()


def tenants_left(gate: Gate) -> int:
    """In messages, to the next whole one: a day's rate fills up slowly."""
    [account] = gate.intake.senders(gate.caller())
    [bucket] = account._messages
    return int(bucket.left)
