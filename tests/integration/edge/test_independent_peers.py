"""Clients that share no code with the gate: aiomqtt; mosquitto_pub and curl as docs/how-to/send-an-envelope.md says.

Script and commands are taken from that page, only host, ports and device are put in; so the page is true.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from tests.gate import Car, Gate

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "send-an-envelope.md"
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody who follows the page in a directory of their own, with a real device."""

    def __init__(self, gate: Gate, car: Car, directory: Path) -> None:
        self._gate = gate
        self._car = car
        self._directory = directory
        blocks = _BLOCK.findall(PAGE.read_text())
        [script] = [text for language, text in blocks if language == "python"]
        (directory / "envelope.py").write_text(script)
        self._commands = [text for language, text in blocks if language == "sh"]

    def run(self, tool: str, **instead: str) -> str:
        """Runs the page's command that begins with `tool`; what it printed. `instead` maps a file's stem to another."""
        [command] = [text for text in self._commands if text.startswith(tool)]
        facts = {
            "devices/car-7-tcu": str(self._car.directory),
            "car-7-tcu": self._car.device_id,
            "gate.example.org": "localhost",
            "8883": str(self._gate.mqtt_port),
            "8443": str(self._gate.https_port),
            "python ": f"{sys.executable} ",
            "curl ": "curl --silent ",
        } | {f"{stem}.": f"{other}." for stem, other in instead.items()}
        for text, fact in facts.items():
            command = command.replace(text, fact)
        done = subprocess.run(
            ["bash", "-c", command], cwd=self._directory, capture_output=True, text=True, timeout=20, check=False
        )
        return done.stdout + done.stderr


@pytest.fixture
def reader(shared_gate: Gate, car: Car, tmp_path: Path) -> Reader:
    """With an envelope made."""
    reader = Reader(shared_gate, car, tmp_path)
    assert reader.run("python") == ""
    return reader


needs_mosquitto = pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_mosquitto
def test_mosquitto_pub_delivers_the_pages_envelope(shared_gate: Gate, car: Car, reader: Reader, tmp_path: Path) -> None:
    """PUBACK with code 0, as the page prints it, and the file's bytes are in the spool."""
    assert f"Client {car.device_id} received PUBACK (Mid: 1, RC:0)" in reader.run("mosquitto_pub")
    assert [message.raw for message in shared_gate.stored(car)] == [(tmp_path / "envelope.msgpack").read_bytes()]


@needs_mosquitto
def test_mosquitto_pub_is_told_that_a_forged_envelope_is_refused(shared_gate: Gate, car: Car, reader: Reader) -> None:
    """PUBACK 0x87, as the page prints it, and nothing is stored."""
    reader.run("sed 's/88.25")
    told = reader.run("mosquitto_pub", envelope="forged")
    assert f"Client {car.device_id} received PUBACK (Mid: 1, RC:135)" in told
    assert "Warning: Publish 1 failed: Not authorized.\nbad_mac\n" in told
    assert shared_gate.stored(car) == []


@needs_curl
def test_curl_delivers_the_pages_envelope(shared_gate: Gate, car: Car, reader: Reader) -> None:
    """Accepted, and a duplicate when it is sent again."""
    statuses = [json.loads(reader.run("curl"))[0]["status"] for _ in range(2)]
    assert (statuses, len(shared_gate.stored(car))) == (["accepted", "duplicate"], 1)


@needs_curl
def test_curl_is_told_that_a_forged_envelope_is_refused(shared_gate: Gate, car: Car, reader: Reader) -> None:
    """The line that the page prints."""
    reader.run("""sed 's/"seq""")
    told = reader.run("curl", envelope="forged")
    assert told in PAGE.read_text()
    assert shared_gate.stored(car) == []


def test_aiomqtt_delivers_and_learns_each_code(shared_gate: Gate, car: Car) -> None:
    """The client that vehicles use: a taken, a repeated and a forged envelope, by the codes of paho's callback."""
    codes: list[tuple[int, str]] = []

    async def talk() -> None:
        tls = ssl.create_default_context(cafile=car.directory / "ca.pem")
        tls.load_cert_chain(car.directory / "certificate.pem", car.key_file)
        client = aiomqtt.Client(
            "localhost",
            shared_gate.mqtt_port,
            identifier=car.device_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            tls_context=tls,
        )
        paho: Any = client._client  # aiomqtt itself ignores the code
        inner = paho.on_publish

        def published(*given: Any) -> None:
            code, properties = given[3:]
            codes.append((code.value, getattr(properties, "ReasonString", "")))
            inner(*given)

        paho.on_publish = published
        async with client:
            raw = car.sign(1, 0)
            for payload in (raw, raw, car.sign(1, 1, key=bytes(32))):
                await client.publish(car.topic, payload, qos=1, timeout=10)

    asyncio.run(talk())
    assert codes == [(0, ""), (0, "duplicate"), (0x87, "bad_mac")]
