"""A process of its own, as a process can own one embedded ClickHouse only: `power_cut.py DIRECTORY TABLE DAMAGE`.

Loads a segment, is killed behind the insert of the second into TABLE, and does to the end of each deduplication log
what a power cut may do, as ClickHouse never syncs them. Then it starts again, and prints what stands there as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.integration.load.conftest import Bench
from tests.integration.load.test_exactly_once import fill, killed_at, state

from fleetgate.catalogue import catalogue
from fleetgate.load.embedded import EmbeddedClickHouse
from fleetgate.load.migrations import migrate


def opened(directory: Path) -> EmbeddedClickHouse:
    clickhouse = EmbeddedClickHouse(directory / "clickhouse", "fleetgate")
    migrate(clickhouse, catalogue(), 7)
    return clickhouse


def main(directory: Path, table: str, damage: str) -> None:
    clickhouse = opened(directory)
    bench = Bench(directory, "power", clickhouse)
    fill(bench, "first")
    bench.load_all()
    synced = {log: log.stat().st_size for log in (directory / "clickhouse").rglob("deduplication_log_*.txt")}
    fill(bench, "second")
    killed_at(bench, table, "after")
    clickhouse.close()
    for log in (directory / "clickhouse").rglob("deduplication_log_*.txt"):
        data, kept = log.read_bytes(), synced.get(log, 0)
        lost = data[kept:]
        left = {"gone": b"", "zeros": bytes(len(lost)), "half": lost[: len(lost) // 3]}[damage]
        log.write_bytes(data[:kept] + left)
    bench.clickhouse = clickhouse = opened(directory)
    bench.restart()
    bench.load_all()
    found = state(bench, "second")
    fleet = clickhouse.rows("SELECT sum(events), sum(readings), uniqMerge(vehicles) FROM fleet_minute")
    print(json.dumps({**found, "fleet": fleet}))
    clickhouse.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
