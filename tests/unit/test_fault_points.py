"""Where tests may end a process, and that nobody else can."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fleetgate import fault
from fleetgate.errors import ConfigError

SOURCE = Path(__file__).parents[2] / "src" / "fleetgate"
NAMES = {*fault.EDGE_POINTS, *fault.LOAD_POINTS, *fault.SIGNER_POINTS}


@pytest.mark.parametrize("command", [["edge"], ["load"], ["signer"], ["config", "check"]], ids=" ".join)
def test_a_production_start_refuses_a_point(tmp_path: Path, command: list[str]) -> None:
    """Without `testing = true` the variable ends edge, load, signer and `config check` with 2, and is named."""
    (tmp_path / "fleetgate.toml").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "fleetgate.cli.main", *command],
        cwd=tmp_path,
        env={fault.VARIABLE: "commit.synced", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert f"{fault.VARIABLE} is set" in done.stdout + done.stderr


@pytest.mark.parametrize("setting", ["commit.somewhere", "", "commit.synced,0", "commit.synced,x", "commit.synced,-1"])
def test_a_point_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """A misspelt point would be a trial in which nothing happens."""
    monkeypatch.setenv(fault.VARIABLE, setting)
    with pytest.raises(ConfigError, match=fault.VARIABLE):
        fault.arm(testing=True)


@pytest.mark.parametrize("times", [1, 3])
def test_the_process_ends_at_its_point_and_pass(times: int) -> None:
    """By SIGKILL, at the pass that was asked for, and at no other point."""
    script = (
        "from fleetgate import fault; fault.arm(True)\n"
        "for i in range(9): print(i, flush=True); fault.point('seal.begun'); fault.point('commit.synced')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={fault.VARIABLE: f"commit.synced,{times}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, len(done.stdout.split())) == (-9, times)


def test_every_point_is_somewhere_on_the_road_once() -> None:
    """The tables name exactly the points that the code has."""
    text = "\n".join(path.read_text() for path in sorted(SOURCE.rglob("*.py")) if path.name != "fault.py")
    found = re.findall(r'fault\.point\((f?)"([\w.{}]+)"\)', text)
    plain = [name for formatted, name in found if not formatted]
    assert len(plain) == len(set(plain))
    inserts = {name for name in NAMES if name.startswith("insert.")} - {*plain}
    assert {*plain} == NAMES - inserts
    assert [name for formatted, name in found if formatted] == ["insert.{table}"]
