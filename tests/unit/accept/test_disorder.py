"""Disorder: an honest device's is told apart from that of two who share a key, by the numbers and times they sign."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetgate.accept.disorder import (
    IN_FLIGHT_MS,
    MAX_UNANSWERED,
    OVERLAP_MS,
    STOP_MS,
    Disorder,
    Finding,
    Repeats,
    Timeline,
    signal_of,
)
from fleetgate.judge.sequence import Windows, tag_prefix

DUPLICATE, LATE, GAP, ROLLBACK, RESET, REPLAY, CLONE = Disorder
REPLAYED = Finding(REPLAY, "replay")
AGAIN = Finding(DUPLICATE)
ONE, OTHER = object(), object()
T0 = 1_000_000


def windows(**highest: int) -> Windows:
    """Of the epochs `e1`, `e2` ..., up to these numbers."""
    made = Windows()
    for name, number in highest.items():
        made.claim(int(name[1:]), number, bytes(15) + b"\x01", T0)
    return made


class TestRepeats:
    """Messages that came before, on one connection."""

    def test_what_has_no_answer_is_repeated_once_and_in_order(self) -> None:
        """After a reconnect, over two epochs: no more than a retry."""
        repeats, seen = Repeats((2, 5)), windows(e1=100, e2=5)
        keys = [(1, 90), (1, 95), (2, 0), (2, 5)]
        assert [repeats.note(seen, *key) for key in keys] == [AGAIN] * 4

    def test_a_repeat_of_what_this_connection_has_had_answered_is_a_replay(self) -> None:
        """The same again, or one before it."""
        repeats, seen = Repeats((1, 50)), windows(e1=50)
        assert [repeats.note(seen, 1, seq) for seq in (3, 4, 4, 3, 5)] == [AGAIN, AGAIN, REPLAYED, REPLAYED, AGAIN]

    def test_a_repeat_of_what_was_new_on_this_session_is_a_replay(self) -> None:
        """It had its answer here. Over HTTPS it may have been another connection that broke."""
        seen, session, https = windows(e1=50), Repeats((1, 49)), Repeats(None)
        for connection in (session, https):
            connection.took(1, 50)
        assert (session.note(seen, 1, 50), https.note(seen, 1, 50)) == (REPLAYED, AGAIN)

    def test_a_repeat_of_what_came_first_elsewhere_is_none(self) -> None:
        """Held back on its session, while its device went on over HTTPS."""
        assert Repeats((1, 40)).note(windows(e1=5_000), 1, 41) == AGAIN

    def test_a_repeat_that_was_told_to_come_later_is_no_replay(self) -> None:
        """The rate limit refuses before anybody looks at numbers, so they come out of order."""
        repeats, seen = Repeats((1, 50)), windows(e1=50)
        repeats.note(seen, 1, 5)
        repeats.delayed()
        assert repeats.note(seen, 1, 4) == AGAIN

    def test_more_repeats_than_a_device_may_have_open_are_replays(self) -> None:
        """512 wait for an answer at most."""
        repeats, seen = Repeats((1, 511)), windows(e1=511)
        repeats.note(seen, 1, 0)
        repeats.delayed()
        found = [repeats.note(seen, 1, seq) for seq in range(MAX_UNANSWERED)]
        assert found == [AGAIN] * (MAX_UNANSWERED - 1) + [REPLAYED]

    @pytest.mark.parametrize(("key", "found"), [((3, 89), REPLAYED), ((3, 90), AGAIN), ((2, 900), REPLAYED)])
    def test_a_repeat_from_before_the_last_512_numbers_is_a_replay(self, key: tuple[int, int], found: Finding) -> None:
        """Behind a message without an answer no more are given out, in its epoch and those after it. One signed just
        now may have been held back while its device repeated it over another connection, and went on."""
        seen = windows(e2=1_000, e3=100, e4=500)
        assert Repeats((4, 500)).note(seen, *key, late=True) == found
        assert Repeats((4, 500)).note(seen, *key) == AGAIN

    def test_over_https_no_number_is_too_old_to_be_repeated(self) -> None:
        """A backlog was signed minutes ago, and its request may have been held back as well."""
        assert Repeats(None).note(windows(e1=2_000), 1, 0, late=True) == AGAIN


class TestTimelines:
    """Numbers that go back: `line` is a device whose epoch 5 began at T0 and has come to number 10."""

    @pytest.fixture
    def line(self) -> Timeline:
        return Timeline(T0)

    def test_a_backlog_of_an_older_epoch_is_nothing(self, line: Timeline) -> None:
        """It was signed before its process ended."""
        assert line.go_on(4, 9, T0 + OVERLAP_MS, 5, 8) is None
        assert not line.astray

    def test_an_edge_that_does_not_know_when_the_epoch_began_judges_nobody_by_it(self) -> None:
        """As after an upgrade."""
        assert Timeline().go_on(4, 9, 2 * T0, 5, 8) is None

    def test_a_restored_backup_is_scored_once(self, line: Timeline) -> None:
        """It goes on in an older epoch, and the newer one is silent."""
        later = T0 + OVERLAP_MS + 1
        found = [line.go_on(4, seq, later, 5, seq - 1) for seq in range(9, 13)]
        assert found == [Finding(ROLLBACK, "rollback")] + [Finding(ROLLBACK)] * 3

    def test_two_epochs_that_go_on_by_turns_are_two_devices(self, line: Timeline) -> None:
        """The clone began epoch 5, the original goes on in its own: each turn is scored, not each message."""
        later = T0 + OVERLAP_MS + 1
        found = [line.go_on(4, 9, later, 5, 8), line.go_on(5, 11, later, 5, 10), line.go_on(5, 12, later, 5, 11)]
        found += [line.go_on(4, 10, later, 5, 9), line.go_on(5, 13, later, 5, 12)]
        overlap = Finding(CLONE, "epoch_overlap")
        assert found == [Finding(ROLLBACK, "rollback"), overlap, Finding(CLONE), overlap, overlap]

    def test_a_lost_counter_is_scored_once_for_all_that_is_in_flight(self, line: Timeline) -> None:
        """From number 0 of an epoch that the gate knows; behind the used numbers it goes on with new ones."""
        found = [line.conflict(5, seq, T0, ONE) for seq in range(11)]
        found += [line.go_on(5, seq, T0, 5, seq - 1) or AGAIN for seq in range(11, 14)]
        assert found == [Finding(RESET, "reset")] + [Finding(RESET)] * 13

    def test_an_older_number_is_a_rollback(self, line: Timeline) -> None:
        """A snapshot of a running device was restored."""
        assert line.conflict(5, 7, T0, ONE) == Finding(ROLLBACK, "rollback")

    def test_a_device_that_stops_and_comes_back_is_scored_again_as_the_same(self, line: Timeline) -> None:
        """Ten minutes later, with one that cannot read the epoch in the answer."""
        line.conflict(5, 0, T0, ONE)
        assert line.conflict(5, 1, T0 + STOP_MS + 1, OTHER) == Finding(ROLLBACK, "rollback")

    def test_a_device_that_goes_on_above_the_named_epoch_is_in_order_again(self, line: Timeline) -> None:
        """What its answer told it to do."""
        line.conflict(5, 0, T0, ONE)
        assert line.go_on(6, 0, T0, 5, -1) is None
        assert (line.astray, line.epoch_sent_at) == (False, T0)

    def test_who_goes_on_after_the_stop_is_scored_for_each(self, line: Timeline) -> None:
        """On the same connection, after all that was on its way."""
        line.conflict(5, 0, T0, ONE)
        found = [line.conflict(5, seq, T0 + IN_FLIGHT_MS + 1, ONE) for seq in (1, 2)]
        assert found == [Finding(CLONE, "equivocation")] * 2

    def test_a_stop_that_was_not_heard_is_no_clone(self, line: Timeline) -> None:
        """The answer was lost: all of it again on the next connection, which is told to stop as well."""
        found = [line.conflict(5, seq, T0 + at, where) for at, where in ((0, ONE), (20_000, OTHER)) for seq in range(3)]
        assert found == [Finding(RESET, "reset"), Finding(RESET), Finding(RESET)] * 2
        assert line.conflict(5, 3, T0 + 31_000, OTHER) == Finding(CLONE, "equivocation")

    def test_a_number_given_out_behind_the_stop_and_once_more_is_a_clone(self, line: Timeline) -> None:
        """The two count on from the same state: each number comes twice, on connections of its own. The first run of
        the other one may be a second start; what it then gives out, the one gives out again."""
        assert line.conflict(5, 10, T0, ONE) == Finding(ROLLBACK, "rollback")
        assert line.go_on(5, 11, T0, 5, 10) == Finding(ROLLBACK)
        assert line.conflict(5, 9, T0, OTHER) == Finding(ROLLBACK, "rollback")
        assert line.conflict(5, 11, T0, OTHER) == Finding(ROLLBACK)
        assert line.go_on(5, 12, T0, 5, 11) == Finding(ROLLBACK)
        assert line.conflict(5, 12, T0, ONE) == Finding(CLONE, "equivocation")

    def test_a_device_that_starts_twice_from_nothing_before_an_answer_is_no_clone(self, line: Timeline) -> None:
        """Its storage is dead, and it is switched off each time before it reads the stop: all of it again, and more."""
        for where, came_to in ((ONE, 10), (OTHER, 20), (object(), 25)):
            found = [line.conflict(5, seq, T0, where) for seq in range(came_to + 1)]
            found += [line.go_on(5, seq, T0, 5, seq - 1) or AGAIN for seq in range(came_to + 1, came_to + 11)]
            assert {each.signal for each in found} == {"reset", ""}

    def test_an_epoch_that_goes_on_behind_three_newer_ones_is_another_devices(self, line: Timeline) -> None:
        """A clone begins a new epoch every minute, and the original goes on in its own."""
        found = []
        for epoch in range(6, 11):
            began = T0 + epoch * 60_000
            found += [line.go_on(epoch, 0, began, epoch - 1, -1), line.go_on(4, epoch, began + 1, epoch, epoch - 1)]
        overlap = Finding(CLONE, "epoch_overlap")
        assert [each for each in found if each] == [overlap, overlap]

    def test_a_device_that_starts_again_and_again_is_nothing(self, line: Timeline) -> None:
        """Its clock is set back a little each time, and what waited comes behind the first message of each start."""
        found = []
        for epoch in range(6, 20):
            began = T0 + epoch * 60_000
            found += [line.go_on(epoch, 0, began, epoch - 1, -1), line.go_on(epoch - 1, 9, began + 1, epoch, 8)]
        assert not any(found)

    def test_more_of_an_older_epoch_than_can_wait_is_another_devices(self, line: Timeline) -> None:
        """It dates what it sends before the newer epoch began."""
        found = [line.go_on(4, seq, T0 - 1, 5, seq - 1) for seq in range(MAX_UNANSWERED + 1)]
        assert found == [None] * MAX_UNANSWERED + [Finding(ROLLBACK, "rollback")]
        assert line.go_on(5, 11, T0, 5, 10) == Finding(CLONE, "epoch_overlap")

    def test_a_backup_that_is_restored_twice_is_no_clone(self, line: Timeline) -> None:
        """Nobody told it to stop in between."""
        line.go_on(4, 9, T0 + OVERLAP_MS + 1, 5, 8)
        line.go_on(4, 10, T0 + OVERLAP_MS + 1, 5, 9)
        assert line.conflict(4, 9, T0 + STOP_MS, ONE) == Finding(ROLLBACK)

    def test_used_numbers_while_the_device_goes_on_are_a_clone(self, line: Timeline) -> None:
        """The original's next number cannot be the clone's, which has not come that far."""
        line.conflict(5, 3, T0, ONE)
        assert line.go_on(5, 11, T0, 5, 10) == Finding(CLONE, "equivocation")
        assert line.conflict(5, 4, T0, ONE) == Finding(CLONE, "equivocation")

    def test_a_hole_that_a_restored_device_fills_is_not_its_newer_timeline(self, line: Timeline) -> None:
        """A number below the highest that was never used."""
        line.conflict(5, 3, T0, ONE)
        assert line.go_on(5, 4, T0, 5, 10) == Finding(ROLLBACK)


Raw = tuple[int, int, bytes]


class Ear:
    """What the gate makes of the messages of one device, as (epoch, number, tag)."""

    def __init__(self) -> None:
        self.seen, self.line, self.current = Windows(), Timeline(), 0
        self.raised: list[str] = []

    def hear(self, raw: Raw, now: int, connection: object, repeats: Repeats) -> bool:
        """Whether it is answered so that its device goes on as it is."""
        epoch, seq, tag = raw
        window = self.seen.by_epoch.get(epoch)
        if window is None and epoch < self.current:
            return False  # stale_epoch
        held = window.slots[seq & 1023] if window is not None and seq <= window.highest else 0
        found: Finding | None = None
        if held and held != tag_prefix(tag):
            found = self.line.conflict(epoch, seq, now, connection)
        elif held:
            found = repeats.note(self.seen, epoch, seq)
        elif epoch != self.current or self.line.astray:
            found = self.line.go_on(epoch, seq, now, self.current, self.seen.highest(epoch))
        self.raised += [found.signal] if found is not None and found.signal else []
        if not held:
            repeats.took(epoch, seq)
            self.seen.claim(epoch, seq, tag, now)
            self.current = max(self.current, epoch)
        return not held or held == tag_prefix(tag)


@st.composite
def honest(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    """A life of an honest device, as (what, how many messages, how many times none of their answers arrives)."""
    what = st.sampled_from(["send", "reboot", "lose", "flicker"])
    return draw(st.lists(st.tuples(what, st.sampled_from([3, 40, 60]), st.integers(0, 3)), max_size=25))


GRAVE = {"equivocation", "epoch_overlap", "replay"}


@settings(max_examples=200, deadline=None)
@given(honest(), st.booleans())
def test_no_honest_life_raises_a_grave_signal(life: list[tuple[str, int, int]], https: bool) -> None:
    """Whatever is lost, repeated, rebooted and forgotten: at most one `rollback` or `reset` for each loss, and for each
    connection on which the answer was lost as well."""
    ear, now, tag = Ear(), T0, 0
    epoch, seq, expected, flickered = 0, 0, 0, False
    for what, count, unheard in [("reboot", 3, 0), *life]:
        # A device that was told to stop comes back after ten minutes; one that was switched off first, at any time.
        now += 60_000 if flickered else 700_000
        if what in ("lose", "flicker") or flickered:
            epoch, seq, expected = 1, 0, expected + 1 + unheard
        elif what == "reboot":
            epoch, seq, expected = epoch + 1, 0, expected + 1 + unheard
        waiting: list[Raw] = []
        for attempt in range(unheard + 1):
            connection, repeats = object(), Repeats(None if https else (ear.current, ear.seen.highest(ear.current)))
            for _ in range(count if not attempt else 2):
                tag += 1
                waiting.append((epoch, seq, tag.to_bytes(16, "little")))
                seq += 1
            now += 15_000
            answers = [ear.hear(raw, now, connection, repeats) for raw in waiting]
        flickered = what == "flicker"  # it ends before it has read an answer, and its counter is lost
        if not all(answers) and not flickered:  # the last ones arrived, and name the epoch above which it goes on
            epoch, seq = ear.current + 1, 0
    assert not GRAVE & set(ear.raised)
    assert len(ear.raised) <= expected


def test_a_refusal_scores_what_its_class_says() -> None:
    """Used numbers of a lost counter weigh less than those of a clone; every other reason is its own signal."""
    assert [signal_of("equivocation", each) for each in ("reset", "rollback", "clone", "")] == [
        "reset", "rollback", "equivocation", "equivocation",
    ]  # fmt: skip
    assert signal_of("bad_mac", "") == "bad_mac"
