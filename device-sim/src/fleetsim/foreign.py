"""Decides how an SQLite file that somebody else may have made is opened, so that asking it cannot run on.

A file can hold anything under the name of a table: a view over an endless query, for one. So it is read only where its
schema is to the letter the one that its reader expects, and a statement that takes more steps than an honest file of
this size can need is ended. SQLite checks no types: what stands in the rows is the reader's to judge.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

# A row takes about ten steps, and more bytes than that; what is left is for the statements about the schema.
STEPS = 100_000
MOST_STEPS = 2**31 - 1  # all that SQLite can count to
# The longest row: a message has 64 KiB, certificates less.
MAX_ROW_BYTES = 1024 * 1024
_OBJECTS = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"


def open_foreign(file: Path, schema: str) -> sqlite3.Connection:
    """Opens a file to be read, if it has this schema and nothing else. Raises OSError, sqlite3.Error."""
    steps = min(STEPS + file.stat().st_size, MOST_STEPS)
    # A statement that is kept for another time would go on counting its steps.
    db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False, cached_statements=0)
    try:
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
        db.set_progress_handler(lambda: 1, steps)
        with closing(sqlite3.connect(":memory:")) as model:
            model.executescript(schema)
            expected = model.execute(_OBJECTS).fetchall()
        if db.execute(_OBJECTS).fetchmany(len(expected) + 1) != expected:
            raise sqlite3.DatabaseError("its tables are others than they should be")
    except sqlite3.Error:
        db.close()
        raise
    return db
