"""The users of the load test against an edge that runs, in locust's own process: one short run with everybody in it.

The scenario is the test's own, small and quick; the edge is stopped for a while in the middle of it (SIGSTOP), as a
gate whose disk hangs is. A slow machine gets a slower run: all its times grow with what the edge took to start.
"""

from __future__ import annotations

import csv
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from loadtest.bench.processes import Process, until
from loadtest.hostile import KINDS
from loadtest.messages import Messages
from loadtest.target import Devices, Target

ROOT = Path(__file__).resolve().parents[3]
USERS = 24
EDGE_STARTS_S = 1.5  # on a quiet machine; the times below are for that
SECONDS, BETWEEN_S, STALL_S = 12.0, 0.25, 1.5
SCENARIO = """
[traffic]
seconds_between = BETWEEN
events = 2
batch = 4
rows = 20
connections_per_second = 100

[mix]
mqtt = 10
https_single = 2
https_batch = 2
https_columns = 2
attacker = 8

[shape.everything]
says = "All that can happen to a vehicle, within seconds."
load = [[0.0, 1.0], [1.0, 1.0]]
moments = [
    { does = "attack", from = 0.0, until = 1.0 },
    { does = "reconnect", from = 0.2 },
    { does = "offline", from = 0.3, until = 0.4, share = 0.34 },
    { does = "update", from = 0.45, until = 0.45, share = 0.34, software = "2026.48.0" },
]
"""


class Ran(NamedTuple):
    """What is left of the run, and when the edge stood still (Unix seconds)."""

    directory: Path
    messages: Messages
    stalled_s: float
    resumed_s: float


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    home, run = tmp_path_factory.mktemp("gate"), tmp_path_factory.mktemp("run")
    scenario = home / "scenario.toml"
    with Target.own(home, Devices(USERS, USERS)) as gate:
        began_s = time.monotonic()
        edge = gate.start_one("edge", gate.listeners["edge"], home)
        slow = max(1.0, (time.monotonic() - began_s) / EDGE_STARTS_S)
        scenario.write_text(SCENARIO.replace("BETWEEN", str(BETWEEN_S * slow)))
        command = [
            *(sys.executable, "-m", "locust", "--config", "loadtest/locust.conf", "--headless", *gate.options()),
            *("--scenario", str(scenario), "--shape", "everything", "--users", str(USERS)),
            *("--minutes", str(SECONDS * slow / 60), "--run-directory", str(run), "--csv", str(run / "requests")),
        ]
        locust = Process(command, run / "locust.log", ROOT)
        gate.processes["locust"] = locust
        journal = run / "acks-0.bin"
        until(lambda: journal.exists() and journal.stat().st_size > 0, "messages are answered", 120, locust)
        time.sleep(SECONDS * slow / 2)
        os.kill(edge.pid, signal.SIGSTOP)
        until(lambda: stopped(edge.pid), "the edge stands still", 20, edge)
        stalled_s = time.time()
        time.sleep(STALL_S * slow)
        resumed_s = time.time()
        os.kill(edge.pid, signal.SIGCONT)
        assert locust.wait() == 0, locust.last_words()
    return Ran(run, Messages(run), stalled_s, resumed_s)


def test_every_kind_has_its_line_and_no_vehicle_has_one(ran: Ran) -> None:
    """Names in the statistics are kinds: their number does not grow with the fleet."""
    with (ran.directory / "requests_stats.csv").open() as file:
        names = {(row["Type"], row["Name"]) for row in csv.DictReader(file)} - {("", "Aggregated")}
    lost = {("MQTT", "disconnect"), ("HTTPS", "disconnect")}  # where the stall outlasts a vehicle's patience
    assert {name for name in names - lost if name[0] != "ATTACK"} == {
        *(("MQTT", name) for name in ("connect", "telemetry", "backlog")),
        *(("HTTPS", name) for name in ("epoch", "connect", "single", "batch", "columns", "backlog")),
    }
    assert {name for kind, name in names if kind == "ATTACK"} <= {kind.name for kind in KINDS}


def test_nothing_honest_is_refused_and_everything_is_answered(ran: Ran) -> None:
    """Over lost connections, a gate that stood still, and restarts."""
    assert ran.messages.incomplete == []
    assert set(ran.messages.answers(honest=True)) <= {"accepted", "duplicate", "later", "rate_limited"}


def test_what_is_hostile_is_answered_as_such(ran: Ran) -> None:
    """No attack fails, which it would if it were accepted; several kinds were tried."""
    with (ran.directory / "requests_failures.csv").open() as file:
        assert [row for row in csv.DictReader(file) if row["Method"] == "ATTACK"] == []
    caught = set(ran.messages.answers(honest=False)) & {label for kind in KINDS for label in kind.caught}
    assert len(caught - {"accepted"}) > 1


def test_a_gate_that_stands_still_is_charged_for_every_message_of_that_time(ran: Ran) -> None:
    """The schedule is open: messages are due while nobody answers, several for one vehicle, and each response time
    reaches to the end of the stall. Users that wait for an answer before the next message would have one each."""
    found = ran.messages.acknowledged
    during = found[(found["due_s"] > ran.stalled_s) & (found["due_s"] < ran.resumed_s)]
    assert during["answered_s"].min() >= ran.resumed_s
    assert max(Counter(during["device"].tolist()).values()) >= 3


def test_a_vehicle_with_new_software_goes_on_in_a_new_epoch(ran: Ran) -> None:
    """Its restart costs no message: the numbers of its former epoch are all acknowledged."""
    mqtt = ran.messages.kinds()["mqtt-telemetry"]
    epochs = {device: set(mqtt["epoch"][mqtt["device"] == device].tolist()) for device in set(mqtt["device"].tolist())}
    assert {len(found) for found in epochs.values()} == {1, 2}
