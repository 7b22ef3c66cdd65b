"""A real drive, recorded at 10 Hz, through agent, edge, spool, load and ClickHouse: value for value."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest

from fleetgate.config import Config
from fleetgate.demo.figures import is_ready
from fleetgate.demo.prepare import prepare

DRIVE = Path(__file__).parents[3] / "shared" / "data" / "dt-cargo-track-10.csv"
SPEED, HDOP = "Vehicle.Speed", "Vehicle.CurrentLocation.GNSSReceiver.HDOP"
KMH_PER_MS = 3.6
TIMES_REAL_TIME = 100


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Config]:
    """The whole gate by `fleetgate up`, with one vehicle enrolled."""
    config, config_file, _ = prepare(tmp_path / "gate", vehicles=1)
    command = [sys.executable, "-m", "fleetgate.cli.main", "--config", str(config_file), "up"]
    with (tmp_path / "up.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while not (is_ready(config.edge.admin_listen) and is_ready(config.load.admin_listen)):
                assert time.monotonic() < deadline, (tmp_path / "up.log").read_text()
                time.sleep(0.1)
            yield config
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=40)


@pytest.mark.skipif(not DRIVE.exists(), reason="the recorded drive is not on this machine (it is not in the project)")
def test_a_recorded_drive_comes_out_value_for_value(gate: Config, tmp_path: Path) -> None:
    """7,390 rows at 100 times real time; every reading has its value, its spacing in time and its provenance."""
    device = tmp_path / "gate" / "devices" / "car-0001-tcu"
    subprocess.run(
        [
            *(sys.executable, "-m", "fleetsim", "replay", str(DRIVE), "--device", str(device)),
            *("--state", str(tmp_path / "state"), "--mqtt", gate.edge.mqtt_listen, "--speed", str(TIMES_REAL_TIME)),
            *("--time", "epoch", "--map", f"speed={SPEED}:{KMH_PER_MS}", "--map", f"hdop={HDOP}"),
        ],
        check=True,
        timeout=120,
    )
    with DRIVE.open() as file:
        drive = list(csv.DictReader(file))
    readings = _readings(gate, 2 * len(drive))
    speeds = [row for row in readings if row["path"] == SPEED]
    hdops = [row for row in readings if row["path"] == HDOP]
    assert [row["value"] for row in speeds] == [float(row["speed"]) * KMH_PER_MS for row in drive]
    assert [row["value"] for row in hdops] == [float(row["hdop"]) for row in drive]
    assert {row["unit"] for row in speeds} == {"km/h"}
    first = speeds[0]["ms"] - round(float(drive[0]["epoch"]) * 1000)
    assert [row["ms"] - first for row in speeds] == [round(float(row["epoch"]) * 1000) for row in drive]
    assert {(row["tenant"], row["vehicle_id"], row["device_id"]) for row in readings} == {
        ("acme", "car-0001", "car-0001-tcu")
    }
    assert {len(row["certificate_fingerprint"]) for row in readings} == {64}
    assert {(row["epoch"], row["key_id"], row["transport"], row["edge_id"]) for row in readings} == {
        (1, 1, "mqtt", "edge-1")
    }


def _readings(gate: Config, wanted: int) -> list[dict[str, Any]]:
    """All readings, in the order of their time, read as an analyst would: over HTTP, once they are all there."""
    host, port = gate.clickhouse.listen.split(":")
    token = gate.path(gate.clickhouse.token_file).read_text().strip()
    client = clickhouse_connect.get_client(
        host=host, port=int(port), username="default", password=token, database=gate.clickhouse.database
    )
    try:
        deadline = time.monotonic() + 60
        while client.query("SELECT count() FROM readings").result_rows[0][0] < wanted:
            assert time.monotonic() < deadline, (
                urllib.request.urlopen(f"http://{gate.load.admin_listen}/metrics", timeout=5).read().decode()
            )
            time.sleep(0.2)
        answer = client.query(
            "SELECT *, toUnixTimestamp64Milli(event_time) AS ms FROM readings ORDER BY event_time, path"
        )
        return list(answer.named_results())
    finally:
        client.close()
