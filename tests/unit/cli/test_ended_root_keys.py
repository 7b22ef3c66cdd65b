"""Nothing is issued under a root key that was ended before, however late that was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.rootkeys import ends_before_transaction

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Shell

KEYRING = Path("keyring.json")
_CAR = ("--tenant", "acme", "--device", "car-tcu")
ISSUING = {
    "enroll": ("device", "enroll", "--tenant", "acme", "--vehicle", "bus"),
    "renew": ("device", "renew", *_CAR, "--out", "next"),
    "replace": ("device", "replace", *_CAR, "--by", "tcu-2", "--reason", "broken"),
    "transfer": (
        *("vehicle", "transfer", "--tenant", "acme", "--vehicle", "car"),
        *("--to-tenant", "umbra", "--to-vehicle", "u-1", "--reason", "sold"),
    ),
}


@pytest.mark.parametrize("command", ISSUING.values(), ids=ISSUING.keys())
def test_a_root_key_that_ends_before_the_transaction_is_not_used(
    gate: Shell, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """The device would be refused by every edge, and in quarantine after ten messages."""
    ends_before_transaction(monkeypatch, KEYRING)
    gate.must(*command)
    active = [line["kid"] for line in gate.json("device", "list") if line["credential"] == "active"]
    assert 2 in active


def test_a_root_key_that_ends_during_a_long_run_is_not_used_from_then_on(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ends it has the records for himself: so it happens between two batches, and the next one sees it."""
    shell.must("ca", "init")
    Path("cars.csv").write_text("tenant,vehicle\n" + "".join(f"acme,car-{number}\n" for number in range(5)))
    monkeypatch.setattr("fleetgate.control.directories.BATCH", 2)
    ends_before_transaction(monkeypatch, KEYRING, which=2)
    shell.must("device", "enroll-many", "cars.csv", "--out", "out")
    assert sorted(line["kid"] for line in shell.json("device", "list")) == [1, 1, 2, 2, 2]
