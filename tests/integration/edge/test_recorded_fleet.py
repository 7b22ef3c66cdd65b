"""docs/how-to/simulate-a-large-fleet.md, followed by a small one: prepared, driven, recorded and sent again."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from tests.gate import Gate, NewGate, until

from fleetgate.spool.reader import segment_paths

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "simulate-a-large-fleet.md"
SMALLER = {"10000": "3", "--rate 1000": "--rate 30", "--seconds 60": "--seconds 1", "--speed 10": "--speed 1000"}


def said(gate: Gate) -> list[tuple[str, int, Any]]:
    """(device, time of the event in Unix ms, its signals) of everything in the spool."""
    found = []
    for segment in gate.segments():
        for message in segment.messages:
            _, _, _, _, sent_at, _, body, _ = msgspec.msgpack.decode(message.raw)
            [event] = msgspec.msgpack.decode(body, strict=False)[2]
            found.append((segment.peers[message.peer].device_id, sent_at + event[0], event[2]))
    return found


def test_a_fleet_that_was_recorded_comes_in_again(new_gate: NewGate) -> None:
    """Every value of it, by devices that the gate knows, each event as long after the one before as it was."""
    gate = new_gate()
    commands = re.findall(r"^```sh\nfleetsim (.*)\n```", PAGE.read_text(), re.MULTILINE)
    printed = []
    for command in commands:
        for large, small in SMALLER.items():
            command = command.replace(large, small)
        if command.startswith("record"):
            before = said(gate)
            until(lambda: not segment_paths(gate.spool / "segments", ".open") or gate.segments()[-1].footer, "sealed")
        arguments = shlex.split(command.replace("gate.example:8883", f"127.0.0.1:{gate.mqtt_port}"))
        done = subprocess.run(
            [sys.executable, "-m", "fleetsim", *arguments],
            cwd=gate.home.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr)
        printed.append(done.stdout)
    prepared, driven, recorded, replayed = printed
    assert prepared == "3 identities in fleet\n"
    assert msgspec.json.decode(driven)["connect"]["live"] == 3
    assert recorded.startswith(f"{len(before)} messages of 3 vehicles in ")
    assert "left out" not in recorded
    assert replayed == f"{len(before)} messages of 3 vehicles, every one acknowledged\n"

    after = said(gate)[len(before) :]
    vehicles = list(dict.fromkeys(device for device, _, _ in before))
    for number, vehicle in enumerate(vehicles):
        own = [(at, signals) for device, at, signals in before if device == vehicle]
        again = [(at, signals) for device, at, signals in after if device == f"sim-{number + 1:06d}-tcu"]
        assert [signals for _, signals in again] == [signals for _, signals in own]
        # A device sets its clock by the gate's, each by some milliseconds otherwise.
        [moved_ms] = {then - time for (time, _), (then, _) in zip(own, again, strict=True)}
        assert moved_ms > 0
