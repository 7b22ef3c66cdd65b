"""What a person asks of an embedded ClickHouse that is stopped: as over HTTP, and nothing is made or changed by asking.

As processes: chdb has one directory in the life of one.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.gate import Installation, fleetgate


@pytest.fixture(scope="module")
def gate(authority: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With tables in which nothing stands but what `db migrate` puts there."""
    home = authority.copy(tmp_path_factory.mktemp("offline") / "gate")
    home.configure()
    home.command("db", "migrate", "--offline")
    return home.directory


def asked(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return fleetgate(directory, *arguments, "--offline")


STATEMENTS = {
    "ALTER TABLE migrations DELETE WHERE 1": "a reader's statement starts with SELECT",
    "DROP TABLE migrations": "a reader's statement starts with SELECT",
    "SYSTEM FLUSH LOGS": "a reader's statement starts with SELECT",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')": "file is not open to readers",
}


def test_what_is_no_question_is_refused(gate: Path) -> None:
    """In the words and with the exit code of HTTP; nothing of it is done."""
    for sql, why in STATEMENTS.items():
        done = asked(gate, "db", "query", sql)
        assert (done.returncode, why in done.stderr) == (1, True), done
    assert asked(gate, "db", "query", "SELECT count() > 0 FROM migrations", "--format", "TSV").stdout == "1\n"


def test_verify_segments_without_a_segment_is_no_success(gate: Path) -> None:
    """Tables and nothing in them: nothing was verified, and that is said."""
    done = asked(gate, "verify", "segments")
    assert (done.returncode, "nothing was verified" in done.stderr) == (3, True), done


@pytest.mark.parametrize("arguments", ["heads export", "gaps --vehicle x"])
def test_asking_where_there_are_no_tables_makes_none(authority: Installation, tmp_path: Path, arguments: str) -> None:
    """3 and what to do, and no directory of ClickHouse's afterwards."""
    home = authority.copy(tmp_path / "gate")
    home.configure()
    done = asked(home.directory, *arguments.split(" "))
    assert (done.returncode, "fleetgate db migrate --offline" in done.stderr) == (3, True), done
    assert not (home.directory / "clickhouse").exists()
