"""What the reader of deploy/clickhouse may set, as ClickHouse itself decides it: no limit can be lifted.

The embedded ClickHouse is given the file's profile for its only user, in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from tests.deployed import DEPLOY

FILE = ET.parse(DEPLOY / "clickhouse" / "users.d" / "fleetgate.xml").getroot()
ASK = """
import json, sys
import chdb
connection = chdb.connect(f":memory:?config-file={sys.argv[1]}")
answers = []
for setting in sys.argv[2:]:
    try:
        answers.append(str(connection.query(f"SELECT 'taken' SETTINGS {setting}")).strip().strip('"'))
    except Exception as error:
        answers.append(str(error).partition("Code: ")[2].partition(".")[0])
print(json.dumps(answers))
"""
REFUSED = "452"  # SETTING_CONSTRAINT_VIOLATION
MEMORY = "4000000000"
TRIED = {
    f"max_memory_usage = {MEMORY}": "taken",
    "max_memory_usage = 1000000": "taken",
    "max_memory_usage = 0": REFUSED,  # no limit
    "max_memory_usage = 4000000001": REFUSED,
    "max_memory_usage_for_user = 0": REFUSED,
    "max_memory_usage_for_user = 100000000000": REFUSED,
    "max_execution_time = 60": "taken",
    "max_execution_time = 0": REFUSED,
    "max_execution_time = 61": REFUSED,
    "max_concurrent_queries_for_user = 0": REFUSED,
    "readonly = 0": "164",  # READONLY
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory: Path = tmp_path_factory.mktemp("users")
    profiles = FILE.find("profiles")
    assert profiles is not None
    users = ET.fromstring(
        "<clickhouse><users><default><password/><networks><ip>::/0</ip></networks>"
        "<profile>fleetgate_reader</profile><quota>default</quota></default></users>"
        "<quotas><default/></quotas></clickhouse>"
    )
    users.append(profiles)
    ET.SubElement(profiles, "default")
    (directory / "users.xml").write_bytes(ET.tostring(users))
    config = f"<clickhouse><users_config>{directory / 'users.xml'}</users_config></clickhouse>"
    (directory / "config.xml").write_text(config)
    command = [sys.executable, "-c", ASK, str(directory / "config.xml"), *TRIED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(TRIED, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("setting", TRIED)
def test_the_reader_can_lower_a_limit_and_lift_none(answers: dict[str, str], setting: str) -> None:
    """Zero, which means none, too."""
    assert answers[setting] == TRIED[setting]


def test_the_limits_of_the_reader_leave_memory_for_load() -> None:
    """All queries of the user together have less than the server's container."""
    limit = FILE.findtext("profiles/fleetgate_reader/max_memory_usage_for_user")
    server = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["clickhouse"]["mem_limit"]
    assert limit is not None
    assert int(MEMORY) <= int(limit) <= int(server.removesuffix("g")) * 10**9 - 2 * 10**9
