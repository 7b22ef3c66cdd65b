"""What values say about single devices, in segments as an edge writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.segments import RECEIVED_AT, SpoolOnDisk, peer, rows_body, sample

from fleetgate.accept.standing import Standing
from fleetgate.catalogue import catalogue
from fleetgate.config import Policy
from fleetgate.control.records import DeviceState
from fleetgate.control.states import View
from fleetgate.control.suspicions import Suspicion
from fleetgate.errors import ControlAway
from fleetgate.load.columns import segment_rows
from fleetgate.load.suspects import EVERY_MS, Suspects
from fleetgate.load.travel import LATITUDE, LONGITUDE, jumps, metres
from fleetgate.load.unknown import UnknownNames

MUNICH, HAMBURG = {"s7": 48.14, "s8": 11.58}, {"s7": 53.55, "s8": 9.99}


class Bench:
    """A spool, what load suspects by its segments, and a control that may be away."""

    def __init__(self, directory: Path) -> None:
        self.spool = SpoolOnDisk(directory)
        self.told: list[tuple[int, Suspicion]] = []
        self.away = False
        self.decided: dict[tuple[str, str], int] = {}
        self.suspects = Suspects(self.note, self.decided_since, Policy().signals)

    def note(self, _spool: str, segment: int, found: Sequence[Suspicion]) -> None:
        if self.away:
            raise ControlAway("control does not answer")
        self.told += [(segment, one) for one in found]

    def decided_since(self, at_ms: int) -> dict[tuple[str, str], int]:
        if self.away:
            raise ControlAway("control does not answer")
        return {device: decided_ms for device, decided_ms in self.decided.items() if decided_ms >= at_ms}

    def look(self) -> list[tuple[str, str]]:
        """(device, signal) of what the next segment shows."""
        before = len(self.told)
        segment = self.spool.segment()
        self.suspects.look(segment, segment_rows(segment, catalogue(), UnknownNames({})))
        return [(one.device_id, one.signal) for _, one in self.told[before:]]

    def drive(self, vehicle: str, at_ms: int, position: dict[str, float]) -> None:
        self.spool.message(rows_body(sample(at_ms, **position)), sender=peer(vehicle))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_device_that_is_in_two_cities_within_minutes_is_suspicious(bench: Bench) -> None:
    """Munich and Hamburg are 600 km apart: within a segment or across two of them, for whoever was in both."""
    bench.drive("one", -600_000, MUNICH)
    bench.drive("two", -600_000, MUNICH)
    bench.drive("three", -600_000, HAMBURG)
    assert bench.look() == []
    bench.drive("one", 0, HAMBURG)
    bench.drive("two", 0, MUNICH | {"s7": 48.2})
    bench.drive("three", 0, HAMBURG)
    assert bench.look() == [("one-tcu", "impossible_travel")]
    [(segment, found)] = bench.told
    assert (segment, found.tenant, found.edge_id, found.count, found.at_ms) == (2, "acme", "edge-1", 1, RECEIVED_AT)
    assert found.detail["seconds"] == 600.0
    assert 590 < found.detail["kilometres"] < 630


def test_an_episode_is_told_once_in_ten_seconds(bench: Bench) -> None:
    """A clone that sends beside its original for a minute is a few rows in control, not thousands."""
    for turn in range(12):
        for position in (MUNICH, HAMBURG):
            body = rows_body(sample(0, **position), software=f"{position['s7']}")
            bench.spool.message(body, received_at=RECEIVED_AT + turn * EVERY_MS // 4)
        bench.look()
    assert len(bench.told) == 3


def test_what_was_told_and_is_as_much_as_its_signal_can_make_is_not_told_again(bench: Bench) -> None:
    """Of a car whose receiver jumps all day control has a few rows an hour; the edge's score stays near its most."""
    signal = Policy().signals["impossible_travel"]
    hours = 6
    for turn in range(hours * 60):
        for position in (MUNICH, HAMBURG):
            body = rows_body(sample(0, **position), software=f"{position['s7']}")
            bench.spool.message(body, received_at=RECEIVED_AT + turn * 60_000)
        bench.look()
    standing = Standing(DeviceState.TRUSTED, 0)
    for _, told in bench.told:
        standing.add(told.signal, told.count, told.at_ms, Policy().signals)
    now_ms = RECEIVED_AT + hours * 3_600_000
    assert len(bench.told) <= 3 + hours * 3600 / (signal.half_life_seconds / 10)
    assert standing.score(now_ms, Policy()) > 0.93 * signal.at_most


def test_who_goes_on_after_a_person_forgave_it_is_watched_again_within_a_minute(bench: Bench) -> None:
    """The edge begins at nothing then, so what was told before is not what its score has. Of what came in before the
    decision, and is loaded behind it, nothing is told."""
    standing, policy, told = Standing(DeviceState.TRUSTED, 0), Policy(), 0
    wrong = [sample(-i * 1000, s1=9999.0, s13=200.0) for i in range(6)]

    def lie(second: int) -> bool:
        nonlocal told
        at_ms = RECEIVED_AT + second * 1000
        bench.spool.message(rows_body(*wrong), received_at=at_ms)
        bench.look()
        for _, one in bench.told[told:]:
            standing.add(one.signal, one.count, one.at_ms, policy.signals)
        told = len(bench.told)
        return standing.score(at_ms, policy) >= policy.watched_score

    assert [lie(second) for second in range(0, 1800, 10)][-1]
    decided_ms = RECEIVED_AT + 1_835_000
    bench.decided = {("acme", "veh-0001-tcu"): decided_ms}
    standing.adopt(View(DeviceState.RELEASED, decided_ms, decided_ms))
    before = len(bench.told)
    assert not any(lie(second) for second in range(1800, 1840, 10))
    assert len(bench.told) == before
    assert [lie(second) for second in range(1840, 1910, 10)][-1]


def test_many_implausible_readings_are_suspicious_and_a_few_are_not(bench: Bench) -> None:
    """A fifth of a device's readings, and ten of them."""
    wrong, fine = {"s1": 9999.0, "s13": 200.0}, {"s1": 0.0, "s13": 50.0}
    for vehicle, events in {"liar": [wrong] * 6, "unlucky": [wrong, *[fine] * 9], "short": [wrong]}.items():
        bench.spool.message(
            rows_body(*(sample(-i * 1000, **event) for i, event in enumerate(events))), sender=peer(vehicle)
        )
    assert bench.look() == [("liar-tcu", "implausible_data")]
    assert bench.told[0][1].detail == {"implausible": 12, "readings": 12}


def test_control_that_is_away_is_told_later(bench: Bench) -> None:
    """Nothing is lost for it, and no segment waits for it."""
    bench.away = True
    for at_ms, position in ((-1000, MUNICH), (0, HAMBURG)):
        bench.drive("one", at_ms, position)
        assert bench.look() == []
    bench.away = False
    bench.drive("two", 0, MUNICH)
    assert bench.look() == [("one-tcu", "impossible_travel")]


@pytest.mark.parametrize(
    ("north_m", "seconds", "far"),
    [(900, 0, False), (1_100, 0, True), (6_900, 60, False), (7_100, 60, True), (7_100, -60, True), (0, 0, False)],
)
def test_how_far_is_too_far(north_m: float, seconds: float, far: bool) -> None:
    """A kilometre, and a hundred metres for each second, whichever way the clock goes."""
    there = 48.0 + north_m / 111_195
    one, two = (np.array([value]) for value in (48.0, there))
    same, now, then = (np.array([float(value)]) for value in (11.0, 0.0, seconds * 1000))
    assert bool(jumps(one, same, now, two, same, then)[0]) is far


def test_metres_are_those_of_a_great_circle() -> None:
    """Across the date line, over a pole, and to where nothing is known."""
    degree = 111_195.0
    a = np.array([[0.0, 179.5], [89.5, 0.0], [np.nan, 0.0]]).T
    b = np.array([[0.0, -179.5], [89.5, 180.0], [0.0, 0.0]]).T
    assert metres(a[0], a[1], b[0], b[1]).tolist() == pytest.approx([degree, degree, np.nan], rel=1e-3, nan_ok=True)


def test_the_signals_of_a_position_are_those_of_the_catalogue() -> None:
    """Their numbers stand in the code once, as SQL needs them."""
    paths = catalogue().paths
    assert [paths[number].split(".")[-1] for number in (LATITUDE, LONGITUDE)] == ["Latitude", "Longitude"]
