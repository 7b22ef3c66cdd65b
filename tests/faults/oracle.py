"""The oracle: what the cars wrote down against what stands in ClickHouse. Nothing of the gate's own word is taken.

Nine questions, asked after every fault:

1. Is every acknowledged event stored, and everything stored exactly once?
2. Was every stored event sent, with exactly these values, by this very car?
3. Is every send accounted for: sends = stored + held + rejected + repeats + sends that left no trace, none of which
   was acknowledged, and no more than got no answer?
4. Do the rollups equal a recount, and the counts in `segments` the rows?
5. Is there no row that belongs to nobody of this fleet, or to a car of another tenant?
6. Were the answers right: honest messages never refused, hostile ones always and for their reason, an acknowledged
   message never accepted again, a quarantined car held from then on until a person lets it out?
7. Did enough happen that all this means something?
8. Does the gap ledger say of each number what became of it (`ledger.py`)?
9. Is in `events` of what was held exactly that which a person released, once, with the same values?

Whether the chain of segments is whole and signed is for the gate's own command to say, at the end of a trial
(`chain.py`). Reads only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct, field

from tests.faults import ledger
from tests.faults.journal import HONEST, Entry, Message
from tests.faults.stored import Stored
from tests.faults.told import STORED, Told, events_of, expected, signed_ms

NOT_JUDGED = ("http_503",)
LEAST_ACKNOWLEDGED, LEAST_DUPLICATES, LEAST_HELD, LEAST_REJECTED = 200, 10, 3, 5
SHOWN = 5

ASIDE = "set aside"

Who = tuple[str, str]
Refusals = tuple[str, str, str]
"""Of whom, and why: (tenant, device, reason)."""
Copy = tuple[str, str, bytes]
"""Whose message, and its bytes: (tenant, device, raw)."""


class Excuse(NamedTuple):
    """When a gate may refuse what deserves no refusal, or not this one: answered in this time and signed in that one
    (Unix ms, by the cars' good clocks). `forgotten`: what it acknowledged before, too."""

    reason: str
    answered_ms: tuple[int, int]
    signed_ms: tuple[int, int]
    forgotten: bool = False

    def covers(self, label: str, answered_ms: int, message: Message, *, acknowledged: bool) -> bool:
        (since, until), (oldest, newest) = self.answered_ms, self.signed_ms
        if label != self.reason or not since <= answered_ms <= until or (acknowledged and not self.forgotten):
            return False
        return oldest <= signed_ms(message) <= newest


class Release(NamedTuple):
    """A person let this car out of quarantine; `moves` when what was held of it until then is telemetry after all."""

    tenant: str
    device_id: str
    moves: bool


class Reckoning(Struct):
    """Counts of sends, but for `lost`, `doubled` and `released`, which are events. `problems` is empty when all is
    well."""

    sends: int = 0
    acknowledged: int = 0
    stored: int = 0
    held: int = 0
    rejected: int = 0
    repeats: int = 0
    traceless: int = 0
    duplicates: int = 0
    set_aside: int = 0
    events: int = 0
    lost: int = 0
    doubled: int = 0
    excused: int = 0
    released: int = 0
    fresh_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        aside = f" + {self.set_aside} set aside" if self.set_aside else ""
        excused = f"; {self.excused} refused that deserved otherwise, as this fault excuses" if self.excused else ""
        out = f", {self.released} released" if self.released else ""
        return (
            f"{self.sends} sends = {self.stored} stored + {self.held} held + {self.rejected} rejected{aside} "
            f"+ {self.repeats} repeats + {self.traceless} without a trace; {self.acknowledged} acknowledged, "
            f"{self.duplicates} as duplicates{excused}; {self.events} events{out}; {self.lost} lost, "
            f"{self.doubled} duplicated; fresh events after {self.fresh_s:.1f} s"
        )

    def complain(self, what: str, cases: Iterable[object]) -> int:
        """Notes what is wrong, with a few cases; how many there are."""
        found = list(cases)
        if found:
            shown = "; ".join(str(case)[:400] for case in found[:SHOWN])
            self.problems.append(f"{len(found)} {what}: {shown}")
        return len(found)


def reckon(
    journal: Iterable[Entry],
    stored: Stored,
    cars: set[tuple[str, str, str]],
    set_aside: frozenset[Copy] = frozenset(),
    refusals_aside: Mapping[Refusals, int] = MappingProxyType({}),
    excuses: Sequence[Excuse] = (),
    spools: Sequence[str] = (),
    releases: Sequence[Release] = (),
) -> Reckoning:
    """`cars` are all (tenant, device, vehicle); `set_aside` the messages that a fault destroyed on the disk: these and
    no others must be missing, and are counted apart. So are the refusals of `refusals_aside`, and those that `excuses`
    cover. `spools` are the identities that the spool had, in their order; `releases` what people decided, in theirs."""
    told, found = Told(journal), Reckoning()
    outcomes = _match(told, stored, found, set_aside)
    _values(told, stored, found, outcomes)
    _accounts(told, stored, found, outcomes, refusals_aside)
    _rollups(stored, found)
    found.complain("rows of nobody in this fleet", stored.owners - cars)
    _answers(told, found, excuses)
    stays = _quarantine(stored, found, spools, releases)
    _released(told, stored, found, stays, releases)
    _meaning(found)
    there = {number: outcome for number, outcome in outcomes.items() if outcome != ASIDE}
    ledger.compare(told, stored.ranges, there, refusals_aside, found.complain)
    return found


def _match(told: Told, stored: Stored, found: Reckoning, set_aside: frozenset[Copy]) -> dict[int, str]:
    """Questions 1 and 2 for messages; the outcome under which each message is stored."""
    times: Counter[int] = Counter()
    outcomes: dict[int, str] = {}
    strangers = []
    for raw in stored.raw:
        message = told.by_bytes.get((raw.tenant, raw.device_id, raw.envelope))
        if message is None or message.kind != HONEST or message.number not in told.sends:
            strangers.append((raw.key, message.kind if message else "never sent"))
            continue
        times[message.number] += 1
        outcomes[message.number] = raw.outcome
        if raw.vehicle_id != message.vehicle_id:
            strangers.append((raw.key, f"as {raw.vehicle_id}"))
    found.complain("stored messages that nobody sent so", strangers)
    doubled = [told.messages[number] for number, count in times.items() if count > 1]
    found.doubled += sum(events_of(message) for message in doubled)
    found.complain("messages stored more than once", (message.key for message in doubled))
    aside = [told.by_bytes[copy] for copy in set_aside]
    found.complain("messages stored although they were destroyed", (m.key for m in aside if m.number in outcomes))
    outcomes |= {message.number: ASIDE for message in aside}
    lost = [m for m in told.messages.values() if m.number not in outcomes and told.acknowledged(m)]
    found.lost += sum(events_of(message) for message in lost)
    found.complain("acknowledged messages lost", (message.key for message in lost))
    return outcomes


def _values(told: Told, stored: Stored, found: Reckoning, outcomes: Mapping[int, str]) -> None:
    """Questions 1 and 2 for events: each message's events in the one table of its outcome, once, value by value."""
    rows = {"accepted": stored.events, "held": stored.held}
    left = {outcome: set(table) for outcome, table in rows.items()}
    wrong, missing = [], []
    for number, outcome in outcomes.items():
        if outcome == ASIDE:
            continue
        for event in expected(told.messages[number]):
            there = rows[outcome].get(event.key, [])
            left[outcome].discard(event.key)
            found.events += 1
            if not there:
                missing.append(event.key)
            elif there[0] != event:
                wrong.append((event.key, there[0].difference(event)))
            if len(there) > 1:
                found.doubled += len(there) - 1
    found.lost += found.complain("events missing of messages that are stored", missing)
    found.complain("events with other values than were sent", wrong)
    found.complain("events that are stored more than once", (k for t in rows.values() for k, v in t.items() if v[1:]))
    found.complain("events without a message", left["accepted"] | left["held"])


def _accounts(
    told: Told, stored: Stored, found: Reckoning, outcomes: Mapping[int, str], aside: Mapping[Refusals, int]
) -> None:
    """Question 3, for the fleet and for each car and reason."""
    unanswered: Counter[Who] = Counter()
    refused: Counter[Refusals] = Counter()
    sends: Counter[Who] = Counter()
    traced: Counter[Who] = Counter()
    for message in told.messages.values():
        who, attempts, labels = (message.tenant, message.device_id), told.sends[message.number], told.labels(message)
        judged = [label for label in labels if label not in NOT_JUDGED]
        sends[who] += len(attempts)
        found.acknowledged += sum(label in STORED for label in labels)
        found.duplicates += labels.count("duplicate")
        for label in judged:
            if label not in STORED:
                refused[(*who, label)] += 1
        unanswered[who] += len(attempts) - len(judged)
        outcome = outcomes.get(message.number)
        if outcome is not None:
            found.stored += outcome == "accepted"
            found.held += outcome == "held"
            found.set_aside += outcome == ASIDE
            # One send stored it, answered or not; of the others those are repeats that were told so.
            found.repeats += labels.count("duplicate")
            traced[who] += 1 + labels.count("duplicate")
    found.sends, found.rejected = sends.total(), sum(stored.refused.values())
    found.set_aside += sum(aside.values())
    traced += _by_who(stored.refused) + _by_who(aside)
    traces = found.stored + found.held + found.set_aside + found.rejected + found.repeats
    found.traceless = found.sends - traces
    found.complain(
        "cars with more traces in ClickHouse than sends",
        ((who, traced[who], sends[who]) for who in traced if traced[who] > sends[who]),
    )
    found.complain(
        "cars of whose answered sends some left no trace",
        (
            (who, sends[who] - traced[who], unanswered[who])
            for who in sends
            if sends[who] - traced[who] > unanswered[who]
        ),
    )
    found.complain(
        "refusals that were answered and are not in ClickHouse",
        (
            (key, count, stored.refused[key])
            for key, count in refused.items()
            if stored.refused[key] + aside.get(key, 0) < count
        ),
    )


def _by_who(refused: Mapping[Refusals, int]) -> Counter[Who]:
    total: Counter[Who] = Counter()
    for (tenant, device_id, _), count in refused.items():
        total[tenant, device_id] += count
    return total


def _rollups(stored: Stored, found: Reckoning) -> None:
    """Question 4."""
    for name, (kept, counted) in stored.rollups.items():
        keys = sorted(key for key in kept.keys() | counted.keys() if kept.get(key) != counted.get(key))
        found.complain(f"rows of {name} that differ from a recount", ((k, kept.get(k), counted.get(k)) for k in keys))
    found.complain("segments whose counts are not those of their rows", stored.miscounted)


def _answers(told: Told, found: Reckoning, excuses: Sequence[Excuse]) -> None:
    """Question 6, but for the quarantine."""
    refused, let_in, again = [], [], []
    for message in told.messages.values():
        labels: list[str] = []
        for send in told.sends[message.number]:
            label = told.answers.get(send.number)
            if label is None or label in (*NOT_JUDGED, "rate_limited"):
                continue
            at_ms, known = told.answered_ms[send.number], any(one in STORED for one in labels)
            if label != message.kind and any(one.covers(label, at_ms, message, acknowledged=known) for one in excuses):
                found.excused += 1
            else:
                labels.append(label)
        if message.kind == HONEST:
            refused += [(message.key, label) for label in labels if label not in STORED]
            if "accepted" in labels[1:]:
                again.append((message.key, labels))
        else:
            let_in += [(message.key, message.kind, label) for label in labels if label != message.kind]
    found.complain("honest messages refused", refused)
    found.complain("hostile messages answered otherwise than they deserve", let_in)
    found.lost += found.complain("messages acknowledged, then forgotten and accepted again", again)


def _quarantine(
    stored: Stored, found: Reckoning, spools: Sequence[str], releases: Sequence[Release]
) -> dict[tuple[str, str, int, int], int]:
    """Who is in quarantine stays there, whatever is killed, until a person lets it out: its later messages are held, in
    the order of the spool. Of each held message, how many times its car had been let out before."""
    turn = {spool: number for number, spool in enumerate(spools)}
    let_out = Counter((release.tenant, release.device_id) for release in releases)
    held: set[Who] = set()
    out: Counter[Who] = Counter()
    stays, escaped = {}, []
    for raw in sorted(stored.raw, key=lambda raw: (turn.get(raw.place[0], 0), raw.place)):
        who = (raw.tenant, raw.device_id)
        if raw.outcome == "held":
            held.add(who)
            stays[raw.key] = out[who]
        elif who in held:
            held.remove(who)
            out[who] += 1
            escaped += [raw.key] if out[who] > let_out[who] else []
    found.complain("messages accepted from a car in quarantine", escaped)
    return stays


def _released(
    told: Told,
    stored: Stored,
    found: Reckoning,
    stays: Mapping[tuple[str, str, int, int], int],
    releases: Sequence[Release],
) -> None:
    """Question 9. A car sends properly after it was let out, so that what was held for the next time is told apart."""
    moves: defaultdict[Who, list[bool]] = defaultdict(list)
    for release in releases:
        moves[release.tenant, release.device_id].append(release.moves)
    left, missing, wrong = set(stored.released), [], []
    for message in told.messages.values():
        stay = stays.get(message.key)
        if message.kind != HONEST or stay is None or not any(moves[message.tenant, message.device_id][stay : stay + 1]):
            continue
        for event in expected(message):
            there = stored.released.get(event.key, [])
            left.discard(event.key)
            found.released += bool(there)
            if not there:
                missing.append(event.key)
            elif there[0] != event:
                wrong.append((event.key, there[0].difference(event)))
            found.doubled += max(0, len(there) - 1)
    found.lost += found.complain("events missing of what was released", missing)
    found.complain("released events with other values than were sent", wrong)
    found.complain("events released more than once", (key for key, rows in stored.released.items() if rows[1:]))
    found.complain("events that nobody released", left)


def _meaning(found: Reckoning) -> None:
    """Question 7."""
    for what, count, least in (
        ("acknowledgements", found.acknowledged, LEAST_ACKNOWLEDGED),
        ("duplicates", found.duplicates, LEAST_DUPLICATES),
        ("held messages", found.held, LEAST_HELD),
        ("refusals", found.rejected, LEAST_REJECTED),
    ):
        if count < least:
            found.problems.append(f"only {count} {what}: too few to say anything")
