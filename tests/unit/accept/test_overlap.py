"""A session that goes on behind the takeover: when it tells of another client, and what it may cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.gates import Gate, feed, publish, score_of
from tests.units import sign
from tests.wires import PINGREQ, connect

from fleetgate.accept.mqtt import Session
from fleetgate.config import DeviceLimit, Limits

WEIGHT = 20.0


def later(gate: Gate, seq: int) -> bytes:
    """A PUBLISH that is signed a while after all that was."""
    gate.clock.ms += 500
    return publish(sign(seq=seq, sent_at=gate.clock.ms))


def goes_on(gate: Gate, session: Session, data: bytes) -> float:
    """What the device is scored once `session`, which was taken over, has brought this."""
    session.feed_behind_the_end(data, gate.clock.ms, gate.clock.monotonic())
    return score_of(gate, gate.known())


def test_two_clients_by_turns_are_seen(gate: Gate) -> None:
    """Each connects while the other has a session, and goes on signing: each session counts once."""
    original, clone = gate.live(), gate.live()
    feed(clone, gate.clock, later(gate, 0))
    assert goes_on(gate, original, later(gate, 100)) == WEIGHT
    assert goes_on(gate, original, later(gate, 101)) == pytest.approx(WEIGHT, abs=0.1)
    again = gate.live()
    feed(again, gate.clock, later(gate, 102))
    assert goes_on(gate, clone, later(gate, 1)) == pytest.approx(2 * WEIGHT, abs=0.1)


@pytest.mark.parametrize("heard", [0, 1, 2], ids=["nothing", "the first message", "both"])
def test_an_attempt_to_connect_that_was_held_back_is_no_other_client(gate: Gate, heard: int) -> None:
    """The client gave it up and repeats its messages over a second connection; whatever of that is let through before
    the first one takes over, and however far the client then goes on."""
    messages = [later(gate, 0), later(gate, 1)]
    first, second = gate.session(), gate.live()
    feed(second, gate.clock, b"".join(messages[:heard]))
    feed(first, gate.clock, connect() + b"".join(messages))
    assert gate.known().session is first
    assert goes_on(gate, second, b"".join(messages[heard:]) + later(gate, 2)) == 0.0


@pytest.mark.parametrize(("pings", "scored"), [(3, WEIGHT), (4, 0.0)], ids=["something left", "nothing left"])
def test_what_comes_behind_the_end_takes_from_what_the_device_may_send(
    tmp_path: Path, pings: int, scored: float
) -> None:
    """Reading it costs the loop as much as before the end: when the limit is used up, nobody looks."""
    gate = Gate(tmp_path / "limited", limits=Limits(device=DeviceLimit(messages="5/h")))
    old, new = gate.live(), gate.live()
    feed(new, gate.clock, later(gate, 0))
    goes_on(gate, old, PINGREQ * pings)
    assert goes_on(gate, old, later(gate, 100)) == scored
    gate.close()
