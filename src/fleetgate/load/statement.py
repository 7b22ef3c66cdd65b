"""What may be asked of an embedded ClickHouse through its HTTP interface, told from the statement's text.

ClickHouse's own `readonly` refuses every change of data and settings. Three doors stay open in an embedded engine
that a server would close: `INTO OUTFILE` writes files of this machine, the function `file` reads them, and KILL ends
other people's queries. This file closes them by a lexer that refuses what it does not understand. A real server has
users and grants instead, and none of this is used.
"""

from __future__ import annotations

import re
from typing import NamedTuple

READING = frozenset({"select", "with", "show", "describe", "desc", "explain", "exists", "("})
"""First words of what a reader may ask."""

FORBIDDEN = frozenset(
    [
        "file",
        "outfile",
        "infile",
        "eval",
        "identifier",
        "clusterallreplicas",
        "cluster",
        "remote",
        "python",
        "filecluster",
        "urlcluster",
        "hudicluster",
    ]
)
"""Words that no reader's statement may have outside of string literals: `eval` and `{name:Identifier}` would hide the
others. No table or column of fleetgate has such a name."""

_AI = re.compile(r"(ai|AI)[A-Z]\w*")  # aiGenerate and its kin call out to the network

_TOKEN = re.compile(
    r"(?P<space>\s+|--[^\n]*|/\*.*?\*/)"
    r"|(?P<string>'(?:[^'\\]|\\.|'')*')"
    r"|(?P<quoted>`[^`\\]*`|\"[^\"\\]*\")"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>[0-9][A-Za-z0-9_]*)"
    r"|(?P<sign>[-+*/%=<>!|&^~?:,.()\[\]{}@])"
    r"|(?P<end>;\s*\Z)",
    re.DOTALL,
)
_NOT_QUOTED = rb"(?:[^'`\"]|'[^']*'|`[^`]*`|\"[^\"]*\")*?"
_INSERT = re.compile(
    rb"\s*(INSERT\s+INTO\b" + _NOT_QUOTED + rb")(\sSETTINGS\b" + _NOT_QUOTED + rb")?\sFORMAT\s+(\w+)[ \t\r]*\n?", re.I
)
_TRAILING_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*\Z", re.IGNORECASE)
_FIRST_WORD = re.compile(r"(?:\s+|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]+|\()", re.DOTALL)


class NotAllowed(Exception):
    """A reader may not ask this; the text says why."""


class Insert(NamedTuple):
    """`INSERT INTO … SETTINGS … FORMAT name` taken apart: up to the settings, these, the format, the data behind it."""

    target: str
    settings: str
    input_format: str
    data: bytes


def check_reading(sql: str) -> None:
    """Raises NotAllowed for what a reader may not ask, or what cannot be told apart from it."""
    first = True
    position = 0
    while position < len(sql):
        match = _TOKEN.match(sql, position)
        if match is None:
            raise NotAllowed(f"the character {sql[position]!r} at {position} cannot stand in a reader's statement")
        position = match.end()
        text = match.group()
        if match.lastgroup == "space":
            continue
        if first and text.lower() not in READING:
            raise NotAllowed(
                f"a reader's statement starts with SELECT, WITH, SHOW, DESCRIBE, EXPLAIN or EXISTS, not {text}"
            )
        first = False
        if match.lastgroup in ("word", "quoted"):
            _check_word(text.strip('`"'))


def _check_word(word: str) -> None:
    if word.lower() in FORBIDDEN or _AI.fullmatch(word):
        raise NotAllowed(f"{word} is not open to readers")


def split_insert(sql: bytes) -> Insert | None:
    """The parts of an INSERT that carries its data in a named format; None for every other statement."""
    match = _INSERT.match(sql)
    if match is None:
        return None
    target, settings, input_format = (part.decode() for part in match.groups(default=b""))
    return Insert(target, settings, input_format, sql[match.end() :])


def gives_rows(sql: str) -> bool:
    """Whether the statement answers with rows, even with none."""
    match = _FIRST_WORD.match(sql)
    return match is not None and match.group(1).lower() in READING | {"check"}


def trailing_format(sql: str) -> str | None:
    """The output format that the statement itself names."""
    match = _TRAILING_FORMAT.search(sql)
    return match.group(1) if match else None
