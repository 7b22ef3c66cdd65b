"""docs/how-to/use-an-external-pki.md, followed: its commands in the page's order, and what each does to an edge."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from tests.gate import Car, Gate, Installation, clean_environment, running, until
from tests.mqtt_peer import Ended, MqttPeer

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "use-an-external-pki.md"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def test_the_page_about_an_external_pki(authority: Installation, tmp_path: Path) -> None:
    """From a new CA to a revoked vehicle; the edge runs all the while."""
    make_pki, enrol, issuers, trust, lists, revoke = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    with running(authority, tmp_path / "gate") as gate:
        home = gate.home.directory
        beside = home / "bin"
        beside.mkdir()
        (beside / "fleetgate").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fleetgate.cli.main "$@"\n')
        (beside / "fleetgate").chmod(0o755)

        def follow(commands: str) -> str:
            environment = clean_environment() | {"PATH": f"{beside}:{os.environ['PATH']}"}
            done = subprocess.run(
                ["bash", "-e", "-c", commands], cwd=home, env=environment,
                capture_output=True, text=True, timeout=30, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        follow(make_pki)
        follow(enrol)
        car = Car(home / "devices" / "car-7-tcu")
        vendors = car.context(home / "vendor" / "car-7.pem")
        with pytest.raises((ssl.SSLError, OSError, Ended)):
            connack(gate, car, vendors)
        with MqttPeer(gate, car).hello() as of_the_gates_own:
            follow(issuers)
            takes_effect(gate, 1)
            assert "speaks for the tenant acme" in (of_the_gates_own.farewell().reason_str or "")
        follow(trust)
        takes_effect(gate, 2)
        assert connack(gate, car, vendors) == (0, None)
        assert "ok" in follow(lists)
        takes_effect(gate, 3)
        with MqttPeer(gate, car, vendors).hello() as session:
            follow(revoke)
            assert session.farewell().reason_str == "revoked"
        assert connack(gate, car, vendors) == (0x87, "revoked")


def takes_effect(gate: Gate, times: int) -> None:
    until(lambda: gate.metric("fleetgate_files_replaced_total") == times, "it takes effect", 5)


def connack(gate: Gate, car: Car, context: ssl.SSLContext) -> tuple[int, str | None]:
    with MqttPeer(gate, car, context) as peer:
        answer = peer.greet()
        return int(answer.reason_code), answer.reason_str
