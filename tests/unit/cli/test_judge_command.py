"""`fleetgate judge` and `fleetgate doctor` as commands: their lines, and calls that cannot be answered."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.gate import Car
from tests.unit.cli.conftest import Shell


@pytest.fixture
def car(gate: Shell) -> Car:
    return Car(gate.directory / "devices" / "car-tcu")


def test_the_steps_for_a_person(gate: Shell, car: Car) -> None:
    """Each by its number, the refused one in capitals, and the error line with step and reason."""
    (gate.directory / "message").write_bytes(car.sign(1, 0, key=bytes(32)))
    assert gate.run("judge", "message", "--device", "car-tcu") == 1
    assert [line.split()[:3] for line in gate.out.splitlines()[3:9]] == [
        ["1", "envelope", "ok"],
        ["2", "identity", "ok"],
        ["3", "MAC", "REFUSED"],
        ["4", "freshness", "not"],
        ["5", "sequence", "not"],
        ["6", "body", "not"],
    ]
    assert gate.err == "fleetgate: the gate refuses it at step 3: bad_mac\n"


def test_a_suspended_device_is_told_since_when_and_why(gate: Shell, car: Car) -> None:
    """By the identity's step."""
    (gate.directory / "message").write_bytes(car.sign(1, 0))
    gate.must("device", "suspend", "--tenant", "acme", "--device", "car-tcu", "--reason", "in the workshop")
    assert gate.run("judge", "message", "--device", "car-tcu") == 1
    [line] = [line for line in gate.out.splitlines() if line.startswith("2 ")]
    assert "car-tcu of acme is suspended since 20" in line
    assert line.rstrip().endswith(": in the workshop")


def test_the_time_of_receipt_is_understood(gate: Shell, car: Car) -> None:
    """ISO 8601, with and without a zone, and Unix milliseconds."""
    (gate.directory / "message").write_bytes(car.sign(1, 0, sent_at=1_767_225_600_000))
    for time in ("2026-01-01T00:00:01Z", "2026-01-01T01:00:01+01:00", "2026-01-01", "1767225600001"):
        told = gate.json("judge", "message", "--device", "acme/car-tcu", "--at", time)
        assert (told["outcome"], told["flags"]) == ("accepted", []), time


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("judge", "message", "--device", "nobody"), 3),
        (("judge", "message", "--device", "a/b/c"), 2),
        (("judge", "message", "--device", "acme/car-tcu", "--at", "yesterday"), 2),
        (("judge", "message"), 2),
        (("judge", "nothing", "--device", "acme/car-tcu"), 2),
        (("judge", "/dev/null", "--device", "acme/car-tcu"), 2),
        (("doctor",), 2),
        (("doctor", "nowhere"), 2),
        (("doctor", "--mqtt", "localhost"), 2),
        (("doctor", "--mqtt", "localhost:99999"), 2),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else "",
)
def test_a_call_that_cannot_be_answered(gate: Shell, car: Car, arguments: tuple[str, ...], code: int) -> None:
    """One line and its exit code."""
    (gate.directory / "message").write_bytes(car.sign(1, 0))
    assert gate.run(*arguments) == code
    assert gate.err


def test_two_tenants_with_such_a_device_are_told_apart(gate: Shell, car: Car) -> None:
    """The device alone names nobody then."""
    (gate.directory / "message").write_bytes(car.sign(1, 0))
    gate.must("device", "enroll", "--tenant", "globex", "--vehicle", "car", "--out", "other")
    assert gate.run("judge", "message", "--device", "car-tcu") == 3
    assert "more than one device car-tcu of acme, globex" in gate.err
    assert "outcome: accepted" in gate.must("judge", "message", "--device", "car-tcu", "--tenant", "acme")


def test_what_a_message_says_cannot_move_a_terminal(gate: Shell, car: Car) -> None:
    """A hostile name in the body, a hostile topic: printed without their control characters."""
    body = b'{"software":"s","config":"c","events":[{"at":0,"kind":"\x1b[2J","signals":{}}]}'
    (gate.directory / "message").write_bytes(car.sign(1, 0, enc=2, body=body))
    for options in ((), ("--topic", "\x1b[2J")):
        assert gate.run("judge", "message", "--device", "acme/car-tcu", *options) == 1
        assert "\x1b" not in gate.out


def test_the_doctors_remedies_stand_below_its_lines(gate: Shell, car: Car) -> None:
    """Each remedy once, with the checks it is for."""
    for name in ("device.json", "private.pem"):
        (car.directory / name).chmod(0o644)
    assert gate.run("doctor", "devices/car-tcu") == 1
    assert [line.split()[1:3] for line in gate.out.splitlines() if line.startswith("private key")][1][1] == "WRONG"
    assert gate.out.count("chmod 600") == 1
    assert "private key, device file: run `chmod 600`" in gate.out
    assert gate.err == "fleetgate: private key: secret_exposed and 1 more\n"


def test_a_message_from_standard_input(gate: Shell, car: Car) -> None:
    """As the last command of a pipe."""
    command = [sys.executable, "-m", "fleetgate.cli.main", "judge", "-", "--device", "acme/car-tcu"]
    done = subprocess.run(command, cwd=gate.directory, input=car.sign(1, 0), capture_output=True, check=True)
    assert b"outcome: accepted" in done.stdout
