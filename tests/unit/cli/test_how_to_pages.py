"""The pages of docs/how-to about a device's life: somebody who types what they say gets what they promise.

Every command in a block of `sh` is run in the order of its page, in a directory where the gate and the device that the
page speaks of exist. A page that is changed is tried as it is.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from fleetgate.control.keyring import SETTLING_MS, encode_roots, read_roots

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Shell

HOW_TO = Path(__file__).parents[3] / "docs" / "how-to"
_BLOCK = re.compile(r"^```(sh|csv)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLE_FINGERPRINT = "9f2c41d0"

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


class Reader:
    """Somebody at a shell with one page. `before` is called when a command that contains its key comes up; `instead`
    gives what stands on this gate for an example of the page."""

    def __init__(self, shell: Shell, page: str, enrolled: int = 1) -> None:
        self.shell = shell
        self.before: dict[str, Callable[[], None]] = {}
        self.instead: dict[str, Callable[[], str]] = {EXAMPLE_FINGERPRINT: lambda: self._newest_fingerprint()[:8]}
        blocks = _BLOCK.findall((HOW_TO / f"{page}.md").read_text())
        self.commands = [line for kind, text in blocks if kind == "sh" for line in text.splitlines()]
        self.lists = [text for kind, text in blocks if kind == "csv"]
        if "ca init" not in self.commands[0]:
            shell.must("ca", "init")
        for number in range(7, 7 + enrolled):
            shell.must("device", "enroll", "--tenant", "acme", "--vehicle", f"car-{number}")

    def follow(self) -> dict[str, str]:
        """Runs every command; what each device is then."""
        assert self.commands
        for command in self.commands:
            for part, prepare in self.before.items():
                if part in command:
                    prepare()
            self._run(command)
        return {device["device_id"]: device["standing"] for device in self.shell.json("device", "list")}

    def _run(self, command: str) -> None:
        if command.startswith("fleetgate "):
            for example, found in self.instead.items():
                if example in command:
                    command = command.replace(example, found())
            self.shell.must(*shlex.split(command)[1:])
        else:
            subprocess.run(["bash", "-c", command], check=True, capture_output=True, timeout=20)

    def _newest_fingerprint(self) -> str:
        shown = self.shell.json("device", "show", "--tenant", "acme", "--device", "car-7-tcu")
        return str(shown["credentials"][0]["fingerprint"])


def test_enrol_a_vehicle(shell: Shell) -> None:
    """From nothing to a device with its files, in a vehicle with its VIN."""
    assert Reader(shell, "enrol-a-vehicle", enrolled=0).follow() == {"car-7-tcu": "active"}
    assert "WVWZZZ1JZXW000001" in shell.must("vehicle", "identify", "--tenant", "acme", "--vehicle", "car-7")
    assert len(list((shell.directory / "devices" / "car-7-tcu").iterdir())) == 4


@needs_openssl
def test_enrol_from_a_csr(shell: Shell) -> None:
    """The bundle has no private key."""
    assert Reader(shell, "enrol-from-a-csr", enrolled=0).follow() == {"car-7-tcu": "active"}
    assert not (shell.directory / "devices" / "car-7-tcu" / "private.pem").exists()


@needs_openssl
def test_enrol_many_devices(shell: Shell) -> None:
    """The list as the page prints it."""
    reader = Reader(shell, "enrol-many-devices", enrolled=0)
    [text] = reader.lists
    (shell.directory / "fleet.csv").write_text(text)
    (shell.directory / "requests").mkdir()
    make = "openssl req -new -newkey ed25519 -nodes -keyout private.pem -subj / -out requests/car-3.csr"
    subprocess.run(make.split(), check=True, capture_output=True, timeout=20)
    assert reader.follow() == {"car-1-tcu": "active", "tcu-00417": "active", "car-3-tcu": "active"}
    assert (shell.directory / "bundles" / "acme" / "tcu-00417" / "device.json").exists()


def test_renew_a_credential(shell: Shell) -> None:
    """Two credentials, the second with the first as its parent."""
    assert Reader(shell, "renew-a-credential").follow() == {"car-7-tcu": "active"}
    shown = shell.json("device", "show", "--tenant", "acme", "--device", "car-7-tcu")["credentials"]
    assert shown[0]["parent"] == shown[1]["fingerprint"]


def test_revoke_a_credential(shell: Shell) -> None:
    """Now, one of several, at a time that is past and at one to come."""
    assert Reader(shell, "revoke-a-credential", enrolled=3).follow() == {
        "car-7-tcu": "revoked",
        "car-8-tcu": "revoked",
        "car-9-tcu": "active",
    }
    car = ("--tenant", "acme", "--device", "car-9-tcu")
    assert shell.json("device", "show", *car)["credentials"][0]["revoked_from_ms"] == 1_927_666_800_000
    assert "2031-01-31 23:00:00Z" in shell.must("device", "show", *car)


def test_suspend_a_device(shell: Shell) -> None:
    """And let it in again."""
    assert Reader(shell, "suspend-a-device").follow() == {"car-7-tcu": "active"}


def test_replace_a_unit(shell: Shell) -> None:
    """The new one is in the old one's vehicle, the old one in another."""
    assert Reader(shell, "replace-a-unit").follow() == {"car-7-tcu": "active", "car-7-tcu-2": "active"}
    assert {d["device_id"]: d["vehicle_id"] for d in shell.json("device", "list")} == {
        "car-7-tcu": "car-8",
        "car-7-tcu-2": "car-7",
    }


def test_transfer_a_vehicle(shell: Shell) -> None:
    """The car is told by its new name."""
    assert Reader(shell, "transfer-a-vehicle").follow() == {"car-7-tcu": "decommissioned", "g-1204-tcu": "active"}
    [transfer] = shell.json("vehicle", "identify", "--tenant", "globex", "--vehicle", "g-1204")["transfers"]
    assert (transfer["from_vehicle_id"], transfer["to_vehicle_id"]) == ("car-7", "g-1204")


def test_decommission_a_device(shell: Shell) -> None:
    """And enrol it again."""
    assert Reader(shell, "decommission-a-device").follow() == {"car-7-tcu": "active"}


def test_rotate_the_mac_root_key(shell: Shell) -> None:
    """A week after the last renewal, which the page says to wait for, the old one is retired."""
    reader = Reader(shell, "rotate-the-mac-root-key")

    def a_week_later() -> None:
        assert shell.run("keyring", "retire", "1") == 4
        assert "is needed until" in shell.err
        with closing(sqlite3.connect(shell.directory / "control.db")) as db, db:
            db.execute("UPDATE credentials SET ended_at_ms = ended_at_ms - 7 * 86400000 WHERE status = 'former'")

    def seconds_later() -> None:
        file = shell.directory / "keyring.json"
        roots = read_roots(file)
        settled = msgspec.structs.replace(roots[2], created_at=roots[2].created_at - SETTLING_MS)
        file.write_bytes(encode_roots(roots | {2: settled}))

    reader.before["device renew"] = seconds_later
    reader.before["retire 1"] = a_week_later
    reader.follow()
    assert [(root["kid"], root["state"]) for root in shell.json("keyring", "list")] == [
        (1, "retired"),
        (2, "withdrawn"),
        (3, "active"),
    ]


def test_hold_a_cohort(shell: Shell) -> None:
    """Nothing is left of what was said, but in the audit."""
    Reader(shell, "hold-a-cohort").follow()
    assert shell.json("breaker", "list")["overrides"] == []


def test_every_page_of_a_devices_life_is_tried_and_can_be_found() -> None:
    """A page that enrol-a-vehicle.md points to has a test above, and the other way round."""
    linked = re.findall(r"\]\(([a-z-]+)\.md\)", (HOW_TO / "enrol-a-vehicle.md").read_text())
    tried = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    assert set(linked) <= tried
    assert {name for name in tried if (HOW_TO / f"{name}.md").exists()} == {*linked, "enrol-a-vehicle", "hold-a-cohort"}


def test_a_time_without_its_zone_is_refused(gate: Shell) -> None:
    """Nobody guesses which one was meant."""
    revoke = ("device", "revoke", "--tenant", "acme", "--device", "car-tcu", "--reason", "x", "--effective")
    for text in ("2031-01-31T23:00", "tomorrow"):
        assert gate.run(*revoke, text) == 2
    assert gate.json("device", "list")[0]["standing"] == "active"
