"""What a reader's statement may contain, tried at the doors that an embedded ClickHouse leaves open."""

from __future__ import annotations

import pytest

from fleetgate.load.statement import Insert, NotAllowed, check_reading, split_insert

ALLOWED = [
    "SELECT 1",
    "  -- what was slow?\n SELECT count() FROM events;\n",
    "WITH 1 AS x SELECT x",
    "(SELECT 1) UNION ALL (SELECT 2)",
    '/* day */ SELECT toDate(received_at) AS `day`, "unit" FROM readings WHERE value != -1.5e3 AND {a:UInt8} = 1',
    "SELECT 'into outfile file(' || 'it''s \\' ; drop'",
    "SHOW TABLES",
    "DESCRIBE TABLE events",
    "EXPLAIN SELECT 1",
    "SELECT signal_values[1], x -> y FROM events FORMAT JSON",
]
REFUSED = [
    "SELECT file('/etc/passwd')",
    "SELECT `file`('/etc/passwd')",
    "SELECT \"file\"('/etc/passwd')",
    "SELECT `fi\\x6ce`('/etc/passwd')",
    "SELECT file/* */('/etc/passwd')",
    "SELECT arrayMap(file, ['/etc/passwd'])",
    "SELECT /* ' */ file('/etc/passwd') /* ' */",
    "SELECT '\\'', file('/etc/passwd') --'",
    "SELECT $a$ ' $a$, file('x'), $a$ ' $a$",
    "SELECT {name:Identifier}('/etc/passwd')",
    "SELECT * FROM eval('select 1')",
    "SELECT 1 INTO OUTFILE '/tmp/x'",
    "SELECT 1 into/**/outfile '/tmp/x'",
    "SELECT \u2018 ' \u2019, file('x') -- '",
    "SELECT aiGenerate('x')",
    "SELECT 1; DROP TABLE events",
    "KILL QUERY WHERE 1",
    "SET readonly = 0",
    "INSERT INTO events SELECT 1",
    "SYSTEM SHUTDOWN",
    "# SELECT\nSELECT 1",
    "SELECT 'unfinished",
    "SELECT '' -- \x00\nSELECT 1; KILL QUERY WHERE 1",
]


@pytest.mark.parametrize("sql", ALLOWED)
def test_ordinary_questions_pass(sql: str) -> None:
    """A reader may ask what reads, with comments, strings and quoted names."""
    check_reading(sql)


@pytest.mark.parametrize("sql", REFUSED)
def test_every_way_around_readonly_is_refused(sql: str) -> None:
    """Files, other people's queries and a second statement stay out of reach, however they are written."""
    with pytest.raises(NotAllowed):
        check_reading(sql)


def test_an_insert_is_taken_apart_at_its_format() -> None:
    """The data starts behind the line of FORMAT; a FORMAT in a string is part of the statement."""
    sql = b"INSERT INTO t (`a`) SETTINGS x = ' FORMAT no' FORMAT Native\n\x00\nFORMAT TSV"
    assert split_insert(sql) == Insert(
        "INSERT INTO t (`a`)", " SETTINGS x = ' FORMAT no'", "Native", b"\x00\nFORMAT TSV"
    )


@pytest.mark.parametrize("sql", [b"INSERT INTO t VALUES (1)", b"SELECT 1 FORMAT Native", b"INSERT INTO t SELECT 1"])
def test_other_statements_are_left_whole(sql: bytes) -> None:
    """Only an INSERT with data in a named format is taken apart."""
    assert split_insert(sql) is None
