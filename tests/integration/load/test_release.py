"""What a decision releases is copied from `held_events` into `events` exactly once, whatever is repeated or cut off."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from tests.integration.load.test_exactly_once import Flaky, Killed, forget_tokens
from tests.integration.load.test_retry import refuse, retry
from tests.segments import DAY_MS, RECEIVED_AT, peer, rows_body, sample

from fleetgate.clock import SystemClock
from fleetgate.control.releases import NO_END_MS, Release
from fleetgate.errors import ClickHouseAway
from fleetgate.load import release
from fleetgate.load.counts import Counts
from fleetgate.load.release import Releases

HELD = 2
WITHOUT = "toString(tuple(* EXCEPT (decision)))"


class Broken(Flaky):
    """Breaks at the statement that copies as well, told by "copy"."""

    def command(self, sql: str, parameters: Any = None) -> None:
        when = self.breaks.pop("copy", None) if sql.startswith("INSERT INTO events (") else None
        if when != "before":
            self._clickhouse.command(sql, parameters)
        if when is not None:
            self.on_break()
            raise ClickHouseAway("the connection broke")


class Halting(SystemClock):
    """Time that passes at each look: no pause is waited for."""

    def __init__(self) -> None:
        self.s, self.step_s = 0.0, 10.0

    def monotonic(self) -> float:
        self.s += self.step_s
        return self.s


def hold(bench: Any, name: str, received_at: int = RECEIVED_AT) -> None:
    """A segment with one accepted event of the device, and three that were held, in two messages on two days."""
    sender = peer(bench.vehicle(name))
    bench.spool.message(rows_body(sample(0, s1=1.0)), sender=sender, received_at=received_at)
    bench.spool.message(
        rows_body(sample(-500, s1=10.0), sample(0, s1=20.0)), sender=sender, outcome=HELD, received_at=received_at + 1
    )
    body = rows_body(sample(0, s1=30.0))
    bench.spool.message(body, sender=sender, outcome=HELD, received_at=received_at + DAY_MS)
    bench.spool.seal()


def decide(bench: Any, name: str, since: int = RECEIVED_AT, until: int = NO_END_MS) -> Release:
    number = len(bench.decided) + 1
    device = peer(bench.vehicle(name)).device_id
    decided = Release(number, f"{number}-{RECEIVED_AT}", "acme", device, since, until)
    bench.decided.append(decided)
    return decided


def finish(bench: Any, clickhouse: Any = None) -> None:
    """A new load, until nothing is left to do."""
    bench.restart(clickhouse)
    bench.load_all()


def released(bench: Any, name: str) -> dict[str, Any]:
    """Rows by table of the device; the copies against the held rows, column by column; and the rollups."""
    device = {"d": peer(bench.vehicle(name)).device_id, "v": bench.vehicle(name)}

    def ask(sql: str) -> list[list[Any]]:
        found: list[list[Any]] = bench.clickhouse.rows(sql, device)
        return found

    copies = ask(f"SELECT {WITHOUT} FROM events WHERE device_id = {{d:String}} AND decision != '' ORDER BY 1")
    held = ask(f"SELECT {WITHOUT} FROM held_events WHERE device_id = {{d:String}} ORDER BY 1")
    return {
        "accepted": int(ask("SELECT count() FROM events WHERE device_id = {d:String} AND decision = ''")[0][0]),
        "copies": len(copies),
        "alike": copies == held,
        "now": int(ask("SELECT count() FROM held_now WHERE device_id = {d:String}")[0][0]),
        "rollup": ask("SELECT sum(readings), sum(total) FROM signal_minute WHERE vehicle_id = {v:String}")[0],
    }


ALL = {"accepted": 1, "copies": 3, "alike": True, "now": 0, "rollup": [4, 61]}
NONE = {"accepted": 1, "copies": 0, "alike": False, "now": 3, "rollup": [1, 1]}


def test_a_decision_copies_what_was_held_with_its_provenance(bench: Any) -> None:
    """Of this device alone; every column is as it was held, and `decision` names the decision."""
    hold(bench, "released")
    hold(bench, "other")
    bench.load_all()
    assert released(bench, "released") == NONE
    decision = decide(bench, "released")
    finish(bench)
    assert (released(bench, "released"), released(bench, "other")) == (ALL, NONE)
    names = bench.clickhouse.rows(
        "SELECT DISTINCT decision FROM events WHERE device_id = {d:String} ORDER BY 1", {"d": decision.device_id}
    )
    assert names == [[""], [decision.decision]]


@pytest.mark.parametrize(
    ("step", "when", "tokens"),
    [
        ("copy", "before", "known"),
        ("copy", "after", "known"),
        ("copy", "after", "forgotten"),
        ("releases", "before", "forgotten"),
        ("releases", "after", "known"),
    ],
)
def test_a_crash_at_any_step_is_repaired_by_the_next_start(bench: Any, step: str, when: str, tokens: str) -> None:
    """The process ends before or after a segment is copied, or before or after that is noted."""
    name = f"crash-{step}-{when}-{tokens}"
    hold(bench, name)
    bench.load_all()
    decide(bench, name)
    deadly = Broken(bench.clickhouse)
    deadly.breaks[step] = when

    def die() -> None:
        raise Killed

    deadly.on_break = die
    with pytest.raises(Killed):
        finish(bench, deadly)
    if tokens == "forgotten":
        forget_tokens(bench)
    for _ in range(2):
        finish(bench)
        assert released(bench, name) == ALL


@pytest.mark.parametrize("step", ["copy", "releases"])
def test_an_answer_that_got_lost_is_asked_for_again(bench: Any, step: str) -> None:
    """ClickHouse did it and the connection broke: the same process finds it done."""
    name = f"lost-{step}"
    hold(bench, name)
    bench.load_all()
    decide(bench, name)
    flaky = Broken(bench.clickhouse)
    flaky.breaks[step] = "after"
    releases = Releases(flaky, bench.since, bench.of, Counts(CollectorRegistry()), Halting())
    assert not releases.step()
    while releases.step():
        pass
    assert released(bench, name) == ALL


def test_restored_records_give_the_same_number_to_another_decision(bench: Any) -> None:
    """A load that ran meanwhile follows them, though it has seen that number."""
    for name in ("restored-away", "restored"):
        hold(bench, name)
    bench.load_all()
    decide(bench, "restored-away")
    releases = Releases(bench.clickhouse, bench.since, bench.of, Counts(CollectorRegistry()), Halting())
    while releases.step():
        pass
    bench.decided.clear()
    bench.decided.append(decide(bench, "restored")._replace(decision=f"1-{RECEIVED_AT + 1}"))
    bench.decided.pop(0)
    while releases.step():
        pass
    assert released(bench, "restored") == ALL


def test_a_view_that_was_missed_is_completed(bench: Any) -> None:
    """ClickHouse ended between `events` and a rollup: the rows are there, and what the rollup lacks is added."""
    hold(bench, "view")
    bench.load_all()
    decide(bench, "view")
    deadly = Broken(bench.clickhouse)
    deadly.breaks["releases"] = "before"
    releases = Releases(deadly, bench.since, bench.of, Counts(CollectorRegistry()), Halting())
    assert not releases.step()
    gone = f"ALTER TABLE signal_minute DELETE WHERE vehicle_id = '{bench.vehicle('view')}' SETTINGS mutations_sync = 2"
    bench.clickhouse.command(gone)
    finish(bench)
    assert released(bench, "view") == ALL


def test_what_is_loaded_after_the_decision_is_released_too(bench: Any) -> None:
    """ClickHouse was away, or the edge had not learned of it yet: the segment comes when load has looked long ago."""
    decide(bench, "late")
    bench.load_all()
    hold(bench, "late")
    bench.load_all()
    assert released(bench, "late") == ALL


def test_what_a_later_quarantine_holds_stays(bench: Any) -> None:
    """The decision ends where the next case begins, though that was opened before the first of it was moved."""
    hold(bench, "again")
    hold(bench, "again", RECEIVED_AT + 2 * DAY_MS)
    decide(bench, "again", until=RECEIVED_AT + 2 * DAY_MS)
    bench.load_all()
    found = released(bench, "again")
    assert (found["copies"], found["now"], found["rollup"]) == (3, 3, [5, 62])


def test_a_case_that_is_opened_meanwhile_bounds_what_is_left(bench: Any) -> None:
    """Between two pieces of a release the device goes into quarantine again: control is asked before each."""
    hold(bench, "meanwhile")
    bench.load_all()
    decision = decide(bench, "meanwhile")
    releases = Releases(bench.clickhouse, bench.since, bench.of, Counts(CollectorRegistry()), Halting())
    releases._look()
    [releases._pieces] = [list(releases._unreleased(decision))]
    bench.decided[:] = [decision._replace(until_ms=RECEIVED_AT + DAY_MS)]
    while releases.step():
        pass
    assert (released(bench, "meanwhile")["copies"], released(bench, "meanwhile")["now"]) == (2, 1)


def test_two_loads_release_the_same_once(bench: Any) -> None:
    """Both have found the segments, and then both copy: the second finds nothing left, or its token drops it."""
    hold(bench, "both")
    bench.load_all()
    decision = decide(bench, "both")
    both = [Releases(bench.clickhouse, bench.since, bench.of, Counts(CollectorRegistry()), Halting()) for _ in range(2)]
    found = [(one, *piece) for one in both for piece in one._unreleased(decision)]
    threads = [threading.Thread(target=one._release, args=piece) for one, *piece in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finish(bench)
    assert released(bench, "both") == ALL


def test_a_segment_that_grew_is_released_to_its_end(bench: Any) -> None:
    """Some rows were refused and came by a retry, after the others were released: these are released as well."""
    hold(bench, "grown")
    sender = peer(bench.vehicle("grown"))
    poison = msgspec.structs.replace(sender, vehicle_id=bench.vehicle("grown-poison"))
    bench.spool.message(rows_body(sample(0, s1=1.0)), sender=sender, outcome=HELD)
    bench.spool.message(rows_body(sample(0, s1=1.0)), sender=poison, outcome=HELD)
    bench.spool.seal()
    decide(bench, "grown")
    refuse(bench, "held_events", bench.load_all)
    assert (released(bench, "grown")["copies"], released(bench, "grown")["now"]) == (4, 0)
    retry(bench, 2)
    found = released(bench, "grown")
    assert (found["copies"], found["now"], found["alike"]) == (5, 0, True)


def test_a_backlog_of_segments_comes_first(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While more of them wait a release gets a turn a second; when none does, one after the other."""
    monkeypatch.setattr(release, "PIECE", 1)
    hold(bench, "turns")
    bench.load_all()
    decide(bench, "turns")
    clock = Halting()
    releases = Releases(bench.clickhouse, bench.since, bench.of, Counts(CollectorRegistry()), clock)
    assert releases.step(busy=True)
    clock.step_s = 0.0
    assert not releases.step(busy=True)
    assert releases.step()
    assert released(bench, "turns") == ALL


def test_a_release_does_not_hold_up_what_is_new(bench: Any) -> None:
    """While control or the copy fails, segments are loaded; then the release goes on."""
    hold(bench, "slow")
    decide(bench, "slow")
    flaky = Broken(bench.clickhouse)
    flaky.breaks["copy"] = "before"
    bench.restart(flaky)
    bench.load_all()
    assert released(bench, "slow") == NONE
    finish(bench)
    assert released(bench, "slow") == ALL
