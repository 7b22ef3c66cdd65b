"""Decides the cases of freshness and sequence: steps 4 and 5 of the judge, at their edges."""

from collections.abc import Iterator

from fleetsim import encode
from fleetsim.vectors.case import NOW, SENT_AT, Case, message

_DAY = 86_400_000
_OTHER_BODY = encode.encode_body(1, encode.Body("2026.44.1", "cfg-7f3a", [encode.Event(-9, "heartbeat", {}, {})]))


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _freshness()
    yield from _windows()
    yield from _epochs()
    yield from _order_of_steps()


def _freshness() -> Iterator[Case]:
    ahead: list[tuple[int, str, list[str]]] = [
        (4_999, "accepted", []),
        (5_001, "accepted", ["clock_skew"]),
        (60_000, "accepted", ["clock_skew"]),
        (60_001, "clock_ahead", []),
        (10 * 365 * _DAY, "clock_ahead", []),
    ]
    for ms, expect, flags in ahead:
        what = f"`sent_at` is {ms} ms ahead of the gate."
        shown = flags if expect == "accepted" else None
        yield Case(f"ahead-{ms}", what, expect, message(sent_at=NOW + ms), flags=shown)
    old: list[tuple[int, str, list[str]]] = [
        (300_000, "accepted", []),
        (300_001, "accepted", ["late"]),
        (7 * _DAY, "accepted", ["late"]),
        (7 * _DAY + 1, "too_old", []),
    ]
    for ms, expect, flags in old:
        what = f"`sent_at` lies {ms} ms behind the gate."
        shown = flags if expect == "accepted" else None
        yield Case(f"behind-{ms}", what, expect, message(sent_at=NOW - ms), flags=shown)
    for name, sent_at, expect in (
        ("zero", 0, "too_old"),
        ("negative", -1, "too_old"),
        ("smallest", -(2**63), "too_old"),
        ("largest", 2**63 - 1, "clock_ahead"),
    ):
        yield Case(f"sent-at-{name}", f"`sent_at` is {sent_at}.", expect, message(sent_at=sent_at))
    first = message()
    what = "A message whose own tag stands in its slot is a duplicate whatever its age."
    yield Case("after-8-days", what, "duplicate", first, before=[(first, NOW)], now=NOW + 8 * _DAY)


def _seen(*keys: tuple[int, int]) -> list[tuple[bytes, int]]:
    return [(message(epoch=epoch, seq=seq), NOW) for epoch, seq in keys]


def _windows() -> Iterator[Case]:
    def case(name: str, what: str, expect: str, seen: list[int], seq: int, flags: list[str] | None = None) -> Case:
        return Case(name, what, expect, message(seq=seq), before=_seen(*((1, s) for s in seen)), flags=flags)

    late, top = ["out_of_order"], 2**63 - 1
    yield case("next", "The next number.", "accepted", [0], 1, [])
    yield case("gap", "A gap is no fault.", "accepted", [0], 100, [])
    yield case("out-of-order", "A number below the highest seen.", "accepted", [0, 2], 1, late)
    yield case("again", "The same bytes again.", "duplicate", [0], 0)
    yield case("again-later", "The same bytes again, after others.", "duplicate", [0, 1, 2, 3], 1)
    yield case("first-at-100", "An epoch may be seen from its middle on.", "accepted", [], 100, [])
    yield case("1023-behind", "1,023 below the highest is in the ring.", "accepted", [1_024], 1, late)
    yield case("1024-behind", "1,024 below the highest is out of it.", "behind_window", [1_024], 0)
    yield case("far-behind", "Far below the highest.", "behind_window", [1_000_000], 3)
    yield case("top-1023", "The ring at the largest numbers.", "accepted", [top], top - 1_023, late)
    yield case("top-1024", "Out of the ring at the largest numbers.", "behind_window", [top], top - 1_024)
    yield case("top-again", "The largest number again.", "duplicate", [top], top)
    yield case("left-behind", "Seen once, and now out of the ring.", "behind_window", [0, 1_024], 0)
    yield case("slot-cleared", "1,024 shares the slot of 0, which was left.", "accepted", [0, 1_025], 1_024, late)
    yield case("slot-cleared-jump", "A jump over the ring clears it.", "accepted", [0, 1, 2, 5_000], 4_097, late)
    yield case("slot-kept", "A step of 1,023 keeps the oldest slot.", "duplicate", [0, 1_023], 0)
    other = "Another valid message under a number that was used."
    seen = _seen((1, 0), (1, 1))
    yield Case("other-body", other, "equivocation", message(seq=0, body=_OTHER_BODY), before=seen)
    moved = message(seq=1, sent_at=SENT_AT + 1)
    what = "The same body signed again is another message."
    yield Case("other-sent-at", what, "equivocation", moved, before=seen)


def _epochs() -> Iterator[Case]:
    def case(
        name: str,
        what: str,
        expect: str,
        seen: list[tuple[int, int]],
        key: tuple[int, int],
        flags: list[str] | None = None,
    ) -> Case:
        raw = message(epoch=key[0], seq=key[1])
        return Case(name, what, expect, raw, before=_seen(*seen), flags=flags)

    eight = [(epoch, 0) for epoch in range(1, 9)]
    nine = [(epoch, 0) for epoch in range(1, 10)]
    yield case("new-epoch", "Numbers start again in a new epoch.", "accepted", [(1, 0), (1, 1)], (2, 0), [])
    yield case("lower-epoch", "An epoch below the highest and never seen.", "stale_epoch", [(5, 0)], (4, 0))
    yield case("known-epoch", "An earlier epoch that has its window.", "accepted", [(1, 0), (2, 0)], (1, 1))
    yield case("known-again", "The same bytes of an earlier epoch.", "duplicate", [(1, 0), (2, 0)], (1, 0))
    yield case("eighth-epoch", "Eight epochs are kept.", "accepted", eight, (1, 1))
    yield case("ninth-epoch", "The ninth is gone.", "stale_epoch", nine, (1, 1))
    yield case("second-of-nine", "Of nine the second is kept.", "accepted", nine, (2, 1))
    yield case("ninth-again", "Even the same bytes, when the window is gone.", "stale_epoch", nine, (1, 0))
    jump = ["epoch_jump"]
    yield case("first-1000", "The current epoch of a new device counts as 0.", "accepted", [], (1_000, 0), [])
    yield case("first-1001", "More than 1,000 above it is a jump.", "accepted", [], (1_001, 0), jump)
    yield case("jump-1000", "1,000 above the current epoch.", "accepted", [(5, 0)], (1_005, 0), [])
    yield case("jump-1001", "1,001 above the current epoch.", "accepted", [(5, 0)], (1_006, 0), jump)


def _order_of_steps() -> Iterator[Case]:
    bad_body = b"\xc1"
    seen = _seen((5, 0))
    yield Case(
        "before-body",
        "Freshness is step 4, the body step 6.",
        "clock_ahead",
        message(sent_at=NOW + 61_000, body=bad_body),
    )
    yield Case(
        "stale-before-body",
        "Sequence is step 5, the body step 6.",
        "stale_epoch",
        message(epoch=4, body=bad_body),
        before=seen,
    )
    yield Case(
        "before-sequence",
        "Freshness is step 4, sequence step 5.",
        "too_old",
        message(epoch=5, seq=0, sent_at=NOW - 8 * _DAY),
        before=seen,
    )
    what = "A number that was used shows before the body is read."
    yield Case("before-bad-body", what, "equivocation", message(epoch=5, body=bad_body), before=seen)
