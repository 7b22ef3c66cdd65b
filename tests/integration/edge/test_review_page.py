"""docs/how-to/review-a-quarantined-device.md, followed to the letter beside an edge that runs; names are put in."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.gate import Car, Gate, clean_environment, until
from tests.integration.edge.test_evidence import samples
from tests.mqtt_peer import MqttPeer

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "review-a-quarantined-device.md"
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody with the page, in a directory of their own, about `car`."""

    def __init__(self, gate: Gate, car: Car, directory: Path, first: int) -> None:
        self._directory = directory
        config = gate.home.directory / "fleetgate.toml"
        self._facts = {
            "car-7-tcu": car.device_id,
            "--raw 1 ": f"--raw {first} ",
            "fleetgate ": f"{sys.executable} -m fleetgate.cli.main --config {config} ",
        }
        [self.cases, self.file, self.messages, self.one, self.judge, self.release, self.ban] = _BLOCK.findall(
            PAGE.read_text()
        )

    def run(self, block: str, expect: int = 0) -> str:
        for text, fact in self._facts.items():
            block = block.replace(text, fact)
        done = subprocess.run(
            ["bash", "-e", "-c", block],
            cwd=self._directory,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout


def states(gate: Gate, car: Car) -> list[str]:
    return [record.after for _, _, record in gate.transitions(car)]


@pytest.fixture
def reader(shared_gate: Gate, session: MqttPeer, car: Car, tmp_path: Path) -> Reader:
    """In quarantine for a dozen forged messages, as load has told control."""
    for seq in range(12):
        session.ask(car.sign(session.epoch, seq, key=bytes(32)))
    first = samples(shared_gate, car, 4)[0].number
    until(lambda: "quarantined" in states(shared_gate, car), "it is in quarantine, in a sealed segment")
    shared_gate.carry_transitions(car)
    return Reader(shared_gate, car, tmp_path, first)


def test_the_page_leads_from_the_list_to_a_decision(reader: Reader, car: Car, tmp_path: Path) -> None:
    """Each command says what the page promises; a ban after a release is possible, and both are in the file."""
    assert car.device_id in reader.run(reader.cases)
    file = reader.run(reader.file)
    assert ("quarantined" in file, "bad_mac" in file, "nobody" in file, "no exact counts now" in file) == (True,) * 4
    reader.run(reader.messages)
    exported = json.loads((tmp_path / "evidence.json").read_text())
    assert [sample["what"] for sample in exported] == ["bad_mac"] * 4
    reader.run(reader.one)
    assert "REFUSED" in reader.run(reader.judge, expect=1)
    assert "released now" in reader.run(reader.release)
    assert "banned now" in reader.run(reader.ban)
    decided = reader.run(reader.file)
    assert ("old MAC key after a repair" in decided, "cloned unit" in decided) == (True, True)
