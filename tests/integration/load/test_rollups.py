"""What a recount adds to the rollups is what their views would have added."""

from __future__ import annotations

from typing import Any

from tests.segments import RECEIVED_AT, peer, rows_body, sample

from fleetgate.load.rollups import complete_rollups

DAY = RECEIVED_AT // 86_400_000
ROLLUPS = {
    "signal_minute": "SELECT signal_id, minute, sum(readings), sum(total), min(least), max(greatest), "
    "argMaxMerge(last), max(last_at) FROM signal_minute WHERE vehicle_id LIKE {v:String} GROUP BY ALL ORDER BY ALL",
    "fleet_minute": "SELECT software, config, minute, received_day, sum(events), sum(faults), sum(readings), "
    "sum(implausible), sum(unknown), sum(late), sum(out_of_order), uniqMerge(vehicles) FROM fleet_minute "
    "WHERE config LIKE {v:String} GROUP BY ALL ORDER BY ALL",
}


def rolled(bench: Any) -> dict[str, list[list[Any]]]:
    name = {"v": f"{bench.vehicle('')}%"}
    return {table: bench.clickhouse.rows(sql, name) for table, sql in ROLLUPS.items()}


def fill(bench: Any) -> None:
    """Two segments with minutes in common: faults, implausible and unknown readings, late and disordered messages."""
    config = bench.vehicle("config")
    for flags in (0, 3):
        for vehicle in ("a", "b"):
            sender = peer(bench.vehicle(vehicle))
            events = [sample(-90_000, s1=0.1, s2=2.0), sample(-1_000, s1=9999.0), sample(0, s1=0.3)]
            events += [[-2_000, "fault", {"made_up": 1.0, 1: 0.7}, {}]]
            bench.spool.message(rows_body(*events, config=config), sender=sender, flags=flags)
        bench.spool.seal()
    bench.load_all()


def test_a_recount_adds_what_a_view_left_out_and_nothing_else(bench: Any) -> None:
    """With rows of one rollup, or of both, gone they come back as they were; a second recount changes nothing."""
    fill(bench)
    before = rolled(bench)
    gone = {
        "signal_minute": f"vehicle_id = '{bench.vehicle('a')}' AND signal_id = 1",
        "fleet_minute": f"config = '{bench.vehicle('config')}'",
    }
    for table, rows in gone.items():
        bench.clickhouse.command(f"ALTER TABLE {table} DELETE WHERE {rows} SETTINGS mutations_sync = 2")
    assert all(rolled(bench)[table] != before[table] for table in ROLLUPS)
    for _ in range(2):
        complete_rollups(bench.clickhouse, bench.spool.identity.hex(), 2, DAY)
        assert rolled(bench) == before
