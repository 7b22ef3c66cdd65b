"""docs/how-to/renew-from-the-device.md, followed to the letter with openssl and curl; names and ports are put in."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509 import load_pem_x509_certificate
from tests.gate import Car, Gate, clean_environment
from tests.mqtt_peer import MqttPeer, told

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "renew-from-the-device.md"
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("openssl") is None, reason="curl or openssl is not installed"
)


class Reader:
    """Somebody who follows the page in a directory of their own, with a real device."""

    def __init__(self, gate: Gate, car: Car, directory: Path) -> None:
        self._gate, self._car, self._directory = gate, car, directory
        by_hand, ed25519 = PAGE.read_text().split("\n## With an Ed25519 key\n")
        ed25519, refused = ed25519.split("\n## When the gate says no\n")
        blocks = _BLOCK.findall(by_hand)
        [script] = [text for language, text in blocks if language == "python"]
        (directory / "take.py").write_text(script)
        self.by_hand: list[str] = [text for language, text in blocks if language == "sh"]
        self.ed25519 = [text for _, text in _BLOCK.findall(ed25519)]
        self.refused = [text for _, text in _BLOCK.findall(refused)]

    @property
    def ask(self) -> str:
        return next(block for block in self.by_hand if block.startswith("curl"))

    def run(self, *blocks: str, expect: int = 0) -> str:
        """Runs these blocks of the page in one shell; what they printed."""
        script = "set -e\n" + "".join(blocks)
        config = self._gate.home.directory / "fleetgate.toml"
        facts = {
            "devices/car-7-tcu": str(self._car.directory),
            "car-7-tcu": self._car.device_id,
            "gate.example.org": "localhost",
            "8443": str(self._gate.https_port),
            "python ": f"{sys.executable} ",
            "curl ": "curl --silent ",
            "fleetgate ": f"{sys.executable} -m fleetgate.cli.main --config {config} ",
        }
        for text, fact in facts.items():
            script = script.replace(text, fact)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._directory,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def car(renewing_gate: Gate) -> Car:
    return renewing_gate.home.enrol(f"reader-{len(renewing_gate.home.cars)}")


@pytest.fixture
def reader(renewing_gate: Gate, car: Car, tmp_path: Path) -> Reader:
    return Reader(renewing_gate, car, tmp_path)


def check_sends(gate: Gate, before: Car) -> Car:
    """That the device is under another certificate, and that the gate takes what it signs."""
    after = Car(before.directory)
    assert after.key != before.key
    with MqttPeer(gate, after).hello() as peer:
        assert told(peer.ask(after.sign(1, 0))) == (0, None)
    return after


def test_the_page_renews_a_device(renewing_gate: Gate, car: Car, reader: Reader) -> None:
    """All of it in order; the records show both credentials."""
    shown = reader.run(*reader.by_hand)
    after = check_sends(renewing_gate, car)
    assert after.identity.fingerprint.hex() in shown
    assert "former" in shown
    assert (after.directory / "private.pem").stat().st_mode & 0o077 == 0


def test_the_page_renews_a_device_with_an_ed25519_key(renewing_gate: Gate, car: Car, reader: Reader) -> None:
    """Keys and request of their section, the question of the one before."""
    make, take = reader.ed25519
    reader.run(make, reader.ask, take)
    after = check_sends(renewing_gate, car)
    leaf = load_pem_x509_certificate((after.directory / "certificate.pem").read_bytes())
    assert isinstance(leaf.public_key(), Ed25519PublicKey)


def test_the_page_says_what_a_second_key_does(renewing_gate: Gate, car: Car, reader: Reader) -> None:
    """503, and a case for `clone_sign` in the list that it names."""
    keys, csr = reader.by_hand[0], reader.by_hand[1]
    reader.run(keys, csr, reader.ask)
    reader.run(keys, csr, reader.ask, expect=22)
    [listed] = [line for line in reader.run(*reader.refused).splitlines() if car.device_id in line]
    assert "clone_sign" in listed
