"""The cases themselves, as far as they can be looked at without load."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from loadtest.bench import judge_case, sustained_case
from loadtest.bench.context import FULL, QUICK, Context, medians
from loadtest.bench.edge_cases import check, late
from loadtest.bench.herd_case import handshakes_failed
from loadtest.bench.processes import BenchError
from loadtest.bench.run import CASES, ROOM_GB
from loadtest.bench.sketch_case import encode_bodies

from fleetgate.catalogue import catalogue
from fleetgate.judge import Credential, Device, Peer, Policy
from fleetgate.judge.keys import MacKeys


def test_sustained_runs_after_chatty() -> None:
    """Its rate is half of what chatty reached."""
    order = list(CASES)
    assert order.index("chatty") < order.index("sustained")


def test_quick_is_nowhere_larger_than_full() -> None:
    """It is for a look, and stays under three minutes."""
    assert all(quick <= full for quick, full in zip(QUICK, FULL, strict=True))


def test_the_median_of_the_rounds_counts() -> None:
    """One round that a neighbour disturbed does not move the figure."""
    assert medians([{"a": 1.0}, {"a": 100.0}, {"a": 2.0}]) == {"a": 2.0}


def test_a_figure_that_a_round_does_not_have_was_0_there() -> None:
    """`late_messages` is only where there were some."""
    assert medians([{"a": 1.0}, {"a": 1.0, "late_messages": 4.0}, {"a": 1.0, "late_messages": 2.0}]) == {
        "a": 1.0,
        "late_messages": 2.0,
    }


def test_messages_signed_late_are_a_figure_only_where_there_were_some() -> None:
    """0 of them is what every reader expects."""
    assert late({"late_messages": 0}) == {}
    assert late({"late_messages": 7}) == {"late_messages": 7.0}


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ({"answers_in_all": {"accepted": 1, "bad_mac": 1}, "ended": {}, "unanswered": 0}, "bad_mac"),
        ({"answers_in_all": {"accepted": 1}, "ended": {"closed": 1}, "unanswered": 0}, "closed"),
        ({"answers_in_all": {"accepted": 1}, "ended": {}, "unanswered": 7}, "7 messages were due and had no answer"),
    ],
    ids=["refused", "ended", "unanswered"],
)
def test_a_message_that_was_not_accepted_fails_its_case(seen: dict[str, object], why: str) -> None:
    """A figure over some of the messages is none."""
    with pytest.raises(BenchError, match=why):
        check(seen)


def herd(failed: int, again_failed: int, ended: dict[str, int]) -> dict[str, object]:
    return {"connect": {"failed": failed}, "reconnect": {"failed": again_failed}, "ended": ended}


def test_failed_handshakes_of_the_herd_are_counted() -> None:
    """Of both times: the target is missed then, and the figure says by how many."""
    assert handshakes_failed(herd(0, 0, {})) == 0
    assert handshakes_failed(herd(1, 2, {"closed": 3})) == 3


def test_a_connection_of_the_herd_that_was_up_must_stay() -> None:
    """One that the edge ends later is no failed handshake."""
    with pytest.raises(BenchError, match="ended connections of the herd"):
        handshakes_failed(herd(0, 1, {"closed": 2}))


def test_sustained_says_when_it_had_no_figures_of_chatty(tmp_path: Path) -> None:
    """10,000 a second is then nobody's half."""
    context = Context(tmp_path, QUICK)
    assert sustained_case.rate_of("sustained", context) == 10_000
    assert context.notes == ["sustained: no figures of chatty in this run, so 10,000 messages/s were offered"]
    context.rounds["chatty"] = [{"events_per_s": 30_000.0}]
    assert sustained_case.rate_of("sustained", context) == 15_000


def test_a_gate_that_falls_behind_fails_sustained() -> None:
    """Latencies at a rate that was not reached are those of another rate."""
    sustained_case.check_kept_up(1000, 995)
    with pytest.raises(BenchError, match="1,000 messages/s were offered and 900 answered"):
        sustained_case.check_kept_up(1000, 900)


@pytest.mark.parametrize("kind", ["accepted", "forged", "garbage"])
def test_judge_measures_only_what_is_what_it_is_taken_for(kind: str) -> None:
    """A good message among the garbage, or garbage among the good, ends the case."""
    key = MacKeys({1: b"r" * 32}, "acme", "bench-tcu", b"d" * 32)
    peer = Peer(Device("acme", "bench-tcu", "bench"), Credential(b"d" * 32, b"f" * 32, key), json_allowed=False)
    wrong = b"\x98" if kind != "garbage" else msgspec.msgpack.encode([1, 1, 1, 0, 0, 1, b"body", b"t" * 16])
    with pytest.raises(BenchError, match=f"a message meant as {kind} is REJECTED"):
        judge_case.check({kind: [wrong]}, lambda: peer, Policy("bench", catalogue().bodies))


def test_both_sizes_say_how_much_room_they_need() -> None:
    """On disk, under the temporary directory."""
    assert ROOM_GB[QUICK] < ROOM_GB[FULL]


def test_judge_gives_the_figures_that_are_asked_for() -> None:
    """By their names in the JSON."""
    [figures] = judge_case.rounds(1)
    assert set(figures) == {"accepted_us", "floor_us", "ratio_to_floor", "forged_us", "garbage_us"}


def test_the_sketch_gets_bodies_of_its_own_shape() -> None:
    """As many events as the edge's, 8 signals each; the kind is a number, and different messages differ."""
    bodies = [msgspec.msgpack.decode(raw, strict=False) for raw in encode_bodies(60)]
    assert {(len(events), len(event), event[1], len(event[2])) for *_, events in bodies for event in events} == {
        (60, 3, 0, 8)
    }
    assert len({str(body) for body in bodies}) > 1
