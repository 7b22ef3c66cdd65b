"""The systemd units: what systemd itself says of them, and that each process is kept from what is another's."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.deployed import DEPLOY

from fleetgate.config import Config
from fleetgate.configfile import load

UNITS = DEPLOY / "systemd"
PROCESSES = ("edge", "load", "signer")
EXPOSURE = {"edge": 12, "load": 13, "signer": 3}
"""Tenths of systemd's points; what is left is that edge and load use the network, and load its own scheduling."""
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze (Debian: systemd) is not installed")
HOME = "/var/lib/fleetgate"


class Unit(configparser.RawConfigParser):
    """A unit file; of a key that stands twice the values are one."""

    def __init__(self, process: str) -> None:
        super().__init__(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
        self.optionxform = str  # type: ignore[assignment,method-assign]
        self.text = (UNITS / f"fleetgate-{process}.service").read_text()
        self.read_string(self.text)

    def paths(self, key: str) -> set[str]:
        return {path.removeprefix(HOME + "/") for path in self["Service"].get(key, "").split()}


@pytest.fixture(scope="module")
def config() -> Config:
    return load(DEPLOY / "fleetgate.toml", {})


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with the command that is at hand, as systemd looks whether it exists."""
    command = Path(sys.executable).with_name("fleetgate")
    for file in UNITS.glob("*.service"):
        text = file.read_text()
        assert text.count("/opt/fleetgate/bin/fleetgate ") == 1
        (tmp_path / file.name).write_text(text.replace("/opt/fleetgate/bin/fleetgate", str(command)))
    return tmp_path


def analyze(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run(
        [ANALYZE, *arguments], cwd=directory, capture_output=True, text=True, timeout=300, check=False
    )


@needs_systemd
def test_systemd_understands_every_line(installed: Path) -> None:
    """No unknown key, no value that is none, no command that does not exist."""
    done = analyze(installed, "verify", "--man=no", *(f"./fleetgate-{process}.service" for process in PROCESSES))
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_would_say_what_it_does_not_understand(installed: Path) -> None:
    """The check above is one: a misspelt key fails it."""
    unit = installed / "fleetgate-edge.service"
    unit.write_text(unit.read_text().replace("ProtectClock=", "ProtectClocks="))
    assert "ProtectClocks" in analyze(installed, "verify", "--man=no", "./fleetgate-edge.service").stderr


@needs_systemd
@pytest.mark.parametrize("process", PROCESSES)
def test_little_is_exposed(installed: Path, process: str) -> None:
    """No more than today: who opens a sandbox changes the figure above, and says why."""
    unit = f"./fleetgate-{process}.service"
    done = analyze(installed, "security", "--offline=true", f"--threshold={EXPOSURE[process]}", "--no-pager", unit)
    assert done.returncode == 0, done.stdout[-3000:]
    assert analyze(installed, "security", "--offline=true", "--threshold=1", "--no-pager", unit).returncode != 0


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_is_supervised_and_started_again(process: str) -> None:
    """It says that it is ready and works; a core, which would hold keys, is not written."""
    unit = Unit(process)
    service = unit["Service"]
    assert service["ExecStart"].endswith(f" --config /etc/fleetgate/fleetgate.toml {process}")
    assert (service["Type"], service["Restart"], service["LimitCORE"]) == ("notify", "always", "0")
    assert "WatchdogSec" in service
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


def test_no_process_sees_what_it_must_never_hold(config: Config) -> None:
    """The table of processes: no ClickHouse password for the edge, no key for load, no telemetry for the signer."""
    edge, signer = config.edge, config.signer
    keys = {edge.private_key, edge.keyring}
    signing = {signer.authority, signer.audit_key}
    never = {
        "edge": {config.clickhouse.token_file} | signing,
        "load": keys | signing | {config.evidence.directory},
        "signer": {edge.private_key, config.clickhouse.token_file, config.spool.directory, config.evidence.directory},
    }
    for process, paths in never.items():
        hidden = Unit(process).paths("InaccessiblePaths")
        assert "people" in hidden  # the passwords of ClickHouse's owner and reader
        assert {path for path in paths if path.partition("/")[0] not in hidden} == set(), process


def test_each_process_may_write_what_it_writes_and_see_what_it_reads(config: Config) -> None:
    """A setting of another directory would fail at the first write, and after the start."""
    control = config.control.url.removeprefix("sqlite:///").partition("/")[0]
    signer = config.signer
    sockets = {str(Path(signer.socket).parent), str(Path(signer.renewal_socket).parent)}
    public = signer.audit_public_key.partition("/")[0]
    writes = {
        "edge": {config.spool.directory, config.evidence.directory, control},
        "load": {config.spool.directory, control, "clickhouse"},
        "signer": {signer.log.partition("/")[0], public, control} | sockets,
    }
    for process, paths in writes.items():
        unit = Unit(process)
        assert unit.paths("ReadWritePaths") == paths, process
        assert not unit.paths("ReadWritePaths") & unit.paths("InaccessiblePaths")
    assert not Unit("signer").paths("InaccessiblePaths") & {"authority", "audit", "keys"}
    assert not Unit("edge").paths("InaccessiblePaths") & {"edge", "keys"}
    assert public not in Unit("load").paths("InaccessiblePaths")


def test_edge_and_load_see_a_socket_each_and_replace_none(config: Config) -> None:
    """Whoever can ask where heads are signed can have signed what was never loaded: that is load alone. No unit makes
    the directories: one that is not there yet could not be hidden."""
    signing, renewal = Path(config.signer.socket).parent, Path(config.signer.renewal_socket).parent
    assert signing != renewal
    for process, sees, hidden in (("edge", renewal, signing), ("load", signing, renewal)):
        unit = Unit(process)
        assert str(hidden) in unit.paths("InaccessiblePaths")
        assert str(sees) not in unit.paths("InaccessiblePaths") | unit.paths("ReadWritePaths")
        assert unit["Service"]["ProtectSystem"] == "strict"  # what is not writable by name is read-only
    assert not any("RuntimeDirectory" in Unit(process)["Service"] for process in PROCESSES)


def test_the_directories_are_made(config: Config) -> None:
    """Every directory that a unit names is in tmpfiles.conf: one that is absent would keep the unit from starting."""
    made = {
        path.removeprefix(HOME + "/")
        for path in re.findall(r"^d (\S+) +07[05]0 fleetgate fleetgate$", (UNITS / "tmpfiles.conf").read_text(), re.M)
    }
    units = [Unit(process) for process in PROCESSES]
    named = set[str]().union(*(unit.paths(key) for unit in units for key in ("ReadWritePaths", "InaccessiblePaths")))
    assert named <= made
    assert {config.edge.certificate.partition("/")[0], config.edge.keyring.partition("/")[0]} <= made


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give directories to another user")
@pytest.mark.skipif(
    shutil.which("systemd-tmpfiles") is None, reason="systemd-tmpfiles (Debian: systemd) is not installed"
)
def test_user_and_directories_are_made_by_systemd(tmp_path: Path) -> None:
    """In an empty root: the secrets are for the gate's user alone."""
    (tmp_path / "etc").mkdir()
    root = f"--root={tmp_path}"
    for command in (
        ["systemd-sysusers", root, str(UNITS / "sysusers.conf")],
        ["systemd-tmpfiles", root, "--create", str(UNITS / "tmpfiles.conf")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    [line] = [line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("fleetgate:")]
    made = {path.name: path.stat() for path in (tmp_path / "var/lib/fleetgate").iterdir()}
    assert {str(status.st_uid) for status in made.values()} == {line.split(":")[2]}
    secret = {"keys", "authority", "audit", "clickhouse", "people", "evidence"}
    assert {name for name, status in made.items() if status.st_mode & 0o777 == 0o700} == secret
    assert (tmp_path / "run/fleetgate/signing").stat().st_mode & 0o777 == 0o700
