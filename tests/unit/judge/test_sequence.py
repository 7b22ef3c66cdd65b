"""Step 5 by numbered probes at the edges of the ring, and what is kept of former epochs."""

from __future__ import annotations

import pytest

from fleetgate.judge.sequence import DUPLICATE, KEPT_EPOCHS, WINDOW, Windows, tag_prefix
from fleetgate.judge.verdict import Flag, Reason, Reject

NEW, BEFORE = 0, int(Flag.OUT_OF_ORDER)
BEHIND, CLONE, STALE = Reason.BEHIND_WINDOW, Reason.EQUIVOCATION, Reason.STALE_EPOCH


def tag(seq: int, maker: int = 0) -> bytes:
    return (seq + 1).to_bytes(8, "big") + maker.to_bytes(8, "big")


def probe(windows: Windows, seq: int, the_tag: bytes | None = None, epoch: int = 1, current: int = 1) -> int | Reason:
    try:
        return windows.look_up(epoch, seq, tag(seq) if the_tag is None else the_tag, current)
    except Reject as refusal:
        return refusal.reason


OTHER = b"\xff" * 16
PROBES: list[tuple[int, bytes | None, int | Reason]] = [
    # (number, tag if not its own, what the window says); what is allowed is claimed
    (0, None, NEW),
    (0, None, DUPLICATE),
    (0, OTHER, CLONE),
    (1, None, NEW),
    (3, None, NEW),
    (2, None, BEFORE),
    (2, None, DUPLICATE),
    (WINDOW - 1, None, NEW),
    (0, None, DUPLICATE),  # still in the ring: 1,023 behind
    (4, None, BEFORE),
    (WINDOW, None, NEW),
    (0, None, BEHIND),  # its slot is that of 1,024 now
    (0, OTHER, BEHIND),
    (1, None, DUPLICATE),
    (WINDOW, OTHER, CLONE),
    (WINDOW + 10, None, NEW),
    (WINDOW + 1, None, BEFORE),  # a slot that was skipped holds nothing of the round before
    (WINDOW + 2, OTHER, BEFORE),
    (WINDOW + 4, None, BEFORE),
    (10, None, BEHIND),
    (11, None, BEFORE),
    (WINDOW + 11, None, NEW),
    (11, None, BEHIND),
    (10 * WINDOW, None, NEW),  # a leap over the whole ring
    (9 * WINDOW, None, BEHIND),
    (9 * WINDOW + 1, None, BEFORE),
    (10 * WINDOW - 1, None, BEFORE),
    (2**63 - 1, None, NEW),
    (2**63 - 1, None, DUPLICATE),
    (2**63 - 1, OTHER, CLONE),
    (2**63 - WINDOW, None, BEFORE),
    (2**63 - WINDOW - 1, None, BEHIND),
]


def test_probes_at_the_edges_of_the_ring() -> None:
    """One window through its whole life: each probe finds what the rules say, then takes its place."""
    windows = Windows()
    for index, (seq, other, expected) in enumerate(PROBES):
        assert probe(windows, seq, other) == expected, f"probe {index}: {seq}"
        if expected in (NEW, BEFORE):
            windows.claim(1, seq, other or tag(seq), 0)


def test_a_tag_that_starts_with_zeros_fills_its_slot() -> None:
    """Zero means empty; a tag whose first eight bytes are zero is kept as one."""
    windows = Windows()
    zeros = bytes(8) + b"\x01" * 8
    windows.claim(1, 5, zeros, 0)
    assert (tag_prefix(zeros), probe(windows, 5, zeros)) == (1, DUPLICATE)


def test_an_epoch_before_the_current_one_is_stale_unless_its_window_is_kept() -> None:
    """Buffered data of a kept epoch still comes in; of one never seen here, it does not."""
    windows = Windows()
    windows.claim(3, 0, tag(0), 0)
    windows.claim(7, 0, tag(0), 0)
    assert (probe(windows, 1, epoch=3, current=7), probe(windows, 1, epoch=5, current=7)) == (NEW, STALE)


def test_the_current_epoch_opens_a_window_under_another_credential() -> None:
    """After a renewal inside one epoch, the new credential starts a window of its own in it."""
    assert probe(Windows(), 9, epoch=7, current=7) == NEW


def test_the_eight_highest_epochs_are_kept() -> None:
    """The ninth epoch pushes the lowest out, which is stale from then on."""
    windows = Windows()
    for epoch in range(1, KEPT_EPOCHS + 2):
        windows.claim(epoch, 0, tag(0), 0)
    current = KEPT_EPOCHS + 1
    found = [probe(windows, 0, epoch=epoch, current=current) for epoch in range(1, current + 1)]
    assert found == [STALE] + [DUPLICATE] * KEPT_EPOCHS


@pytest.mark.parametrize(
    ("epoch", "current", "flags"), [(1_000, 0, 0), (1_001, 0, 4), (2_007, 1_007, 0), (2_008, 1_007, 4)]
)
def test_a_jump_is_counted_from_the_devices_epoch(epoch: int, current: int, flags: int) -> None:
    """More than 1,000 above the highest epoch of the device is flagged."""
    assert probe(Windows(), 0, epoch=epoch, current=current) == flags


def test_windows_in_which_everything_is_too_old_are_dropped_but_the_current_one() -> None:
    """The freshness rule alone refuses what a dropped window knew; the current epoch is kept for good."""
    windows = Windows()
    for epoch, sent_at in ((1, 100), (2, 200), (3, 50)):
        windows.claim(epoch, 0, tag(0), sent_at)
    assert (windows.forget(3, 200), sorted(windows.by_epoch)) == ([1], [2, 3])


def test_newest_sent_at_does_not_go_back() -> None:
    """A late message does not make a window look older than its newest one."""
    windows = Windows()
    windows.claim(1, 1, tag(1), 500)
    windows.claim(1, 0, tag(0), 100)
    assert windows.by_epoch[1].newest_sent_at == 500
