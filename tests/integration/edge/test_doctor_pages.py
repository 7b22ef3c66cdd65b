"""docs/how-to/diagnose-a-device.md and find-out-why-a-message-is-refused.md: their commands work as they say.

The commands are taken from the pages; host, ports and the device are put in.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.gate import Car, Gate, clean_environment
from tests.papers import new_key, private_pem

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to"
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody who follows a page with a device, in `directory`."""

    def __init__(self, page: str, gate: Gate, car: Car, directory: Path) -> None:
        self.text = (HOW_TO / page).read_text()
        self._directory = directory
        self._facts = {
            "python ": f"{shlex.quote(sys.executable)} ",
            "fleetgate ": f"{shlex.quote(sys.executable)} -m fleetgate.cli.main ",
            "devices/car-7-tcu": str(car.directory),
            "car-7-tcu": car.device_id,
            "gate.example.org:8883": f"localhost:{gate.mqtt_port}",
            "gate.example.org:8443": f"localhost:{gate.https_port}",
        }
        self.commands = [text for language, text in _BLOCK.findall(self.text) if language == "sh"]

    def run(self, command: str) -> tuple[int, str]:
        """Its exit code and all it printed."""
        for text, fact in self._facts.items():
            command = command.replace(text, fact)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self._directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=clean_environment(),
        )
        return done.returncode, done.stdout + done.stderr


def test_every_command_of_the_doctors_page_says_that_all_is_good(shared_gate: Gate, car: Car, tmp_path: Path) -> None:
    """On a machine without a configuration and, for the gate's, beside it."""
    page = Reader("diagnose-a-device.md", shared_gate, car, tmp_path)
    beside = Reader("diagnose-a-device.md", shared_gate, car, shared_gate.home.directory)
    assert len(page.commands) == 6
    for command in page.commands:
        reader = beside if "--device-json" in command else page
        code, told = reader.run(command)
        assert (code, "WRONG" in told) == (0, False), (command, told)


def test_the_doctors_page_shows_what_is_printed(shared_gate: Gate, car: Car, tmp_path: Path) -> None:
    """The lines of its example, for a key that is not the certificate's."""
    (car.directory / "private.pem").write_bytes(private_pem(new_key()))
    page = Reader("diagnose-a-device.md", shared_gate, car, tmp_path)
    code, told = page.run(page.commands[0])
    shown = told.replace(str(car.directory), "devices/car-7-tcu").splitlines()
    lines = [line.removeprefix("    ") for line in page.text.splitlines() if line.startswith("    ")]
    expected = [line.removesuffix(" ...") for line in lines if line not in ("...", "")]
    assert code == 1
    for line in expected:
        assert any(_alike(each).startswith(_alike(line)) for each in shown), line


def _alike(line: str) -> str:
    return " ".join(line.split())


@pytest.fixture
def court(shared_gate: Gate, car: Car) -> Reader:
    """The page on messages, with an envelope and a forged one as the page on envelopes makes them."""
    directory = shared_gate.home.directory
    envelopes = Reader("send-an-envelope.md", shared_gate, car, directory)
    [script] = [text for language, text in _BLOCK.findall(envelopes.text) if language == "python"]
    (directory / "envelope.py").write_text(script)
    for tool in ("python ", "sed 's/88.25"):
        [command] = [text for text in envelopes.commands if text.startswith(tool)]
        assert envelopes.run(command) == (0, "")
    return Reader("find-out-why-a-message-is-refused.md", shared_gate, car, directory)


def test_the_commands_of_the_judges_page(court: Reader) -> None:
    """An envelope passes, a forged one is refused in the page's words, one is too far ahead of the time named."""
    accepted, forged, elsewhere = court.commands
    code, told = court.run(accepted)
    assert (code, "outcome: accepted" in told) == (0, True)
    code, told = court.run(forged)
    assert code == 1
    [line] = [line.strip() for line in told.splitlines() if line.startswith("3")]
    assert line in court.text
    assert "fleetgate: the gate refuses it at step 3: bad_mac" in told
    code, told = court.run(elsewhere.replace("2026-11-29T12:00:00Z", "2020-01-01T00:00:00Z"))
    assert "step 4: clock_ahead" in told
    assert "sent to its own topic" in told
