"""What holds after every kill: a prefix of what was appended, all that was committed, and the windows as they were."""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gates import Gate, credential, memory, record
from tests.spools import TRANSITION, OpenSpool, SetClock, sender
from tests.units import KEY_DIGEST, NOW, hkdf, sign

from fleetgate.control.records import CredentialStatus

OLD_DIGEST = hashlib.sha256(b"the key before the renewal").digest()
DEVICES = ("tcu-0001", "tcu-0002", "tcu-0003")
RECORDS = [
    record(name, credentials=(credential(), credential(OLD_DIGEST, CredentialStatus.FORMER, NOW - 1_000)))
    for name in DEVICES
]
KEYS = {
    (name, digest): hkdf(bytes(range(32)), "acme", name, digest)
    for name in DEVICES
    for digest in (KEY_DIGEST, OLD_DIGEST)
}

batches = st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=5)
tails = st.sampled_from([b"", bytes(1), bytes(64), b"\xff" * 9]) | st.binary(max_size=40)


@settings(max_examples=100)
@given(batches=batches, cut=st.integers(0, 10_000), tail=tails)
def test_a_spool_cut_anywhere_recovers_to_a_prefix(batches: list[list[int]], cut: int, tail: bytes) -> None:
    """Of what was appended, in its order; and never less than what was committed before the cut."""
    with tempfile.TemporaryDirectory() as directory:
        spool = OpenSpool(Path(directory), SetClock())
        senders = [sender(number) for number in range(3)]
        appended: list[bytes] = []
        ends: list[tuple[int, int]] = [(0, 0)]  # (size of the file, messages in it) at each commit
        for batch in batches:
            for who in batch:
                if who == 3:
                    spool.writer.transition(TRANSITION)
                else:
                    appended += spool.write(1, first=len(appended), by=senders[who])
            spool.writer.commit()
            ends.append((spool.writer.live_bytes, len(appended)))
        spool.close()
        live = spool.paths(".open")
        size = cut % (ends[-1][0] + 1) if live else 0
        for path in live:
            path.write_bytes(path.read_bytes()[:size] + tail)
        OpenSpool(Path(directory), SetClock()).close()
        found = spool.messages()
        committed = max(messages for end, messages in ends if end <= size)
        assert found == appended[: len(found)]
        assert len(found) >= committed
        assert all(not segment.damaged for segment in spool.segments())
        assert all(path.read_bytes().endswith(b"FGSE") for path in spool.paths())


steps = st.lists(
    st.tuples(
        st.sampled_from(DEVICES),
        st.sampled_from([KEY_DIGEST, KEY_DIGEST, KEY_DIGEST, OLD_DIGEST]),
        st.sampled_from(["next", "next", "next", "again", "back", "leap", "epoch", "forged", "forged", "clone",
                         "commit", "seal", "part", "part", "checkpoint", "kill", "decide"]),
        st.integers(1, 1_500),
    ),
    max_size=50,
)  # fmt: skip


@settings(max_examples=80)
@given(steps)
def test_windows_epochs_and_states_after_a_kill_are_those_before(walk: list[tuple[str, bytes, str, int]]) -> None:
    """With checkpoints, parts of them, seals and other kills in between, at any place: everything acknowledged is known
    again."""
    with tempfile.TemporaryDirectory() as directory:
        gate = Gate(Path(directory), *RECORDS)
        place: dict[tuple[str, bytes], list[int]] = {}
        epochs = dict.fromkeys(DEVICES, 1)
        going_on: Iterator[None] = iter(())
        for name, digest, what, amount in walk:
            gate.clock.ms += 10
            at = place.setdefault((name, digest), [1, 0])
            if what == "part":
                if next(going_on, "done") == "done":  # the last one is through: begin another
                    going_on = gate.checkpointing()
                continue
            if what in ("commit", "seal", "checkpoint", "kill"):
                if what == "checkpoint":
                    deque(going_on, 0)  # one at a time
                going_on = iter(()) if what == "kill" else going_on
                live_through(gate, what)
                continue
            if what == "decide":
                known = gate.known(name)
                gate.scores.move(known, type(known.standing.state).WATCHED, gate.clock.ms, "a test")
                continue
            if what == "epoch":
                epochs[name] += 1
                at[:] = [epochs[name], 0]
            at[1] += {"next": 1, "leap": amount}.get(what, 0)
            seq = max(0, at[1] - amount) if what == "back" else at[1]
            key = bytes(32) if what == "forged" else KEYS[name, digest]
            body_time = NOW - (1 if what == "clone" else 0)
            raw = sign(epoch=at[0], seq=seq, key=key, sent_at=body_time)
            gate.receive(raw, gate.caller(name))
        deque(going_on, 0)
        for end in ("kill", "checkpoint", "kill"):  # what was replayed must be in the next checkpoint too
            live_through(gate, end)
        gate.close()


def live_through(gate: Gate, what: str) -> None:
    gate.intake.commit()
    if what == "seal":
        gate.spool.writer.seal()
    elif what == "checkpoint":
        gate.checkpoint()
    elif what == "kill":
        for name in DEVICES:
            gate.known(name)
        before = memory(gate)
        gate.kill_and_recover()
        for name in DEVICES:
            gate.known(name)
        assert memory(gate) == before
