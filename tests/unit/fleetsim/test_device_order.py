"""Epochs, numbers, the 512 limit and the order of sending."""

from __future__ import annotations

from tests.unit.fleetsim.bench import START_MS, Bench

from fleetsim import encode
from fleetsim.answers import Reaction
from fleetsim.core import MAX_IN_FLIGHT, OUTBOX_LIMIT


def test_nothing_is_signed_before_the_clock_is_set(bench: Bench) -> None:
    """A device that does not know the time gives out no number."""
    bench.core.connected(0)
    bench.journal.commit()
    assert bench.submit() == [False]


def test_nothing_is_signed_before_the_epoch_is_durable(bench: Bench) -> None:
    """The epoch is on disk before the first signature under it."""
    bench.core.told_time(START_MS)
    bench.core.connected(0)
    assert bench.core.submit(bench.draft()) is False


def test_nothing_is_sent_before_it_is_durable(bench: Bench) -> None:
    """Signed bytes are on disk before they go out."""
    bench.connect()
    bench.core.submit(bench.draft())
    before = bench.core.take()
    bench.journal.commit()
    assert (before, bench.core.take() is not None) == (None, True)


def test_the_epoch_is_above_the_gates_and_the_own(bench: Bench) -> None:
    """At a start the device takes one above the greater of its own last epoch and the gate's."""
    epochs = []
    for gate_epoch in (0, 7, 3):
        bench.connect(gate_epoch)
        epochs.append(bench.core.epoch)
        bench.journal.close()
        bench.start()
    assert epochs == [1, 8, 9]


def test_a_reconnect_keeps_the_epoch(bench: Bench) -> None:
    """The epoch belongs to the process, not to the connection."""
    bench.connect()
    bench.core.disconnected()
    bench.connect(gate_epoch=1)
    assert bench.core.epoch == 1


def test_numbers_count_from_0_without_gaps(bench: Bench) -> None:
    """0 for the first message of an epoch, and one more for each."""
    bench.connect()
    bench.submit(5)
    assert bench.notes.signed_keys == [(1, seq) for seq in range(5)]


def test_no_number_while_the_oldest_is_512_behind(bench: Bench) -> None:
    """512 unanswered messages are the most; answering the newest does not help, answering the oldest does."""
    bench.connect()
    bench.core.max_in_flight = OUTBOX_LIMIT
    accepted = bench.submit(OUTBOX_LIMIT + 1)
    sent = bench.take()
    bench.answer(sent[-1], "accepted", Reaction.DONE)
    stuck = bench.submit()
    bench.answer(sent[0], "accepted", Reaction.DONE)
    assert (accepted.count(True), accepted[-1], stuck, bench.submit()) == (OUTBOX_LIMIT, False, [False], [True])


def test_the_gates_receive_maximum_is_honoured(bench: Bench) -> None:
    """No more than the Receive Maximum is in flight, and never more than 128."""
    bench.core.told_time(START_MS)
    bench.core.connected(0, receive_maximum=3)
    bench.journal.commit()
    bench.submit(200)
    three = len(bench.take())
    bench.core.disconnected()
    bench.core.connected(0, receive_maximum=60_000)
    assert (three, len(bench.take())) == (3, MAX_IN_FLIGHT)


def test_a_lost_connection_repeats_the_same_bytes_in_order(bench: Bench) -> None:
    """What was in flight goes out again first, byte for byte, and then the rest."""
    bench.connect()
    bench.submit(4)
    first = [entry.raw for entry in bench.take(3)]
    bench.core.disconnected()
    again = bench.take()
    expected = [(1, seq) for seq in range(4)]
    assert ([entry.key for entry in again], [entry.raw for entry in again[:3]]) == (expected, first)


def test_an_answer_to_nothing_in_flight_is_ignored(bench: Bench) -> None:
    """An answer that comes late, from before the connection was lost, changes nothing."""
    entry = bench.send_one()
    bench.core.disconnected()
    bench.answer(entry, "accepted", Reaction.DONE)
    assert list(bench.core.outbox) == [entry.key]


def test_a_clock_near_the_gates_is_left_alone(bench: Bench) -> None:
    """A difference of half a second is the road's; a larger one is the clock's."""
    bench.connect()
    bench.core.told_time(START_MS + 400)
    bench.submit()
    bench.core.told_time(START_MS + 900)
    bench.submit()
    times = [encode.decode_envelope(entry.raw).sent_at - START_MS for entry in bench.take()]
    assert times == [0, 900]


def test_events_older_than_30_days_are_left_out(bench: Bench) -> None:
    """What cannot be said any more is not said, and uses no number up."""
    bench.connect()
    month_ms = -encode.OLDEST_AT_MS
    offered = bench.core.submit(bench.draft(age_ms=month_ms + 1))
    bench.core.submit(bench.draft(age_ms=month_ms))
    assert (offered, bench.notes.signed_keys) == (True, [(1, 0)])


def test_columns_leave_out_what_their_32_bits_cannot_say(bench: Bench) -> None:
    """An event of 25 days ago, which rows could say."""
    bench.connect()
    limit_ms = -encode.OLDEST_AT_IN_COLUMNS_MS
    for age_ms in (limit_ms + 1, limit_ms):
        assert bench.core.submit(bench.draft(age_ms=age_ms)._replace(enc=encode.COLUMNS))
    assert bench.notes.signed_keys == [(1, 0)]
