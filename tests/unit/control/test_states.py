"""The states of a device: what no machine and no order of events can do, for any history."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetgate.control.records import DeviceState
from fleetgate.control.states import BY_MACHINE, BY_PERSON, Decision, Outcome, View, decided, merge, moved, step

TRUSTED, WATCHED, QUARANTINED, RELEASED, BANNED = DeviceState
NEW = View(TRUSTED, 0)
Moves = list[tuple[DeviceState, int]]

times = st.integers(1, 50)
steps = st.tuples(st.sampled_from(sorted(frozenset().union(*BY_MACHINE.values()))), times)
decisions = st.tuples(st.sampled_from(Decision), times)
views = st.one_of(
    st.builds(lambda state, at, decided_ms: View(state, decided_ms + at, decided_ms),
              st.sampled_from([TRUSTED, WATCHED, QUARANTINED]), times, st.integers(0, 50)),
    st.builds(lambda state, at: View(state, at, at), st.sampled_from([RELEASED, BANNED]), times),
)  # fmt: skip


def test_the_table_names_every_state_and_no_way_out_but_by_a_person() -> None:
    """Only a person's decision leads to released or banned, or out of quarantine."""
    reached = frozenset[DeviceState]().union(*BY_MACHINE.values())
    assert set(BY_MACHINE) == set(DeviceState)
    assert not reached & {RELEASED, BANNED} | BY_MACHINE[QUARANTINED] | BY_MACHINE[BANNED]


@given(st.sampled_from([QUARANTINED, BANNED]), times, st.lists(steps))
def test_no_machine_leads_out_of_quarantine_or_a_ban(state: DeviceState, at_ms: int, moves: Moves) -> None:
    """Whatever steps follow, in whatever order their times stand."""
    view = View(state, at_ms, at_ms if state is BANNED else 0)
    for after, when in moves:
        view, _ = step(view, after, when)
    assert view.state is state


@given(views, st.sampled_from(Decision), times, st.lists(steps))
def test_a_decision_outlives_every_step_of_an_earlier_time(
    view: View, decision: Decision, now_ms: int, moves: Moves
) -> None:
    """A transition that arrives late does not undo what a person has decided meanwhile."""
    after = decided(view, decision, now_ms)
    assert after.at_ms > view.at_ms
    for state, when in moves:
        assert step(after, state, min(when, after.at_ms)) == (after, Outcome.OVERTAKEN)


@given(views, st.sampled_from([TRUSTED, WATCHED, QUARANTINED]), times)
def test_a_step_is_applied_only_along_the_table(view: View, after: DeviceState, at_ms: int) -> None:
    """What is applied stands in the table; what is not leaves the state as it was."""
    stands, outcome = step(view, after, at_ms)
    if outcome is Outcome.APPLIED:
        assert after in BY_MACHINE[view.state]
        assert stands == View(after, at_ms, view.decided_ms)
    else:
        assert stands.state is view.state


@given(views, views)
def test_two_views_are_merged_the_same_from_either_side(one: View, other: View) -> None:
    """And what is merged already changes nothing."""
    merged = merge(one, other)
    assert merged == merge(other, one)
    assert merged == merge(merged, one) == merge(merged, other)


@given(st.lists(steps, min_size=1, max_size=5))
def test_steps_converge_in_any_order(moves: Moves) -> None:
    """Two edges' steps, arriving in any order and some of them twice, leave a device in one state."""
    ended = set()
    for order in permutations(moves):
        view = NEW
        for after, at_ms in (*order, *order):
            view = step(view, after, at_ms)[0]
        ended.add(view.state is QUARANTINED or view)
    assert len(ended) == 1


@dataclass
class Edge:
    """An edge: its view of the device, what it recorded and load has not handed on, and how far its clock is ahead."""

    ahead_ms: int
    view: View = NEW
    spooled: deque[tuple[DeviceState, int]] = field(default_factory=deque)

    def move(self, after: DeviceState, now_ms: int) -> None:
        if after in BY_MACHINE[self.view.state]:
            self.view = moved(self.view, after, now_ms + self.ahead_ms)
            self.spooled.append((after, self.view.at_ms))


events = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["move"]), st.integers(0, 1), st.sampled_from([TRUSTED, WATCHED, QUARANTINED])),
        st.tuples(st.sampled_from(["hand_on", "poll"]), st.integers(0, 1), st.just(TRUSTED)),
        st.tuples(st.sampled_from(["decide"]), st.sampled_from(Decision), st.just(TRUSTED)),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(events, st.sampled_from([0, 7, 40]))
@example(
    [
        ("move", 0, QUARANTINED),  # by the clock that is ahead: later than all that follows
        ("decide", Decision.BAN, TRUSTED),
        ("hand_on", 0, TRUSTED),
        ("decide", Decision.RELEASE, TRUSTED),
    ],
    40,
)
def test_two_edges_and_the_records_agree_once_everybody_has_heard_everything(
    happened: list[tuple[str, Any, DeviceState]], ahead_ms: int
) -> None:
    """Edges move a device on their own, load hands it on late, people decide meanwhile, edges poll late: at the end
    all say the same."""
    control, edges = NEW, [Edge(ahead_ms), Edge(0)]
    for turn, (what, who, state) in enumerate(happened):
        now_ms = 10 + turn // 2  # two things may happen in one millisecond
        if what == "move":
            edges[who].move(state, now_ms)
        elif what == "hand_on" and edges[who].spooled:
            control = step(control, *edges[who].spooled.popleft())[0]
        elif what == "poll":
            edges[who].view = merge(edges[who].view, control)
        elif what == "decide" and control.state in BY_PERSON[who][0]:
            control = decided(control, who, now_ms)
    for edge in edges:
        while edge.spooled:
            control = step(control, *edge.spooled.popleft())[0]
    assert [merge(edge.view, control).state for edge in edges] == [control.state] * 2


@pytest.mark.parametrize(
    ("view", "other", "state"),
    [
        (View(TRUSTED, 20), View(QUARANTINED, 10), QUARANTINED),  # it did not know of the quarantine
        (View(QUARANTINED, 10), View(RELEASED, 15, 15), RELEASED),
        (View(QUARANTINED, 20), View(RELEASED, 15, 15), QUARANTINED),  # it has misbehaved again since
        (View(QUARANTINED, 20), View(BANNED, 15, 15), BANNED),
        (View(BANNED, 15, 15), View(RELEASED, 16, 16), RELEASED),
        (View(WATCHED, 20, 15), View(TRUSTED, 20, 15), WATCHED),
        (View(WATCHED, 12), View(TRUSTED, 20), TRUSTED),
    ],
)
def test_what_stands_of_two_views(view: View, other: View, state: DeviceState) -> None:
    """The cases that the rule is made for."""
    assert merge(view, other).state is state
