"""Scenarios: what a shape means at each moment, and what a file must be to be one."""

from __future__ import annotations

from pathlib import Path

import pytest
from loadtest.scenario import FILE, ScenarioError, scenario, shapes

USERS, SECONDS = 100, 200.0
NAMES = {"ramp", "rush-hour", "soak", "spike", "herd", "tunnel", "release-rollout", "attack-wave"}


def test_the_file_has_the_shapes_that_the_documents_name() -> None:
    assert set(shapes()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_shape_reaches_all_users_and_ends_in_time(name: str) -> None:
    """Never more than were asked for, never nobody, and None from the last second on."""
    made = scenario(name, USERS, SECONDS)
    load = [made.users_at(second) for second in range(int(SECONDS))]
    counts = [users for users in load if users is not None]
    assert len(counts) == len(load)
    assert 1 <= min(counts) <= max(counts) == USERS
    assert made.users_at(SECONDS) is None


def test_a_spike_is_sudden_and_passes() -> None:
    made = scenario("spike", USERS, SECONDS)
    assert [made.users_at(at) for at in (99.0, 101.0, 129.0, 131.0)] == [20, 100, 100, 20]


def test_a_herd_loses_every_connection_at_the_same_moment() -> None:
    made = scenario("herd", USERS, SECONDS)
    assert {tuple(made.actions(number)) for number in range(USERS)} == {tuple(made.actions(0))}
    assert [action.does for action in made.actions(0)] == ["reconnect", "reconnect"]


def test_a_tunnel_takes_a_third_of_the_fleet_and_gives_it_back() -> None:
    made = scenario("tunnel", USERS, SECONDS)
    gone = [made.actions(number) for number in range(USERS) if made.actions(number)]
    assert len(gone) in range(30, 39)
    assert all([(a.at_s, a.does) for a in actions] == [(60.0, "offline"), (120.0, "online")] for actions in gone)


def test_a_rollout_reaches_every_vehicle_once_one_after_another() -> None:
    made = scenario("release-rollout", USERS, SECONDS)
    actions = [made.actions(number) for number in range(USERS)]
    assert all([action.does for action in each] == ["update"] for each in actions)
    times = sorted(each[0].at_s for each in actions)
    assert times[0] >= 40.0
    assert times[-1] <= 160.0
    assert len(set(times)) == USERS


def test_an_attack_wave_has_attackers_in_its_mix() -> None:
    made = scenario("attack-wave", USERS, SECONDS)
    assert made.mix["attacker"] > 0
    assert [(action.at_s, action.does) for action in made.actions(0)] == [(60.0, "attack"), (140.0, "rest")]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[0.0, 1.0], [1.0, 1.0]]", "[[0.0, 1.0], [0.9, 1.0]]", "0 to 1"),
        ("[[0.0, 1.0], [1.0, 1.0]]", "[[0.0, 1.0], [1.0, 2.0]]", "shape"),
        ('does = "offline"', 'does = "vanish"', "vanish"),
        ("until = 0.6", "until = 0.2", "before it begins"),
        ("events = 5", "event = 5", "event"),
        ("mqtt = 80", "mqqt = 80", "mqqt"),
        ("[traffic]", "[traffic", "line 4"),
    ],
)
def test_a_file_that_is_no_scenario_is_refused_with_a_reason(old: str, new: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "scenarios.toml"
    content = FILE.read_text()
    assert old in content
    file.write_text(content.replace(old, new))
    with pytest.raises(ScenarioError, match=r"scenarios\.toml") as refused:
        scenario("tunnel", USERS, SECONDS, file)
    assert said in str(refused.value)


def test_a_shape_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(ScenarioError, match="rush-hour"):
        scenario("rush", USERS, SECONDS)


@pytest.mark.parametrize(
    ("shape", "users", "minutes", "said"),
    [
        ("tunnel", 100, 60, "keeps"),
        ("spike", 5_000, 3, "connections_per_second"),
        ("soak", 5_000, 1, "connections_per_second"),
    ],
)
def test_what_would_fail_on_any_gate_is_refused(shape: str, users: int, minutes: float, said: str) -> None:
    """More than a vehicle keeps, or more users than come while they are wanted; a little less is taken."""
    with pytest.raises(ScenarioError, match=said):
        scenario(shape, users, minutes * 60)
    scenario("tunnel", 100, 50 * 60)
    scenario("spike", 1_000, 180)
    scenario("soak", 5_000, 110)
