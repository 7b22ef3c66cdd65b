"""A fleet's messages are recorded from the edge's spool and sent again by other devices, all by the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from tests.gate import Car, Gate, NewGate, now_ms, until
from tests.mqtt_peer import MqttPeer

from fleetgate.spool.reader import segment_paths


def fleetsim(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fleetsim", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def body(*speeds: float) -> bytes:
    """Events 100 ms apart, the last one at the time of sending."""
    events = [[100 * (index + 1 - len(speeds)), "sample", {1: speed}, {}] for index, speed in enumerate(speeds)]
    return msgspec.msgpack.encode(["2026.44.1", "cfg-7f3a", events])


def told(gate: Gate, car: Car) -> list[list[Any]]:
    """[time of the event in Unix ms, speed] of all that the spool has of a car."""
    said = []
    for message in gate.stored(car):
        _, _, _, _, sent_at, _, content, _ = msgspec.msgpack.decode(message.raw)
        said += [[sent_at + event[0], event[2][1]] for event in msgspec.msgpack.decode(content, strict=False)[2]]
    return said


def test_a_recording_comes_in_again_as_other_vehicles_and_as_fast_as_asked(new_gate: NewGate, tmp_path: Path) -> None:
    """Two cars, three messages; values and spacing are the same behind another two devices' signatures."""
    gate = new_gate()
    cars = [gate.home.enrol(f"car-{number}") for number in (1, 2)]
    for car, speeds in zip(cars, ([(50.0, 51.0), (52.0,)], [(7.0, 8.0, 9.0)]), strict=True):
        with MqttPeer(gate, car) as peer:
            peer.hello()
            for seq, some in enumerate(speeds):
                ack = peer.ask(car.sign(peer.epoch, seq, body=body(*some), sent_at=now_ms()))
                assert ack.reason_code == 0
    until(lambda: not segment_paths(gate.spool / "segments", ".open") or gate.segments()[-1].footer, "all is sealed")
    tape, state = tmp_path / "tape", tmp_path / "state"
    printed = fleetsim(
        "record", str(gate.spool), "--keyring", str(gate.home.directory / "keyring.json"), "--out", str(tape)
    )
    assert printed.startswith("3 messages of 2 vehicles in ")
    assert "left out" not in printed

    others = [gate.home.enrol(f"other-{number}") for number in (1, 2)]
    senders = [option for other in others for option in ("--device", str(other.directory))]
    address = ("--mqtt", f"127.0.0.1:{gate.mqtt_port}", "--speed", "1000")
    assert fleetsim("replay", str(tape), *senders, "--state", str(state), *address) == (
        "3 messages of 2 vehicles, every one acknowledged\n"
    )
    for car, other in zip(cars, others, strict=True):
        before, after = told(gate, car), told(gate, other)
        assert [speed for _, speed in after] == [speed for _, speed in before]
        # A device sets its clock by the gate's, each by some milliseconds otherwise.
        [moved_ms] = {then - time for (time, _), (then, _) in zip(before, after, strict=True)}
        assert moved_ms > 0
