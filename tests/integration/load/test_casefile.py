"""The exact counts of a case, from the rows that the spool became."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
from tests.integration.load.conftest import DATABASE, READER
from tests.segments import RECEIVED_AT, peer, rows_body, sample
from tests.spools import rejection

from fleetgate.config import ClickHouse, Config
from fleetgate.load.casefile import told_of
from fleetgate.load.owner import Owner
from fleetgate.load.running import devices_by_software

HOUR_MS = 3_600_000
RELEASE = "2026.44.1"


def config_of(owner: Owner, directory: Path) -> Config:
    token = directory / "clickhouse.token"
    token.write_text(READER)
    token.chmod(0o600)
    settings = ClickHouse(listen=owner.url.removeprefix("http://"), database=DATABASE)
    return msgspec.structs.replace(Config(), clickhouse=settings, home=str(directory))


def test_the_counts_of_a_case_are_those_of_its_time_and_device(bench: Any, owner: Owner, tmp_path: Path) -> None:
    """By reason, over segments; what came before or after, or from its neighbour, is in no case of it."""
    who, neighbour = peer(bench.vehicle("case")), peer(bench.vehicle("neighbour"))
    at = RECEIVED_AT

    def refuse(sender: Any, reason: str, count: int, at_ms: int) -> None:
        bench.spool.writer.rejection(bench.spool.sender(sender), rejection(reason, count, at_ms, at_ms, []))

    refuse(who, "bad_mac", 7, at - HOUR_MS)
    refuse(who, "bad_mac", 1000, at)
    refuse(who, "malformed_body", 3, at)
    refuse(neighbour, "bad_mac", 50, at)
    bench.spool.seal()
    refuse(who, "bad_mac", 234, at + 5)
    refuse(who, "bad_mac", 9, at + HOUR_MS)
    body = rows_body(sample(-1, s1=88.25), sample(0, s1=89.0), software=RELEASE)
    for outcome in (1, 1, 2):
        bench.spool.message(body, sender=who, outcome=outcome, received_at=at)
    bench.spool.message(rows_body(sample(0, s1=1.0), software="other"), sender=neighbour, received_at=at)
    bench.spool.seal()
    bench.load_all()
    told = told_of(config_of(owner, tmp_path), "acme", who.device_id, at - HOUR_MS // 2, at + HOUR_MS // 2)
    assert [(one.reason, one.refused, one.first_at_ms, one.last_at_ms) for one in told.refusals] == [
        ("bad_mac", 1234, at, at + 5),
        ("malformed_body", 3, at, at),
    ]
    assert (told.refusals[0].addresses, told.refusals[0].from_addresses) == ([who.address], 1)
    assert sorted((one.software, one.outcome, one.messages) for one in told.sent) == [
        (RELEASE, "accepted", 2),
        (RELEASE, "held", 1),
    ]


def test_of_a_device_that_did_nothing_there_is_nothing(bench: Any, owner: Owner, tmp_path: Path) -> None:
    """Two empty lists, no error."""
    told = told_of(config_of(owner, tmp_path), "acme", bench.vehicle("nobody"), 0, RECEIVED_AT)
    assert (told.refusals, told.sent) == ([], [])


def test_who_runs_a_version_is_told_by_what_came_in_the_last_day(bench: Any, owner: Owner, tmp_path: Path) -> None:
    """Whoever holds a version learns how many devices that is; of what came earlier, none."""
    now, version = int(time.time() * 1000), bench.vehicle("2026.45.0")
    body = rows_body(sample(0, s1=88.25), software=version)
    for name, at in (("a", now), ("b", now), ("b", now - 1000), ("c", now - 25 * HOUR_MS)):
        bench.spool.message(body, sender=peer(bench.vehicle(name)), received_at=at)
    bench.spool.seal()
    bench.load_all()
    found = devices_by_software(config_of(owner, tmp_path), "acme")
    assert (found[version], found.get("2026.45.0-mistyped")) == (2, None)


def test_where_it_came_from_is_counted_exactly_and_without_ports(bench: Any, owner: Owner, tmp_path: Path) -> None:
    """Each reconnect has a port of its own; of seventeen hosts eight are named, and that there are more."""
    who = peer(bench.vehicle("nomad"))
    hosts = [f"192.0.2.{number}" for number in range(16)] + ["2001:db8::7"]
    for host in hosts:
        for port in (40000, 40001):
            sender = bench.spool.sender(msgspec.structs.replace(who, address=f"{host}:{port}"))
            bench.spool.writer.rejection(sender, rejection("bad_mac", 1, RECEIVED_AT, RECEIVED_AT, []))
    bench.spool.seal()
    bench.load_all()
    [told] = told_of(config_of(owner, tmp_path), "acme", who.device_id, RECEIVED_AT, RECEIVED_AT).refusals
    assert (told.refused, told.from_addresses, len(told.addresses)) == (34, 17, 8)
    assert set(told.addresses) < set(hosts)
