"""deploy/clickhouse gives load's user what its statements take, and nothing else.

The embedded ClickHouse has no users. What it has is a log in which each statement stands with the privileges that were
looked up for it; a server decides by the same. It runs as a process of its own, in the place of a server.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.deployed import DEPLOY
from tests.gate import until
from tests.integration.load.audit import Audit
from tests.integration.load.conftest import Bench
from tests.integration.load.test_exactly_once import fill, killed_at
from tests.integration.load.test_release import decide, finish, hold
from tests.segments import RECEIVED_AT, pack

from fleetgate.catalogue import catalogue
from fleetgate.clock import SystemClock
from fleetgate.load.alerts import Alert, Alerts
from fleetgate.load.clickhouse import ServerClickHouse
from fleetgate.load.counts import Counts
from fleetgate.load.migrations import migrate, require

USERS = ET.parse(DEPLOY / "clickhouse" / "users.d" / "fleetgate.xml").getroot().find("users")
SERVER = """
import sys
from pathlib import Path
from fleetgate.load import embedded
embedded.CONFIGURATION = Path(sys.argv[3])
from tests.faults.server import main
main(Path(sys.argv[1]), sys.argv[2])
"""
_GRANT = re.compile(r"GRANT ([A-Z, ]+) ON ([\w.*]+)")
_COLUMNS = re.compile(r"\([^)]*\)")
ONCE_AN_HOUR = {("INSERT", "fleetgate.usual"), ("SELECT", "fleetgate.usual")}
"""The watch keeps what is usual when an hour is full: more time than a test has."""
NEW_NAME = pack(["1", "c", [[0, "sample", {"Vehicle.Acme.NewThing": 1.0}, {}]]])
ALERT = Alert(key="silent acme", kind="silent", tenant="acme", opened_at_ms=RECEIVED_AT)
OF_EVERYBODY = {"SHOW TABLES", "SHOW DATABASES", "SHOW COLUMNS"}
"""Come with any privilege on what is shown, and show nothing else."""
READ_BY_EVERYBODY = {"system.one", "system.settings"}
"""No server asks for a grant: a constant, and the settings of the one who asks."""


def granted(user: str) -> set[tuple[str, str]]:
    """(privilege, on what) of a user of the file."""
    assert USERS is not None
    texts = [query.text or "" for query in USERS.iterfind(f"{user}/grants/query")]
    found = [match for text in texts if (match := _GRANT.fullmatch(text))]
    assert texts
    assert len(found) == len(texts), f"a grant that this test cannot read: {texts}"
    return {(each.strip(), match[2]) for match in found for each in match[1].split(",")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerClickHouse]:
    """With the tables; its log begins behind them, with the client's first connection."""
    directory = tmp_path_factory.mktemp("server")
    (directory / "password").write_text("writer")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    arguments = [sys.executable, "-c", SERVER, str(directory), listen, str(Path(__file__).with_name("query_log.xml"))]
    process = subprocess.Popen(arguments, cwd=Path(__file__).parents[3])
    owner, client = (ServerClickHouse(f"http://{listen}", "fleetgate", "default", "writer") for _ in range(2))

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(listen.rpartition(":")[2]))) == 0

    try:
        until(listens, "the server listens", 30)
        migrate(owner, catalogue(), 7)
        owner.command("SYSTEM FLUSH LOGS")
        owner.command("TRUNCATE TABLE system.query_log")
        yield client
    finally:
        for each in (owner, client):
            each.close()
        process.terminate()
        process.wait(20)


def taken(server: ServerClickHouse) -> set[tuple[str, str]]:
    """(privilege, on what) of every statement since, without the columns."""
    server.command("SYSTEM FLUSH LOGS")
    rows = server.rows(
        "SELECT DISTINCT arrayJoin(used_privileges) FROM system.query_log WHERE type = 'QueryFinish' "
        "AND query_kind IN ('Select', 'Insert', 'Alter', 'Create', 'Drop', 'Optimize', 'Delete', 'Truncate') "
        "AND NOT has(tables, 'system.query_log')"
    )
    found = set[tuple[str, str]]()
    for [text] in rows:
        privileges, _, where = _COLUMNS.sub("", text).partition(" ON ")
        found |= {(privilege.strip(), where) for privilege in privileges.split(",")}
    return {
        (privilege, where)
        for privilege, where in found
        if privilege not in OF_EVERYBODY and where not in READ_BY_EVERYBODY
    }


def test_the_grants_of_load_are_what_its_statements_take(
    server: ServerClickHouse, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A start, segments, one again after a kill, a release, a head, an alert: no privilege is lacking or spare."""
    bench = Bench(tmp_path, request.node.nodeid, server)
    audit = Audit(bench, tmp_path)
    require(server)
    fill(bench, "first")
    bench.spool.message(NEW_NAME)
    bench.spool.seal()
    killed_at(bench, "raw_messages", "after")
    hold(bench, "held")
    finish(bench)
    decide(bench, "held")
    finish(bench)
    audit.sign()
    alerts = Alerts(server, Counts(CollectorRegistry()), SystemClock())
    alerts.open(ALERT)
    alerts.close(ALERT.key, ALERT.opened_at_ms + 1)
    assert taken(server) | ONCE_AN_HOUR == granted("fleetgate_load")


def test_nobody_but_the_owner_may_take_a_row_away() -> None:
    """Load inserts and selects, named tables only; the reader selects; there is no user without a password."""
    assert {privilege for privilege, _ in granted("fleetgate_load")} == {"INSERT", "SELECT"}
    assert not any(where.endswith("*") for _, where in granted("fleetgate_load"))
    assert granted("fleetgate_reader") == {("SELECT", "fleetgate.*")}
    assert USERS is not None
    default, *users = USERS
    assert (default.tag, default.get("remove")) == ("default", "remove")
    for user in users:
        assert [each.tag for each in user if each.tag.startswith("password")] == ["password_sha256_hex"]
        assert user.find("access_management") is None
