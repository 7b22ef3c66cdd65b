"""The oracle is tried itself: on a run in which all went well, and on the same run with each wrong it is there for.

What ClickHouse holds is read once and then altered in memory; what the cars wrote down likewise.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import structs

from fleetgate.load.clickhouse import ClickHouse
from tests.faults import chain
from tests.faults.clickhouse import Server
from tests.faults.journal import HONEST, Answer, Entry, Message, Send, read
from tests.faults.oracle import Excuse, Reckoning, Release, reckon
from tests.faults.stored import Range, Raw, Stored
from tests.faults.trial import Fault, Trial
from tests.gate import Installation

NEVER = 10**9  # a number that the journal did not give
EVER = 2**63

pytestmark = pytest.mark.quick


class Run(NamedTuple):
    """One run's evidence, which the tests copy and spoil."""

    stored: Stored
    journal: list[Entry]
    cars: set[tuple[str, str, str]]
    directory: Path
    clickhouse: ClickHouse

    def reckon(self) -> Reckoning:
        return reckon(self.journal, self.stored, self.cars)

    def first(self, outcome: str) -> Raw:
        return next(raw for raw in self.stored.raw if raw.outcome == outcome)

    def sent_twice(self) -> tuple[Message, list[Send]]:
        """An honest message and its sends, both answered."""
        sends: dict[int, list[Send]] = {}
        for entry in self.journal:
            if isinstance(entry, Send):
                sends.setdefault(entry.message, []).append(entry)
        messages = (entry for entry in self.journal if isinstance(entry, Message) and entry.kind == HONEST)
        return next((one, sends[one.number]) for one in messages if len(sends.get(one.number, [])) == 2)

    def relabel(self, send: int, label: str) -> None:
        [place] = [i for i, entry in enumerate(self.journal) if isinstance(entry, Answer) and entry.send == send]
        self.journal[place] = Answer(send, label, 0)

    def a_hostile_send(self) -> int:
        hostile = {entry.number for entry in self.journal if isinstance(entry, Message) and entry.kind == "bad_mac"}
        return next(entry.number for entry in self.journal if isinstance(entry, Send) and entry.message in hostile)


@pytest.fixture(scope="module")
def quiet(authority: Installation, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A trial without a fault."""
    nothing = Fault("nothing", "Nothing breaks.", lambda trial: trial.pass_time(2, 2))
    trial = Trial(nothing, authority, server, tmp_path_factory.mktemp("quiet") / "gate", seed=1)
    try:
        trial.begin()
        nothing.strike(trial)
        assert trial.end().problems == []
        clickhouse, home = trial.clickhouse(), trial.directory
        yield Run(Stored(clickhouse), list(read(trial.fleet.journal_path)), trial.fleet.cars, home, clickhouse)
    finally:
        trial.close()


def test_a_quiet_run_is_without_a_flaw(quiet: Run) -> None:
    """All sends are accounted for, and every answer that says so is a message that is there."""
    found = quiet.reckon()
    assert found.problems == []
    assert found.sends == found.stored + found.held + found.rejected + found.repeats
    assert found.acknowledged == found.stored + found.held + found.repeats


def _event_lost(run: Run) -> None:
    del run.stored.events[next(iter(run.stored.events))]


def _message_lost(run: Run) -> None:
    raw = run.first("accepted")
    run.stored.raw.remove(raw)
    for key in [key for key in run.stored.events if key[:4] == raw.key]:
        del run.stored.events[key]


def _held_message_lost(run: Run) -> None:
    run.stored.raw.remove(run.first("held"))


def _event_doubled(run: Run) -> None:
    rows = next(iter(run.stored.events.values()))
    rows.append(rows[0])


def _message_doubled(run: Run) -> None:
    run.stored.raw.append(run.first("accepted"))


def _value_changed(run: Run) -> None:
    key, [row] = next((key, rows) for key, rows in run.stored.events.items() if rows[0].signals)
    number = next(iter(row.signals))
    run.stored.events[key] = [structs.replace(row, signals=row.signals | {number: row.signals[number] + 2**-10})]


def _other_bytes(run: Run) -> None:
    raw = run.first("accepted")
    run.stored.raw[run.stored.raw.index(raw)] = structs.replace(raw, envelope=raw.envelope[:-1] + b"!")


def _other_tenant(run: Run) -> None:
    raw = next(raw for raw in run.stored.raw if raw.tenant == "acme" and "suspect" not in raw.device_id)
    run.stored.raw[run.stored.raw.index(raw)] = structs.replace(raw, tenant="globex")


def _stranger(run: Run) -> None:
    run.stored.owners.add(("acme", "car-1-tcu", "car-2"))


def _held_in_events(run: Run) -> None:
    key = next(iter(run.stored.held))
    run.stored.events[key] = run.stored.held.pop(key)


def _escaped(run: Run) -> None:
    raw = next(raw for raw in sorted(run.stored.raw, key=lambda raw: raw.place, reverse=True) if raw.outcome == "held")
    run.stored.raw[run.stored.raw.index(raw)] = structs.replace(raw, outcome="accepted")


def _rollup_doubled(run: Run) -> None:
    kept, _ = run.stored.rollups["signal_minute"]
    kept[next(iter(kept))][0] *= 2


def _rollup_missing(run: Run) -> None:
    kept, _ = run.stored.rollups["fleet_minute"]
    del kept[next(iter(kept))]


def _refusal_lost(run: Run) -> None:
    run.stored.refused[next(iter(run.stored.refused))] -= 1


def _refusal_invented(run: Run) -> None:
    run.stored.refused["acme", "car-1-tcu", "bad_mac"] += 5_000


def _ack_of_nothing(run: Run) -> None:
    # Of MessagePack the last byte is the tag's, and altered it is another message that can be read.
    packed = (entry for entry in run.journal if isinstance(entry, Message) and entry.raw[:1] == b"\x98")
    known = next(one for one in packed if one.kind == HONEST)
    never = structs.replace(known, number=NEVER, seq=99_999, raw=known.raw[:-1] + b"!")
    run.journal.extend([never, Send(NEVER, NEVER, "mqtt", 0), Answer(NEVER, "accepted", 0)])


def _forgotten(run: Run) -> None:
    _, sends = run.sent_twice()
    run.relabel(sends[1].number, "accepted")


def _honest_refused(run: Run) -> None:
    _, sends = run.sent_twice()
    run.relabel(sends[0].number, "bad_mac")


def _hostile_accepted(run: Run) -> None:
    run.relabel(run.a_hostile_send(), "accepted")


def _miscounted(run: Run) -> None:
    run.stored.miscounted.append(["spool", 1, [2, 0, 1, 0], [1, 0, 1, 0]])


def _answer_without_a_trace(run: Run) -> None:
    message, _ = run.sent_twice()
    run.journal.extend([Send(NEVER, message.number, "mqtt", 0), Answer(NEVER, "accepted", 0)])


def _too_few_acknowledged(run: Run) -> None:
    _relabel_all(run, "accepted", "http_503")


def _too_few_repeated(run: Run) -> None:
    _relabel_all(run, "duplicate", "http_503")


def _relabel_all(run: Run, label: str, other: str) -> None:
    answers = (one for one in run.journal if isinstance(one, Answer) and one.label == label)
    for answer in list(answers):
        run.relabel(answer.send, other)


def _too_few_held(run: Run) -> None:
    run.stored.raw[:] = [raw for raw in run.stored.raw if raw.outcome != "held"]


def _too_few_refused(run: Run) -> None:
    run.stored.refused.clear()


def _a_range(run: Run, outcome: str) -> Range:
    return next(one for one in run.stored.ranges if one.outcome == outcome)


def _range_lost(run: Run) -> None:
    run.stored.ranges.remove(_a_range(run, "accepted"))


def _range_of_another_outcome(run: Run) -> None:
    run.stored.ranges.remove(held := _a_range(run, "held"))
    run.stored.ranges.append(structs.replace(held, outcome="accepted"))


def _range_doubled(run: Run) -> None:
    run.stored.ranges.append(_a_range(run, "accepted"))


def _range_too_long(run: Run) -> None:
    run.stored.ranges.append(structs.replace(_a_range(run, "accepted"), first=NEVER, last=2**63))


def _refused_number_lost(run: Run) -> None:
    run.stored.ranges.remove(_a_range(run, "refused"))


def _refused_number_invented(run: Run) -> None:
    run.stored.ranges.append(structs.replace(_a_range(run, "refused"), reason="too_old"))


WRONGS: dict[Callable[[Run], None], str] = {
    _event_lost: "events missing of messages that are stored",
    _message_lost: "acknowledged messages lost",
    _held_message_lost: "acknowledged messages lost",
    _event_doubled: "events that are stored more than once",
    _message_doubled: "messages stored more than once",
    _value_changed: "events with other values than were sent",
    _other_bytes: "stored messages that nobody sent so",
    _other_tenant: "stored messages that nobody sent so",
    _stranger: "rows of nobody in this fleet",
    _held_in_events: "events without a message",
    _escaped: "messages accepted from a car in quarantine",
    _rollup_doubled: "rows of signal_minute that differ from a recount",
    _rollup_missing: "rows of fleet_minute that differ from a recount",
    _refusal_lost: "refusals that were answered and are not in ClickHouse",
    _refusal_invented: "cars with more traces in ClickHouse than sends",
    _ack_of_nothing: "acknowledged messages lost",
    _forgotten: "acknowledged, then forgotten",
    _honest_refused: "honest messages refused",
    _hostile_accepted: "hostile messages answered otherwise than they deserve",
    _miscounted: "segments whose counts are not those of their rows",
    _answer_without_a_trace: "cars of whose answered sends some left no trace",
    _too_few_acknowledged: "acknowledgements: too few",
    _too_few_repeated: "only 0 duplicates: too few",
    _too_few_held: "only 0 held messages: too few",
    _too_few_refused: "only 0 refusals: too few",
    _range_lost: "numbers of stored messages that the ledger lacks",
    _range_of_another_outcome: "numbers in the ledger of messages that are not stored so",
    _range_doubled: "numbers that the ledger has more than once",
    _range_too_long: "numbers in the ledger of messages that are not stored so",
    _refused_number_lost: "refusals of known numbers that the ledger lacks",
    _refused_number_invented: "refused numbers in the ledger that were not refused so",
}


@pytest.mark.parametrize("spoil", WRONGS, ids=lambda spoil: str(spoil.__name__).strip("_"))
def test_the_oracle_sees_each_wrong(quiet: Run, spoil: Callable[[Run], None]) -> None:
    """One row, one answer or one number altered, and it says which kind of thing is wrong."""
    stored = copy.copy(quiet.stored)
    for name in ("events", "held", "raw", "refused", "owners", "rollups", "ranges", "miscounted"):
        setattr(stored, name, copy.deepcopy(getattr(quiet.stored, name)))
    run = quiet._replace(stored=stored, journal=list(quiet.journal))
    spoil(run)
    problems = run.reckon().problems
    assert any(WRONGS[spoil] in problem for problem in problems), problems


def _without(one: Range, raw: Raw) -> Iterator[Range]:
    """The range without this number, in two where it lies in the middle; a refusal of the same number stays."""
    theirs = (one.tenant, one.device_id, one.epoch, one.outcome) == (*raw.key[:3], "accepted")
    if not theirs or not one.first <= raw.seq <= one.last:
        yield one
        return
    for first, last in ((one.first, raw.seq - 1), (raw.seq + 1, one.last)):
        if first <= last:
            yield structs.replace(one, first=first, last=last)


def test_what_was_destroyed_on_the_disk_is_counted_apart(quiet: Run) -> None:
    """One message and one refusal: missing, they are no loss; as long as they are there, nothing was destroyed."""
    raw, stored = quiet.first("accepted"), copy.copy(quiet.stored)
    message = frozenset({(raw.tenant, raw.device_id, raw.envelope)})
    refusal = next(iter(quiet.stored.refused))
    there = reckon(quiet.journal, stored, quiet.cars, message, {refusal: 1})
    assert any("stored although they were destroyed" in problem for problem in there.problems), there.problems
    assert any("more traces in ClickHouse than sends" in problem for problem in there.problems), there.problems
    stored.raw = [one for one in quiet.stored.raw if one is not raw]
    stored.events = {key: rows for key, rows in quiet.stored.events.items() if key[:4] != raw.key}
    stored.refused = quiet.stored.refused - Counter({refusal: 1})
    stored.ranges = [part for one in quiet.stored.ranges for part in _without(one, raw)]
    gone = reckon(quiet.journal, stored, quiet.cars, message, {refusal: 1})
    assert (gone.set_aside, gone.lost, gone.problems) == (2, 0, [])


def _released_twice(rows: dict[Any, list[Any]]) -> None:
    next(iter(rows.values())).append(next(iter(rows.values()))[0])


def _released_with_another_value(rows: dict[Any, list[Any]]) -> None:
    key, [row] = next(iter(rows.items()))
    rows[key] = [structs.replace(row, software="x")]


@pytest.mark.parametrize(
    ("spoil", "moves", "said"),
    [
        (lambda _: None, True, ""),
        (dict.clear, False, ""),
        (lambda _: None, False, "events that nobody released"),
        (dict.popitem, True, "events missing of what was released"),
        (_released_twice, True, "events released more than once"),
        (_released_with_another_value, True, "released events with other values"),
    ],
    ids=["all", "none", "nobody's", "one lost", "one doubled", "one altered"],
)
def test_what_was_held_is_released_once_and_as_it_was_sent(
    quiet: Run, spoil: Callable[[dict[Any, list[Any]]], Any], moves: bool, said: str
) -> None:
    """After a person let the suspect out: all of it, or nothing where the suspicion was confirmed."""
    stored, held = copy.copy(quiet.stored), quiet.first("held")
    stored.released = copy.deepcopy(quiet.stored.held)
    spoil(stored.released)
    found = reckon(quiet.journal, stored, quiet.cars, releases=[Release(held.tenant, held.device_id, moves)])
    assert [said in problem for problem in found.problems] == ([True] if said else [])


@pytest.mark.parametrize(
    ("send", "excuse", "excused"),
    [
        (0, Excuse("clock_ahead", (0, 9), (0, EVER)), True),
        (0, Excuse("too_old", (0, 9), (0, EVER)), False),
        (0, Excuse("clock_ahead", (1, 9), (0, EVER)), False),
        (0, Excuse("clock_ahead", (0, 9), (0, 9)), False),
        (1, Excuse("clock_ahead", (0, 9), (0, EVER)), False),
        (1, Excuse("clock_ahead", (0, 9), (0, EVER), forgotten=True), True),
    ],
)
def test_a_fault_excuses_one_reason_in_its_times_only(quiet: Run, send: int, excuse: Excuse, excused: bool) -> None:
    """An honest message that was refused, at its first send or after it was acknowledged (0: when it was answered)."""
    run = quiet._replace(journal=list(quiet.journal))
    _, sends = run.sent_twice()
    run.relabel(sends[send].number, "clock_ahead")
    found = reckon(run.journal, run.stored, run.cars, excuses=[excuse])
    refused = any("honest messages refused" in problem for problem in found.problems)
    assert (found.excused, refused) == (int(excused), not excused), found.problems


ALTERED = {"kind": "altered", "spool": "here", "segment": 7, "table": "events", "what": "the rows are others"}


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({}, []),
        ({"findings": [ALTERED]}, ["1 findings of the chain"]),
        ({"notes": ["spool here: 3 segments were loaded since the newest signed head"]}, ["1 ends of chains"]),
        ({"notes": ["spool gone: 3 segments were loaded since the newest signed head"]}, []),
        ({"notes": ["spool here: segment 7 is parked"]}, []),
        ({"heads": 0}, ["1 verifications of nothing"]),
    ],
)
def test_of_a_chain_each_finding_is_a_complaint(report: dict[str, Any], said: list[str]) -> None:
    """So is an end that nobody signed, but for that of a spool that is gone, and a look at nothing."""
    found = Reckoning()
    chain.judge({"segments": 9, "heads": 1, "findings": [], "notes": []} | report, ["gone"], found.complain)
    assert [problem[: len(one)] for problem, one in zip(found.problems, said, strict=True)] == said


def test_a_row_taken_from_the_chain_is_seen(quiet: Run) -> None:
    """The newest one, so that all that is left fits together: only the signed head says otherwise."""
    found = Reckoning()
    take = "ALTER TABLE segments DELETE WHERE place = (SELECT max(place) FROM segments) SETTINGS mutations_sync = 2"
    quiet.clickhouse.command(take)
    chain.check(quiet.directory, embedded=False, gone=[], complain=found.complain)
    assert any("cut_off" in problem for problem in found.problems), found.problems
