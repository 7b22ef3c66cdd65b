"""What holds of the judge for every input: it never raises, believes no changed bit, and its window is a set."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from tests.units import BODY, NOW, TOPIC, Unit, elements, pack, sign, sign_json

from fleetgate.judge import Outcome, Reason
from fleetgate.judge.sequence import DUPLICATE, KEPT_EPOCHS, WINDOW, Windows
from fleetgate.judge.verdict import Flag, Reject

NAMES = ("v", "kid", "epoch", "seq", "sent_at", "enc", "body", "tag")
WIDTH = {"v": 8, "kid": 32, "epoch": 32, "seq": 63, "sent_at": 63, "enc": 8}

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats()
leaves = st.none() | st.booleans() | numbers | st.text(max_size=9) | st.binary(max_size=9)
keys = st.integers(-1, 2**17) | st.text(max_size=9)
trees = st.recursive(
    leaves, lambda tree: st.lists(tree, max_size=6) | st.dictionaries(keys, tree, max_size=4), max_leaves=25
)
events = st.lists(st.tuples(leaves, st.sampled_from(["sample", "fault", ""]), trees, trees), max_size=3)
bodies = st.one_of(
    st.binary(max_size=200),
    trees.map(pack),
    st.tuples(leaves, leaves, events).map(pack),
    st.tuples(leaves, leaves, st.just("sample"), st.integers(0, 9), st.binary(max_size=36), trees).map(pack),
    st.tuples(st.just("s"), st.just("c"), events).map(
        lambda rows: msgspec.json.encode({"software": rows[0], "config": rows[1], "events": rows[2]})
        if "\ud800" not in str(rows) else b"{}"
    ),
    st.tuples(st.integers(0, len(BODY) - 1), st.binary(min_size=1, max_size=3)).map(
        lambda cut: BODY[: cut[0]] + cut[1] + BODY[cut[0] + 1 :]
    ),
)  # fmt: skip


@given(raw=st.binary(max_size=300) | trees.map(pack), json_allowed=st.booleans())
@example(raw=b"\x98" + b"\xdd\xff\xff\xff\xff" * 8, json_allowed=False)
@example(raw=b"[" * 5_000, json_allowed=True)
@example(raw=b'{"v":1,"kid":"\\ud800"}', json_allowed=True)
def test_arbitrary_bytes_are_refused_and_never_raise(raw: bytes, json_allowed: bool) -> None:
    """Whatever the bytes, the judge answers with a refusal that has a reason."""
    verdict = Unit(json_allowed=json_allowed).judge(raw, NOW, None)
    assert (verdict.outcome, verdict.reason is not None) == (Outcome.REJECTED, True)


@given(body=bodies, enc=st.integers(1, 3))
def test_a_well_signed_body_of_anything_never_raises(body: bytes, enc: int) -> None:
    """Behind a right MAC the body may be anything: it is accepted or malformed."""
    verdict = Unit().judge(sign(body=body or b"\x00", enc=enc))
    assert verdict.reason in (None, Reason.MALFORMED_BODY)


@given(
    text=st.text(max_size=40) | st.sampled_from(["AAAA", "AB==", "A" * 24]),
    name=st.sampled_from(NAMES),
    value=leaves.filter(lambda leaf: leaf == leaf and not isinstance(leaf, bytes)),
)
def test_a_json_envelope_of_anything_never_raises(text: str, name: str, value: Any) -> None:
    """Every field of the JSON form may hold any text or value."""
    unit = Unit(json_allowed=True)
    fields = msgspec.json.decode(sign_json())
    verdicts = [unit.judge(msgspec.json.encode(fields | {name: each})) for each in (text, value)]
    assert all(verdict.outcome in (Outcome.ACCEPTED, Outcome.REJECTED) for verdict in verdicts)


def test_no_bit_of_a_message_can_be_flipped() -> None:
    """Every single bit of the bytes on the wire: each flip is refused, and claims nothing."""
    raw = sign()
    unit = Unit()
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        assert unit.take(bytes(changed)).outcome is Outcome.REJECTED, f"bit {bit}"
    assert unit.take(raw).outcome is Outcome.ACCEPTED


messages = st.fixed_dictionaries(
    {
        "kid": st.integers(1, 2),
        "epoch": st.integers(0, 2**32 - 1),
        "seq": st.integers(0, 2**63 - 1),
        "sent_at": st.integers(NOW - 600_000, NOW + 60_000),
    }
)


@given(fields=messages, name=st.sampled_from(NAMES), where=st.integers(0, 10_000))
def test_any_flipped_bit_of_a_field_is_refused(fields: dict[str, Any], name: str, where: int) -> None:
    """Each value is under the MAC: flipped in the decoded form too, whatever its encoding, it is refused."""
    values = elements(**{**fields, "kid": 1})
    index = NAMES.index(name)
    if isinstance(values[index], bytes):
        changed = bytearray(values[index])
        changed[where // 8 % len(changed)] ^= 1 << where % 8
        values[index] = bytes(changed)
    else:
        values[index] ^= 1 << where % WIDTH[name]
    assert Unit().judge(pack(values), NOW, TOPIC).outcome is Outcome.REJECTED


class NaiveWindow:
    """The rules of step 5 over a set of everything ever claimed; forgets nothing."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], bytes] = {}
        self.highest: dict[int, int] = {}

    def look_up(self, epoch: int, seq: int, tag: bytes) -> int | Reason:
        current = max(self.highest, default=0)
        if epoch not in sorted(self.highest)[-KEPT_EPOCHS:]:
            if epoch < current:
                return Reason.STALE_EPOCH
            return int(Flag.EPOCH_JUMP) if epoch - current > 1_000 else 0
        if seq > self.highest[epoch]:
            return 0
        if seq <= self.highest[epoch] - WINDOW:
            return Reason.BEHIND_WINDOW
        if (epoch, seq) not in self.seen:
            return int(Flag.OUT_OF_ORDER)
        return DUPLICATE if self.seen[epoch, seq] == tag else Reason.EQUIVOCATION

    def claim(self, epoch: int, seq: int, tag: bytes) -> None:
        self.seen[epoch, seq] = tag
        self.highest[epoch] = max(seq, self.highest.get(epoch, -1))


def look_up(windows: Windows, epoch: int, seq: int, tag: bytes, current: int) -> int | Reason:
    try:
        return windows.look_up(epoch, seq, tag, current)
    except Reject as refusal:
        return refusal.reason


def tag_of(epoch: int, seq: int, maker: int) -> bytes:
    tag = (seq + 1).to_bytes(8, "big") + epoch.to_bytes(4, "big") + bytes(4)
    return b"\xff" + tag[1:] if maker else tag


steps = st.tuples(
    st.integers(-9, 2) | st.sampled_from([0, 0, 0, 0, 1, 1_000, 1_001]),  # epoch, from the highest
    st.sampled_from([1, 1, 1, 2, 3, -1, 0, 1_022, 1_023, 1_024, 1_025, -1_022, -1_023, -1_024, 5_000, 2**40])
    | st.integers(-3, 4)
    | st.integers(-12, 12)
    | st.integers(-1_100, 1_100),  # number, from the highest of its epoch
    st.sampled_from([0, 0, 0, 1]),  # by the device, or by its clone
)


@given(walk=st.lists(steps, max_size=60), epochs=st.integers(0, 12), filled=st.sampled_from([1, 30, 1_024, 1_100]))
def test_the_window_agrees_with_a_set_of_everything_seen(
    walk: list[tuple[int, int, int]], epochs: int, filled: int
) -> None:
    """The ring of 1,024 slots and eight epochs answers as a set does that never forgets."""
    windows, naive = Windows(), NaiveWindow()
    for epoch in range(1, epochs + 1):  # a life before the walk: its last epoch without a gap
        for seq in range(filled if epoch == epochs else 3):
            windows.claim(epoch, seq, tag_of(epoch, seq, 0), NOW)
            naive.claim(epoch, seq, tag_of(epoch, seq, 0))
    current = epochs
    for by_epoch, by_seq, maker in walk:
        epoch = max(0, current + by_epoch)
        seq = min(max(0, naive.highest.get(epoch, 0) + by_seq), 2**63 - 1)
        tag = tag_of(epoch, seq, maker)
        found = look_up(windows, epoch, seq, tag, current)
        assert found == naive.look_up(epoch, seq, tag)
        if not isinstance(found, Reason) and found != DUPLICATE:
            windows.claim(epoch, seq, tag, NOW)
            naive.claim(epoch, seq, tag)
            current = max(current, epoch)
    highest = naive.highest.get(current, 0)
    for seq in range(max(0, highest - WINDOW), highest + 2):  # every slot, in the end
        tag = tag_of(current, seq, 0)
        assert look_up(windows, current, seq, tag, current) == naive.look_up(current, seq, tag)


traffic = st.lists(
    st.tuples(
        st.integers(1, 4),  # epoch
        st.integers(0, 40) | st.integers(1_000, 1_100),  # seq
        st.sampled_from(["good", "good", "good", "bad mac", "bad body", "ahead", "old", "cut", "elsewhere", "clone"]),
    ),
    max_size=60,
)


def make(epoch: int, seq: int, how: str) -> tuple[bytes, bytes]:
    changes: dict[str, dict[str, Any]] = {
        "bad mac": {"key": b"\x00" * 32},
        "bad body": {"body": b"\x00"},
        "ahead": {"sent_at": NOW + 61_000},
        "old": {"sent_at": NOW - 8 * 24 * 3_600_000},
        "clone": {"sent_at": NOW - 1},
    }
    raw = sign(epoch=epoch, seq=seq, **changes.get(how, {}))
    return (raw[:-1] if how == "cut" else raw), (TOPIC if how != "elsewhere" else b"elsewhere")


@given(traffic)
def test_a_refused_message_never_uses_up_its_number(walk: list[tuple[int, int, str]]) -> None:
    """Refusals and duplicates leave windows and epoch untouched, in any mixture; what is kept is a duplicate after."""
    unit = Unit()
    for epoch, seq, how in walk:
        raw, topic = make(epoch, seq, how)
        before = unit.windows()
        verdict = unit.judge(raw, NOW, topic)
        assert unit.windows() == before
        if verdict.outcome is Outcome.ACCEPTED:
            unit.take(raw)
            assert unit.judge(raw).outcome is Outcome.DUPLICATE
