"""The gap ledger: segments in any order give the answer that a plain count of the numbers gives."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.load.conftest import DATABASE, READER
from tests.segments import DAY_MS, SENT_AT, SpoolOnDisk, pack, peer, rows_body, sample
from tests.spools import rejection
from tests.unit.cli.conftest import Shell

from fleetgate.catalogue import catalogue
from fleetgate.load.clickhouse import ClickHouse
from fleetgate.load.columns import Rows, segment_rows
from fleetgate.load.embedded import EmbeddedClickHouse
from fleetgate.load.migrations import migrations
from fleetgate.load.owner import Owner
from fleetgate.load.unknown import UnknownNames
from fleetgate.spool.format import PeerRecord
from fleetgate.spool.reader import read_segment
from fleetgate.spool.writer import Sender

AT = SENT_AT + 5_000
BODY = rows_body(sample(0, s1=1.0))
_example = itertools.count()


class Came(NamedTuple):
    """One message: its number, its outcome (accepted 1, held 2, refused with a reason), and when, in ms."""

    seq: int
    outcome: int | str
    at: int


class Range(NamedTuple):
    low: int
    high: int
    reason: str
    first_at: int
    last_at: int


Gap = tuple[int, int, str, tuple[str, ...], int | None, int, int | None, int | None]


def ranges(segment: list[Came]) -> list[Range]:
    """What a segment says of its numbers: each with the first and last receipt of its run."""
    found = []
    for outcome in {came.outcome for came in segment}:
        at: dict[int, list[int]] = {}
        for came in segment:
            if came.outcome == outcome:
                at.setdefault(came.seq, []).append(came.at)
        for seq in sorted(at):
            if seq - 1 in at:
                continue
            run = list(itertools.takewhile(at.__contains__, itertools.count(seq)))
            times = [moment for number in run for moment in at[number]]
            found.append(Range(run[0], run[-1], outcome if isinstance(outcome, str) else "", min(times), max(times)))
    return found


def fate(number: int, known: list[Range]) -> tuple[str, tuple[str, ...], int | None, int | None, int | None]:
    """(state or nothing, reasons, noticed at, came from, came at) of one number."""
    covering = [one for one in known if one.low <= number <= one.high]
    came = [one for one in covering if not one.reason]
    refused = [one for one in covering if one.reason]
    higher = [one.last_at for one in known if one.low > number]
    reasons = tuple(sorted({one.reason for one in refused}))
    noticed = min([*higher, *(one.last_at for one in refused)], default=None)
    if came:
        first, last = min(one.first_at for one in came), min(one.last_at for one in came)
        late = noticed is not None and first > noticed
        return "late" if late else "", reasons, noticed, first, last
    if refused:
        return "refused", reasons, noticed, None, None
    return "missing" if higher else "", (), noticed, None, None


def expected(segments: Iterable[list[Came]]) -> list[Gap]:
    """The gaps, number by number, equal neighbours put together."""
    known = [one for segment in segments for one in ranges(segment)]
    gaps: list[Gap] = []
    in_turn: int | None = None
    for number in range(max((one.high for one in known), default=-1) + 1):
        state, reasons, noticed, first, last = fate(number, known)
        if not state:
            in_turn = last
            continue
        assert noticed is not None
        after = min(in_turn, noticed) if in_turn is not None else None
        late = (first, last) if state == "late" else (None, None)
        same = (state, reasons, after, noticed, *late)
        if gaps and gaps[-1][1] == number - 1 and gaps[-1][2:] == same:
            gaps[-1] = (gaps[-1][0], number, *same)
        else:
            gaps.append((number, number, *same))
    return gaps


def stored(clickhouse: ClickHouse, who: PeerRecord) -> list[Gap]:
    times = ", ".join(f"toUnixTimestamp64Milli({name})" for name in ("after_at", "noticed_at", "came_from", "came_at"))
    rows = clickhouse.rows(
        f"SELECT first_seq, last_seq, state, reasons, {times} FROM gaps "
        "WHERE tenant = {tenant:String} AND device_id = {device:String} ORDER BY first_seq",
        {"tenant": who.tenant, "device": who.device_id},
    )
    return [(low, high, state, tuple(reasons), *rest) for low, high, state, reasons, *rest in rows]


def write(spool: SpoolOnDisk, who: Sender, segment: list[Came]) -> Path:
    """As an edge writes it: messages in their order, refusals by reason."""
    for came in segment:
        if not isinstance(came.outcome, str):
            raw = pack([1, 1, 1, came.seq, SENT_AT, 1, BODY, bytes(16)])
            spool.writer.message(who, came.at, came.outcome, 0, raw)
    for one in ranges(segment):
        if one.reason:
            record = rejection(one.reason, 1, one.first_at, one.last_at, [(1, one.low, one.high)])
            spool.writer.rejection(who, record)
    return spool.seal()


messages = st.builds(
    Came,
    st.integers(0, 12),
    st.sampled_from([1, 1, 1, 1, 2, "too_old", "malformed_body"]),
    st.integers(AT, AT + 40) | st.integers(AT + 2 * DAY_MS, AT + 2 * DAY_MS + 2),
)


def _once(segment: list[Came]) -> list[Came]:
    """The edge stores a number once in a segment, and refuses it for one reason."""
    found: dict[tuple[int, bool], Came] = {}
    for came in segment:
        found.setdefault((came.seq, isinstance(came.outcome, str)), came)
    return list(found.values())


@given(
    segments=st.lists(st.lists(messages, min_size=1, max_size=10).map(_once), min_size=1, max_size=5),
    repeated=st.lists(st.integers(0, 4), max_size=3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_segments_give_the_gaps_of_a_plain_count(
    engine: EmbeddedClickHouse, segments: list[list[Came]], repeated: list[int]
) -> None:
    """Numbers missing, refused, late, held and repeated, in segments that are loaded in any order, some of them twice
    and forgotten by the window."""
    example = next(_example)
    record = peer(f"interleaved-{example}")
    with tempfile.TemporaryDirectory() as directory:
        spool = SpoolOnDisk(Path(directory) / "spool", record.vehicle_id)
        order = [*range(len(segments)), *(index % len(segments) for index in repeated)]
        paths = [write(spool, Sender(record), segment) for segment in segments]
        for turn, index in enumerate(order):
            for part in segment_rows_of(paths[index]):
                engine.insert(part.table, part.rows, f"{example}-{turn}-{part.day}")
    assert stored(engine, record) == expected(segments)


def segment_rows_of(path: Path) -> list[Rows]:
    rows = segment_rows(read_segment(path), catalogue(), UnknownNames({})).rows
    return [part for part in rows if part.table == "received_ranges"]


# What a person asks, and what a segment leaves behind.

SHORT = [
    [Came(0, 1, AT), Came(1, 1, AT), Came(4, 1, AT + 1)],
    [Came(5, "too_old", AT + 2000), Came(6, 2, AT + 2000)],
    [Came(3, 1, AT + 9000)],
]
"""2 never comes, 3 comes late, 5 is refused, 6 is held."""


class Asker(Shell):
    """A shell that does not take for a command's words what load has logged before it."""

    def run(self, *arguments: str) -> int:
        self._capsys.readouterr()
        return super().run(*arguments)


@pytest.fixture
def ask(owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Asker:
    """A shell whose ClickHouse is that of these tests, by HTTP and with a reader's rights."""
    monkeypatch.chdir(tmp_path)
    token = tmp_path / "clickhouse.token"
    token.write_text(READER)
    token.chmod(0o600)
    address = owner.url.removeprefix("http://")
    (tmp_path / "fleetgate.toml").write_text(f'[clickhouse]\nlisten = "{address}"\ndatabase = "{DATABASE}"\n')
    return Asker(tmp_path, monkeypatch, capsys)


def load_short(bench: Any, name: str) -> PeerRecord:
    who = peer(bench.vehicle(name))
    for segment in SHORT:
        write(bench.spool, Sender(who), segment)
    bench.load_all()
    return who


def test_a_person_is_told_what_a_vehicle_did_not_deliver(bench: Any, ask: Asker) -> None:
    """Which messages, between which receipts, and whether they came later; the same by vehicle and by device."""
    who = load_short(bench, "asked")
    found = ask.json("gaps", "--vehicle", who.vehicle_id)
    assert [(gap["first_seq"], gap["last_seq"], gap["state"], gap["reasons"]) for gap in found["gaps"]] == [
        (2, 2, "missing", []),
        (3, 3, "late", []),
        (5, 5, "refused", ["too_old"]),
    ]
    missing, late, _ = found["gaps"]
    assert (missing["after_at_ms"], missing["noticed_at_ms"], missing["came_at_ms"]) == (AT, AT + 1, None)
    assert (late["noticed_at_ms"], late["came_at_ms"]) == (AT + 1, AT + 9000)
    assert found["summary"] == {"missing": 1, "refused": 1, "late": 1, "more": False, "heard_at_ms": AT + 9000}
    assert ask.json("gaps", "--device", f"{who.tenant}/{who.device_id}") == found
    told = ask.must("gaps", "--vehicle", who.vehicle_id)
    assert ("refused: too_old" in told, "came later, at" in told, "missing: 1" in told) == (True, True, True)


def test_since_leaves_out_what_was_over_before(bench: Any, ask: Asker) -> None:
    """What was noticed earlier counts only when it came since."""
    who = load_short(bench, "since")
    since = datetime.fromtimestamp((AT + 3000) / 1000, UTC).isoformat()
    found = ask.json("gaps", "--vehicle", who.vehicle_id, "--since", since)
    assert [gap["state"] for gap in found["gaps"]] == ["late"]
    assert "no gaps" in ask.must("gaps", "--vehicle", who.vehicle_id, "--since", "30m")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["--vehicle", "never-seen"], 3, "nothing was ever received from never-seen"),
        (["--device", "acme"], 2, "--device TENANT/DEVICE"),
        ([], 2, "--vehicle VEHICLE"),
        (["--vehicle", "a", "--since", "yesterday"], 2, "neither a span"),
    ],
    ids=["a stranger", "a device without its tenant", "nobody", "no time"],
)
def test_a_question_that_cannot_be_answered(ask: Asker, arguments: list[str], exit_code: int, says: str) -> None:
    """The error says what is wrong and how to ask."""
    assert ask.run("gaps", *arguments) == exit_code
    assert says in ask.err


def test_the_ledger_says_where_its_ranges_come_from(bench: Any) -> None:
    """Spool, segment, record and times of a range lead back to the bytes; held and refused ones are marked."""
    who = load_short(bench, "provenance")
    found = bench.clickhouse.rows(
        "SELECT segment, first_seq, last_seq, outcome, reason, record_offset > 0, "
        "toUnixTimestamp64Milli(first_received_at), toUnixTimestamp64Milli(received_at) FROM received_ranges "
        "WHERE spool = {spool:String} AND vehicle_id = {v:String} ORDER BY ALL",
        {"spool": bench.spool.identity.hex(), "v": who.vehicle_id},
    )
    assert found == [
        [1, 0, 1, "accepted", "", 1, AT, AT],
        [1, 4, 4, "accepted", "", 1, AT + 1, AT + 1],
        [2, 5, 5, "refused", "too_old", 1, AT + 2000, AT + 2000],
        [2, 6, 6, "held", "", 1, AT + 2000, AT + 2000],
        [3, 3, 3, "accepted", "", 1, AT + 9000, AT + 9000],
    ]


def test_segments_say_how_many_ranges_they_have(bench: Any) -> None:
    """So that a ledger with rows missing or added does not pass for whole."""
    load_short(bench, "counted")
    counts = "SELECT received_ranges FROM segments WHERE spool = {spool:String} ORDER BY segment"
    assert bench.clickhouse.rows(counts, {"spool": bench.spool.identity.hex()}) == [[2], [2], [1]]


def test_numbers_of_two_connections_are_one_range(bench: Any) -> None:
    """A device that reconnects, or counts on under a renewed certificate, goes on where it was."""
    who = peer(bench.vehicle("reconnected"))
    renewed = msgspec.structs.replace(who, fingerprint=bytes(32), key_digest=bytes(32), transport="https")
    first, second = Sender(who), Sender(renewed)
    for seq in range(6):
        bench.spool.writer.message(
            second if seq % 2 else first, AT, 1, 0, pack([1, 1, 1, seq, SENT_AT, 1, BODY, bytes(16)])
        )
    bench.spool.seal()
    bench.load_all()
    assert bench.count("received_ranges") == 1
    assert stored(bench.clickhouse, who) == []


def test_what_was_before_the_ledger_is_not_called_lost(engine: EmbeddedClickHouse) -> None:
    """An installation that is brought up to date has epochs whose beginning no range tells of."""
    who = peer("older-than-the-ledger")
    engine.command(
        "INSERT INTO events (tenant, vehicle_id, device_id, epoch, seq, received_at) "
        f"SELECT 'acme', '{who.vehicle_id}', '{who.device_id}', 1, number, now64(3) - 9 FROM numbers(5, 20)"
    )
    [text] = [text for name, text in migrations() if "received_ranges" in name]
    [backfill] = [part for part in text.split(";\n") if "INSERT INTO" in part]
    engine.command(backfill.replace("GROUP BY", f"WHERE vehicle_id = '{who.vehicle_id}' GROUP BY"))
    assert stored(engine, who) == []
    [[low, high, outcome]] = engine.rows(
        "SELECT first_seq, last_seq, outcome FROM received_ranges WHERE device_id = {d:String}", {"d": who.device_id}
    )
    assert (low, high, outcome) == (0, 24, "before_ledger")
