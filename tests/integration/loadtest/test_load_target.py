"""A gate that somebody runs: how it is reached, and what must not be when its devices are used again."""

from __future__ import annotations

from pathlib import Path

import pytest
from loadtest.bench.processes import BenchError
from loadtest.target import AS_CONFIGURED, Devices, Reach, Target
from tests.gate import Installation

from fleetsim.identities import Identities

TWO = Devices(2, 1)


@pytest.fixture
def home(authority: Installation, tmp_path: Path) -> Installation:
    made = authority.copy(tmp_path / "gate")
    made.configure()
    return made


def of(home: Installation, reach: Reach = AS_CONFIGURED) -> Target:
    return Target.of_somebody(home.directory / "fleetgate.toml", TWO, reach)


def test_attackers_are_others_in_each_run_and_their_keys_do_not_stay(home: Installation) -> None:
    """The honest ones are the same: they go on above their last epoch."""
    with of(home) as first:
        hostile, honest = Identities.open(first.hostile)[0], Identities.open(first.devices)[0]
        assert hostile.tenant != honest.tenant
    assert not first.hostile.exists()
    with of(home) as second:
        assert second.hostile != first.hostile
        assert Identities.open(second.hostile)[0].device_id != hostile.device_id
        assert Identities.open(second.devices)[0].device_id == honest.device_id


def test_two_runs_are_not_the_same_devices_at_once(home: Installation) -> None:
    with of(home), pytest.raises(BenchError, match="another load test runs"):
        of(home)
    with of(home):
        pass  # the lock went with the first one


def test_a_device_that_is_in_quarantine_already_ends_the_run_before_it_begins(home: Installation) -> None:
    """The verdict would say that this run had wronged it."""
    with of(home) as made:
        honest = Identities.open(made.devices)[1]
    car = home.enrol("other")
    car.tenant, car.device_id = honest.tenant, honest.device_id
    home.quarantine(car)
    with pytest.raises(BenchError, match=honest.device_id):
        of(home)


def test_what_listens_everywhere_is_no_destination(home: Installation) -> None:
    """Whatever runs on this machine would be loaded instead."""
    file = home.directory / "fleetgate.toml"
    listen = home.config.edge.mqtt_listen
    file.write_text(file.read_text().replace(listen, "0.0.0.0:" + listen.rpartition(":")[2]))
    with pytest.raises(BenchError, match="--host"):
        of(home)
    with of(home, Reach(host="gate.example", server_name="gate.example")) as made:
        said = made.options()
        assert said[said.index("--mqtt") + 1] == f"gate.example:{listen.rpartition(':')[2]}"
        assert said[said.index("--server-name") + 1] == "gate.example"
        assert made.listeners["edge"].startswith("gate.example:")
