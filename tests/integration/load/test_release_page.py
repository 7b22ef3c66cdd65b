"""docs/how-to/release-a-device.md, followed: its commands in their order, with a loader and ClickHouse beside them."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.integration.load.conftest import READER, Bench
from tests.integration.load.test_release import HELD
from tests.segments import RECEIVED_AT, peer, rows_body, sample
from tests.unit.cli.conftest import Shell

from fleetgate import configfile
from fleetgate.clock import SystemClock
from fleetgate.control.quarantine import Origin, apply_transition
from fleetgate.control.releases import releases_of, releases_since
from fleetgate.control.store import Store
from fleetgate.load.owner import Owner
from fleetgate.load.records import transition_of
from fleetgate.spool.format import TransitionRecord

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "release-a-device.md"
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S) for line in block.splitlines()
]
pytest_plugins = ["tests.unit.cli.conftest"]
WHOM = ("--tenant", "acme", "--device", "car-7-tcu")


class Stage:
    """A gate with the device car-7-tcu in quarantine, three events of it held, and its loader."""

    def __init__(self, shell: Shell, bench: Bench, address: str) -> None:
        self.shell, self.bench = shell, bench
        file = shell.directory / "fleetgate.toml"
        file.write_text(f'[clickhouse]\nurl = "{address}"\ndatabase = "fleetgate_test"\ntoken_file = "token"\n')
        (shell.directory / "token").touch(0o600)
        (shell.directory / "token").write_text(READER)
        shell.must("ca", "init")
        shell.must("device", "enroll", "--tenant", "acme", "--vehicle", "car-7")
        self.store = Store.open(configfile.load(file), SystemClock(), write=True)
        change = ("trusted", "quarantined", RECEIVED_AT, "equivocation", 100.0, "p-1")
        record = TransitionRecord("acme", "car-7-tcu", *change)
        apply_transition(self.store, Origin(bench.spool.identity.hex(), 1, 44), transition_of(record))
        bench.since = partial(releases_since, self.store)  # type: ignore[method-assign]
        bench.of = partial(releases_of, self.store)  # type: ignore[method-assign]
        events = (sample(-2, s1=1.0), sample(-1, s1=2.0), sample(0, s1=3.0))
        bench.spool.message(rows_body(*events), sender=peer("car-7"), outcome=HELD)
        bench.spool.seal()
        bench.restart()
        bench.load_all()

    def held(self) -> Any:
        return self.shell.json("quarantine", "show", *WHOM)["held_events"]


@pytest.fixture
def stage(tmp_path: Path, shell: Shell, bench: Bench, owner: Owner) -> Any:
    found = Stage(shell, bench, owner.url)
    yield found
    found.store.close()


def test_somebody_who_types_what_the_page_says(stage: Stage) -> None:
    """Sees what is held, lets the device out, and finds its events with the name of the decision."""
    answers = {}
    for command in COMMANDS:
        if command in answers:  # looked at again, a while after the decision
            assert (stage.held()["held"], stage.held()["decisions"][0]["waiting"]) == (3, 3)
            stage.bench.restart()
            stage.bench.load_all()
        answers[command] = stage.shell.must(*shlex.split(command)[1:])
    listed, shown, looked, decided, counted = answers.values()
    assert "equivocation" in listed
    assert len(looked.splitlines()) == 4
    [decision] = stage.shell.json("quarantine", "show", *WHOM)["decisions"]
    assert f"by decision {decision['name']};" in decided
    assert stage.held() == {"held": 0, "decisions": [{"decision": decision["name"], "released": 3, "waiting": 0}]}
    assert decision["name"] in shown
    assert f"{decision['name']}  3" in counted


def test_a_case_is_decided_and_shown_without_clickhouse(stage: Stage) -> None:
    """A decision does not ask it; a look at the case says that it cannot be asked."""
    (stage.shell.directory / "token").unlink()
    stage.shell.must("quarantine", "release", *WHOM, "--classification", "benign", "--reason", "a test")
    assert "what is held is not known" in stage.shell.must("quarantine", "show", *WHOM)
    assert stage.held() is None
