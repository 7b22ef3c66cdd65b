"""docs/how-to/verify-the-audit.md: every command of the page, and what `verify audit` prints and ends with."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.unit.cli.test_how_to_pages import HOW_TO, Reader
from tests.unit.control.desk import Desk, Running

from fleetgate.clock import SystemClock
from fleetgate.configfile import load
from fleetgate.control.auditheads import sign_audit
from fleetgate.control.store import Store

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Shell


EXAMPLE_CHAIN = "9a3c41d07be2f6589a3c41d07be2f6589a3c41d07be2f6589a3c41d07be2f658"


def chain(shell: Shell) -> str:
    """The name that `audit restored` gave."""
    return shell.out.split("--restored ")[1].split()[0]


@contextmanager
def signer(shell: Shell) -> Iterator[None]:
    """The gate's signer runs, and has signed the end of its audit."""
    desk = Desk(shell.directory / "pki", shell.directory / "signer.log")
    running = Running(desk, shell.directory)
    with Store.open(load(None), SystemClock(), write=True) as store:
        sign_audit(store, running.client, lambda _: None)
    yield
    running.stop()
    desk.signlog.close()


@pytest.fixture
def signed(gate: Shell) -> Iterator[Shell]:
    with signer(gate):
        yield gate


def tamper(gate: Shell, *statements: str) -> None:
    with closing(sqlite3.connect(gate.directory / "control.db")) as db, db:
        for name in ("at_its_end", "not_changed", "not_deleted"):
            db.execute(f"DROP TRIGGER audit_{name}")
        for statement in statements:
            db.execute(statement)


def test_every_command_of_the_page_does_what_it_says(shell: Shell) -> None:
    """In its order, beside a gate."""
    reader = Reader(shell, "verify-the-audit")
    reader.instead[EXAMPLE_CHAIN] = lambda: chain(shell)
    with signer(shell):
        reader.follow()
    [newest] = shell.json("audit", "--last", "1")
    assert newest["action"] == "records_restored"


def test_the_page_shows_what_the_command_prints(signed: Shell) -> None:
    """The line of an altered row."""
    signed.must("device", "suspend", "--tenant", "acme", "--device", "car-tcu", "--reason", "in the workshop")
    tamper(signed, "UPDATE audit SET actor = 'mallory' WHERE place = 2")
    assert signed.run("verify", "audit") == 1
    line = next(line for line in signed.out.splitlines() if line.startswith("altered"))
    assert line.replace("place 2", "place 4") in (HOW_TO / "verify-the-audit.md").read_text()
    assert "findings: 1" in signed.err


def test_an_audit_that_is_intact_is_said_to_be_so(signed: Shell) -> None:
    """In words, as the page has them, and how far the signer vouches for it; not where there is a finding."""
    signed.must("verify", "audit")
    figures, words = signed.out.splitlines()
    page = (HOW_TO / "verify-the-audit.md").read_text()
    assert re.sub(r"\d+", "N", f"    {figures}\n    {words}\n") in re.sub(r"\d+", "N", page)
    signed.must("device", "suspend", "--tenant", "acme", "--device", "car-tcu", "--reason", "in the workshop")
    signed.must("verify", "audit")
    assert signed.out.splitlines()[-1] == words
    tamper(signed, "UPDATE audit SET actor = 'mallory' WHERE place = 2")
    assert signed.run("verify", "audit") == 1
    assert "intact" not in signed.out


def test_an_audit_that_nobody_signed_is_intact_as_it_was_written(gate: Shell) -> None:
    """Of a signature nothing is said."""
    gate.must("verify", "audit")
    assert gate.out.splitlines()[-1] == "the audit is intact: its rows are as they were written"


def test_rows_that_are_cut_off_are_found_by_a_copy_of_the_log_alone(signed: Shell) -> None:
    """The database has no head any more, and the machine no log."""
    signed.must("verify", "audit")
    (signed.directory / "signer.log").rename(signed.directory / "copy.log")
    tamper(signed, "DELETE FROM audit_heads", "DELETE FROM audit WHERE place = (SELECT max(place) FROM audit)")
    assert signed.run("verify", "audit", "--log", "copy.log", "--json") == 1
    assert "cut_off" in signed.out


def test_without_a_log_it_is_said_what_cannot_be_seen(signed: Shell) -> None:
    """Whoever cuts off rows in the database cuts off their heads, and takes the log away."""
    assert "database only" not in signed.must("verify", "audit")
    (signed.directory / "signer.log").rename(signed.directory / "copy.log")
    assert "heads were read from the database only" in signed.must("verify", "audit")
    assert "database only" not in signed.must("verify", "audit", "--log", "copy.log")


def test_a_log_that_was_cut_at_the_end_of_a_line_is_a_finding(signed: Shell) -> None:
    """The count beside the key says how many lines were signed; without it that is not known, which is said."""
    log = signed.directory / "signer.log"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    assert signed.run("verify", "audit") == 1
    assert "cut_off: the audit:" in signed.out
    (signed.directory / "pki" / "audit.signed").unlink()
    assert "is not known" in signed.must("verify", "audit")
