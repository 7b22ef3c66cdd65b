"""What the device does on each answer: the table of reasons, in the core and as read from each transport."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tests.unit.fleetsim.bench import START_MS, Bench

from fleetsim import encode
from fleetsim.answers import REACTIONS, Answer, Reaction, from_item, from_puback
from fleetsim.pace import STOP_MAX_MS, STOP_MS

# (reason, PUBACK code) -> what becomes of the message, and whether the device falls silent.
TABLE = {
    ("accepted", 0x00): ("stored", False),
    ("duplicate", 0x00): ("stored", False),
    ("malformed_envelope", 0x99): ("dropped", False),
    ("unsupported_version", 0x99): ("dropped", False),
    ("malformed_body", 0x99): ("dropped", False),
    ("oversized", 0x99): ("dropped", False),
    ("identity_mismatch", 0x87): ("dropped", True),
    ("bad_mac", 0x87): ("dropped", True),
    ("unknown_key", 0x87): ("dropped", True),
    ("unknown_device", 0x87): ("dropped", True),
    ("suspended", 0x87): ("dropped", True),
    ("revoked", 0x87): ("dropped", True),
    ("banned", 0x87): ("dropped", True),
    ("equivocation", 0x87): ("dropped", True),
    ("clock_ahead", 0x83): ("renumbered", False),
    ("too_old", 0x83): ("renumbered", False),
    ("behind_window", 0x83): ("renumbered", False),
    ("stale_epoch", 0x83): ("renumbered", False),
}


@pytest.mark.parametrize(("answer", "expected"), TABLE.items(), ids=lambda value: str(value[0]))
def test_each_answer_has_the_reaction_of_the_table(
    bench: Bench, answer: tuple[str, int], expected: tuple[str, bool]
) -> None:
    """A PUBACK with its reason leads to the fate, and to the silence, that the table of reasons says."""
    reason, code = answer
    entry = bench.send_one()
    bench.core.answered(entry.key, from_puback(code, reason))
    silent = bench.core.pace.away_until_ms > START_MS
    assert (bench.notes.fates, silent) == ([(entry.key, reason, expected[0])], expected[1])


def test_every_reason_of_the_table_is_known() -> None:
    """No reason is missing: those of the table and `rate_limited`, which keeps the message."""
    assert set(REACTIONS) == {reason for reason, _ in TABLE} | {"rate_limited"}


@pytest.mark.parametrize("reason", sorted(REACTIONS))
def test_an_http_item_is_read_as_the_puback_is(reason: str) -> None:
    """The same reason has the same reaction over HTTPS."""
    good = reason in ("accepted", "duplicate")
    item = {"status": reason if good else "rejected", "reason": None if good else reason, "current_epoch": 7}
    assert from_item(item) == Answer(reason, REACTIONS[reason], 7)


@pytest.mark.parametrize(
    ("code", "reason", "reaction"),
    [
        (0x00, None, Reaction.DONE),
        (0x10, None, Reaction.DONE),
        (0x97, None, Reaction.LATER),
        (0x87, None, Reaction.STOP),
        (0x83, None, Reaction.DROP),
        (0x80, "no reason we know", Reaction.DROP),
        (0x87, "accepted", Reaction.STOP),
    ],
)
def test_a_puback_without_a_known_reason_goes_by_its_code(code: int, reason: str | None, reaction: Reaction) -> None:
    """A refusal without a known Reason String is never a success and is never sent again by guess."""
    assert from_puback(code, reason).reaction is reaction


def test_rate_limited_sends_the_same_bytes_later(bench: Bench) -> None:
    """0x97 keeps the message, is quiet for a while, and then sends the same bytes."""
    entry = bench.send_one()
    raw = entry.raw
    bench.core.answered(entry.key, from_puback(0x97))
    quiet = bench.take()
    bench.now_ms = bench.core.pace.quiet_until_ms
    assert (quiet, [again.raw for again in bench.take()]) == ([], [raw])


def test_429_waits_as_long_as_it_says(bench: Bench) -> None:
    """HTTP 429 with Retry-After 7 is quiet for seven seconds."""
    entry = bench.send_one()
    bench.core.not_now([entry.key], retry_after_s=7)
    assert bench.core.pace.quiet_until_ms == START_MS + 7_000


def test_413_splits_the_batch_and_drops_a_single_message(bench: Bench) -> None:
    """A batch that is too large is halved; a message that is too large alone is dropped."""
    bench.connect()
    bench.submit(4)
    keys = [entry.key for entry in bench.take()]
    bench.core.too_large(keys)
    halved = bench.core.batch_items
    first = bench.take(1)[0]
    bench.core.too_large([first.key])
    assert (halved, bench.notes.fates) == (2, [(first.key, "oversized", "dropped")])


def test_disconnect_0x95_drops_only_what_exceeds_the_limit(bench: Bench) -> None:
    """Packet too large: what is over the gate's Maximum Packet Size goes, the rest is sent again."""
    bench.connect()
    bench.submit(2)
    large, small = bench.take()
    large.raw += bytes(100)
    bench.core.max_packet_bytes = len(small.raw)
    bench.core.disconnected(0x95)
    assert (bench.notes.fates, list(bench.core.outbox)) == ([(large.key, "oversized", "dropped")], [small.key])


def test_stops_double_to_a_day(bench: Bench) -> None:
    """The device comes back after 10 minutes, then 20, and never waits longer than a day."""
    waits = []
    for _ in range(10):
        bench.core.refused_connection(0x87)
        waits.append(bench.core.pace.away_until_ms - bench.now_ms)
        bench.now_ms = bench.core.pace.away_until_ms
    assert (waits[:3], waits[-1]) == ([STOP_MS, 2 * STOP_MS, 4 * STOP_MS], STOP_MAX_MS)


@pytest.mark.parametrize(("code", "stops"), [(0x87, True), (0x8A, True), (0x88, False), (0x97, False)])
def test_connack_codes_stop_or_come_back(bench: Bench, code: int, stops: bool) -> None:
    """Not authorized and banned stop the device; unavailable and over quota only make it wait a moment."""
    bench.core.refused_connection(code)
    assert (bench.core.pace.away_until_ms - START_MS >= STOP_MS) is stops


@pytest.mark.parametrize(("code", "stops"), [(0x87, True), (0x89, False), (0x8B, False), (0x8E, False)])
def test_disconnect_codes_stop_or_come_back(bench: Bench, code: int, stops: bool) -> None:
    """A live session that is not authorized any more stops; a busy or leaving gate is tried again."""
    bench.core.disconnected(code)
    assert (bench.core.pace.away_until_ms - START_MS >= STOP_MS) is stops


@pytest.mark.parametrize("reason", ["too_old", "behind_window", "stale_epoch"])
def test_doubtful_events_are_not_sent_twice(bench: Bench, reason: str) -> None:
    """If an earlier send stayed unanswered the events are recorded as unknown instead of sent again."""
    entry = bench.send_one()
    bench.core.disconnected()
    bench.connect()
    again = bench.take()[0]
    bench.core.answered(again.key, from_puback(0x83, reason))
    assert (bench.notes.fates, bench.take()) == ([(entry.key, reason, "unknown")], [])


def test_renumbered_events_keep_their_times(bench: Bench) -> None:
    """Events that get a new number after `too_old` happened when they happened."""
    entry = bench.send_one()
    happened_ms = _event_ms(entry.raw)
    bench.now_ms += 60_000
    bench.core.answered(entry.key, from_puback(0x83, "too_old"))
    again = bench.take()[0]
    assert (again.key, _event_ms(again.raw)) == ((1, 1), happened_ms)


def test_clock_ahead_sets_the_clock_first(bench: Bench) -> None:
    """After clock_ahead nothing is signed until the gate told the time; then the events go out by its clock."""
    bench.connect(ahead_ms=3_600_000)
    bench.submit()
    entry = bench.take()[0]
    bench.core.answered(entry.key, from_puback(0x83, "clock_ahead"))
    before = bench.take()
    needs = bench.core.needs_clock
    bench.connect()
    again = bench.take()[0]
    assert (before, needs, again.key, _event_ms(again.raw)) == ([], True, (1, 1), START_MS - 100)


def test_stale_epoch_goes_above_the_current_one(bench: Bench) -> None:
    """The device goes on one above the epoch that the answer names, with a new count."""
    entry = bench.send_one()
    bench.core.answered(entry.key, from_puback(0x83, "stale_epoch", [("current_epoch", "41")]))
    bench.journal.commit()
    assert [again.key for again in bench.take()] == [(42, 0)]


def test_used_numbers_are_left_behind_after_the_stop(bench: Bench) -> None:
    """A device that lost its counter: ten minutes later it goes on above the epoch that the answer names, with what was
    refused and what waited behind it; one stop for all that was in flight."""
    bench.connect()
    bench.submit(4)
    sent = bench.take(3)
    for entry in sent:
        bench.core.answered(entry.key, from_puback(0x87, "equivocation", [("current_epoch", "41")]))
    bench.journal.commit()
    quiet = bench.take()
    assert (quiet, bench.core.pace.away_until_ms) == ([], START_MS + 600_000)
    bench.now_ms += 600_000
    bench.connect()
    events = [_event_ms(entry.raw) for entry in sent]
    bench.journal.commit()
    again = bench.take()
    assert [entry.key for entry in again] == [(42, 0), (42, 1), (42, 2), (42, 3)]
    assert sorted(_event_ms(entry.raw) for entry in again)[:3] == sorted(events)


def test_the_key_shows_nowhere(bench: Bench) -> None:
    """Neither the bundle's repr nor an envelope holds the MAC key."""
    entry = bench.send_one()
    key = bench.core.bundle.mac_key
    assert (repr(key) in repr(bench.core.bundle), key in entry.raw) == (False, False)


def _event_ms(raw: bytes) -> int:
    envelope = encode.decode_envelope(raw)
    body = msgspec.msgpack.decode(envelope.body)
    at: int = body[2][0][0]
    return envelope.sent_at + at


def test_an_unknown_key_asks_for_another_credential_once(bench: Bench) -> None:
    """What was signed under the root that is gone is no reason to ask again."""
    bench.connect()
    bench.submit(2)
    first, second = bench.take()
    bench.answer(first, "unknown_key", Reaction.RENEW)
    assert bench.core.wants_renewal
    bench.core.disconnected()
    bench.core.renewed(replace(bench.core.bundle, kid=2, mac_key=bytes(32)))
    assert (bench.core.wants_renewal, bench.core.pace.away_until_ms) == (False, START_MS)
    bench.connect()
    [again] = bench.take()
    assert again is second
    bench.answer(again, "unknown_key", Reaction.RENEW)
    assert (bench.core.wants_renewal, bench.notes.fates[-1][2]) == (False, "unknown")


def test_a_renewed_device_signs_with_its_new_key_and_sends_what_it_signed_before(bench: Bench) -> None:
    """The bytes in the outbox stay as they are."""
    bench.connect()
    bench.submit()
    bench.core.renewed(replace(bench.core.bundle, kid=2, mac_key=bytes(32)))
    bench.submit()
    assert [encode.decode_envelope(entry.raw).kid for entry in bench.take()] == [1, 2]
