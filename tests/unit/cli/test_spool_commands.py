"""`fleetgate spool` and `fleetgate verify spool` as a person types them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.segments import RECEIVED_AT, SpoolOnDisk, pack, peer, rows_body, sample
from tests.spools import ALERT, SetClock, rejection
from typer.core import TyperGroup
from typer.main import get_command

from fleetgate.cli import proof as proof_module
from fleetgate.cli import spool as spool_module
from fleetgate.cli import verify as verify_module
from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.cursor import Cursor, write_cursor
from fleetgate.spool.home import Spool
from fleetgate.spool.requests import asked

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Shell

HOSTILE = "\x1b]0;owned\x07\u202e\x9b31m"


@pytest.fixture
def spool(shell: Shell) -> SpoolOnDisk:
    """One sealed segment with a record of every kind, of two devices; texts in it would move a terminal."""
    made = SpoolOnDisk(shell.directory / "spool")
    made.message(rows_body(sample(0, s1=88.25)), sender=peer("one"))
    made.message(pack([HOSTILE, "", [[0, "fault", {}, {44: HOSTILE}]]]), sender=peer("two"), outcome=2, flags=3)
    refused = rejection("bad_mac", 4, RECEIVED_AT, RECEIVED_AT, [(1, 2, 9)])
    made.writer.rejection(made.sender(peer("two")), refused)
    made.transition("one-tcu")
    made.writer.alert(msgspec.structs.replace(ALERT, cohort=f"software {HOSTILE}"))
    made.seal()
    Checkpoint(made.directory / "checkpoint.db").close()
    return made


def damage(spool: SpoolOnDisk) -> None:
    path = spool.directory / "segments" / f"{1:020d}.seg"
    data = bytearray(path.read_bytes())
    data[data.index(b"sample")] ^= 1
    path.write_bytes(data)


def park(spool: SpoolOnDisk, why: str) -> None:
    parked = spool.directory / "parked"
    parked.mkdir()
    name = f"{1:020d}"
    (parked / f"{name}.seg").write_bytes((spool.directory / "segments" / f"{name}.seg").read_bytes())
    reason = {"why": why, "error": "no such value", "code": 469, "parked_at_ms": 1}
    (parked / f"{name}.error.json").write_text(json.dumps(reason))


def test_every_option_is_in_the_reference() -> None:
    """Of each command, with its name; one that is hidden is another's second name."""
    reference = Path(__file__).parents[3] / "docs" / "reference"
    page = "".join((reference / name).read_text() for name in ("spool-commands.md", "proof-commands.md"))
    for app, prefix in ((spool_module.app, "spool"), (verify_module.app, "verify"), (proof_module.app, "heads")):
        group = get_command(app)
        assert isinstance(group, TyperGroup)
        for name, command in group.commands.items():
            if command.hidden:
                continue
            assert f"`fleetgate {prefix} {name}" in page
            options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
            assert [option for option in options - {"--help"} if f"`{option}`" not in page] == [], name


def test_ls_shows_each_segment_and_what_waits(shell: Shell, spool: SpoolOnDisk) -> None:
    """A row and a sentence for a person, all of it for a program."""
    text = shell.must("spool", "ls")
    assert "segments: 1 of" in text
    assert "not loaded: 1 of" in text
    listed = shell.json("spool", "ls")
    row = listed["segments"][0]
    assert [row[name] for name in ("segment", "state", "messages", "rejections", "transitions", "peers", "loaded")] == [
        1, "sealed", 2, 1, 1, 2, "no",
    ]  # fmt: skip
    assert listed["summary"]["unloaded"] == 1


def test_ls_shows_why_a_segment_is_parked(shell: Shell, spool: SpoolOnDisk) -> None:
    """With ClickHouse's number and words, and what to do."""
    park(spool, "refused")
    text = shell.must("spool", "ls")
    assert "refused (ClickHouse error 469): no such value" in text
    assert "fleetgate spool retry" in text


def test_cat_shows_the_fields_of_each_record(shell: Shell, spool: SpoolOnDisk) -> None:
    """Envelope fields beside what the edge knew; the peer's names; outcome and flags in words."""
    shown = shell.json("spool", "cat", "1")
    first, second = shown["messages"]
    assert (first["device_id"], first["outcome"], first["epoch"], first["seq"], first["enc"]) == (
        "one-tcu", "accepted", 3, 0, 1,
    )  # fmt: skip
    assert (second["outcome"], second["flags"], second["seq"]) == ("held", "out_of_order late", 1)
    assert [peer["device_id"] for peer in shown["peers"]] == ["one-tcu", "two-tcu"]
    assert (shown["rejections"][0]["reason"], shown["rejections"][0]["ranges"]) == ("bad_mac", "1:2-9")
    assert shown["transitions"][0]["after"] == "quarantined"
    assert (shown["alerts"][0]["kind"], shown["alerts"][0]["detail"]) == ("breaker", {"vehicles": 20})
    assert "body" not in first


def test_cat_shows_what_was_asked_for(shell: Shell, spool: SpoolOnDisk) -> None:
    """By kind, by device, at most so many, with bodies."""
    shown = shell.json("spool", "cat", "1", "--kind", "message", "--device", "one-tcu", "--bodies")
    assert set(shown) == {"segment", "state", "messages"}
    assert [message["body"][2][0][2] for message in shown["messages"]] == [{"1": 88.25}]
    assert len(shell.json("spool", "cat", "1", "--limit", "1")["messages"]) == 1


def test_a_kind_that_is_none_is_said_in_plain_words(shell: Shell, spool: SpoolOnDisk) -> None:
    """With those that there are."""
    assert shell.run("spool", "cat", "1", "--kind", "bogus") == 2
    assert "'bogus' is no kind of record: say peer, message, rejection, transition, alert" in " ".join(
        shell.err.split()
    )


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
def test_no_text_of_a_device_moves_the_terminal(shell: Shell, spool: SpoolOnDisk, form: tuple[str, ...]) -> None:
    """Escape sequences, C1 controls and direction marks in a body are spelled out, in JSON too."""
    text = shell.must("spool", "cat", "1", "--bodies", *form)
    assert "owned" in text
    assert all(line.isprintable() for line in text.split("\n"))
    if form:
        assert json.loads(text)["messages"][1]["body"][0] == HOSTILE


def test_a_segment_that_is_not_there_is_an_error(shell: Shell, spool: SpoolOnDisk) -> None:
    """Exit 3, and where to look."""
    assert (shell.run("spool", "cat", "9"), "spool ls" in shell.err) == (3, True)
    assert (shell.run("spool", "retry", "1"), "not parked" in shell.err) == (3, True)


@pytest.mark.parametrize("command", [("spool", "ls"), ("spool", "repair"), ("spool", "retry"), ("verify", "spool")])
def test_a_directory_without_a_spool_is_an_error(shell: Shell, command: tuple[str, ...]) -> None:
    """Not an empty list: the setting may be wrong."""
    assert (shell.run(*command), "is no spool" in shell.err) == (3, True)
    assert not (shell.directory / "spool").exists()


def test_verify_is_content_with_a_good_spool(shell: Shell, spool: SpoolOnDisk) -> None:
    """Exit 0 and how much it read."""
    told = shell.must("verify", "spool")
    assert told.endswith("segments: 1, good records: 7\nthe spool is intact: every record is as it was written\n")


def test_verify_repair_verify(shell: Shell, spool: SpoolOnDisk) -> None:
    """The damage is told and ends with 1; the repair says what it does; then it is good."""
    damage(spool)
    assert shell.run("verify", "spool") == 1
    assert "segment 1 (sealed) stops being good at byte" in shell.out
    assert "good records: 6, lost: 1" in shell.out
    assert shell.run("verify", "spool", "--json") == 1
    assert json.loads(shell.out)["findings"][0]["lost_records"] == 1
    assert "kept as parked/" in shell.must("spool", "repair", "--yes")
    assert "given up by an earlier repair" in shell.must("verify", "spool")
    assert "nothing to repair" in shell.must("spool", "repair", "--yes")


def test_verify_and_repair_of_a_loaded_segment(shell: Shell, spool: SpoolOnDisk) -> None:
    """Neither calls lost what ClickHouse has, nor sends to the other for what ends by itself."""
    [segment] = (spool.directory / "segments").glob("*.seg")
    write_cursor(spool.directory, Cursor(spool.identity.hex(), 1, hashlib.sha256(segment.read_bytes()).hexdigest()))
    damage(spool)
    told = shell.must("spool", "repair", "--yes")
    assert ("loaded already" in told, "lost:" in told) == (True, False)
    assert shell.run("verify", "spool") == 1
    assert "there is nothing to mend" in shell.out
    assert ("start the edge" in shell.err, "spool repair" in shell.err) == (True, False)
    assert "is loaded already, or" in shell.must("spool", "repair", "--yes")


def test_a_repair_asks_first(shell: Shell, spool: SpoolOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a yes nothing is changed."""
    damage(spool)
    for answer in ("N\n", "\n", ""):  # the last: nobody is there
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        assert "nothing was changed" in shell.must("spool", "repair")
    assert shell.run("verify", "spool") == 1


def test_a_repair_waits_for_the_edge_to_stop(shell: Shell, spool: SpoolOnDisk) -> None:
    """Exit 5 while an edge holds the spool."""
    edge = Spool(spool.directory, SetClock(), os.urandom)
    assert (shell.run("spool", "repair", "--yes"), "stop it first" in shell.err) == (5, True)
    edge.close()


def test_a_disk_that_fails_in_a_repair_is_the_spools_error(
    shell: Shell, spool: SpoolOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the opening of a file an error names none: it is told of the spool all the same, and ends with 5."""

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    damage(spool)
    monkeypatch.setattr(os, "fsync", fails)
    assert shell.run("spool", "repair", "--yes") == 5
    told = f"cannot work in {spool.directory}: Input/output error; mend the spool's disk"
    assert (told in shell.err, "cannot write the answer" in shell.err) == (True, False), shell.err


@pytest.mark.parametrize(("reader", "told"), [("closed", ""), ("full", "fleetgate: cannot write the answer: ")])
def test_an_answer_that_nobody_takes_is_no_error_of_the_spool(
    shell: Shell, spool: SpoolOnDisk, reader: str, told: str
) -> None:
    """Written in the middle of work on the spool, not at the end: 74, and of a full disk one line."""
    done = shell.unread(reader, "spool", "cat", "1", unbuffered=True)
    assert (done.returncode, done.stderr.startswith(told), done.stderr.count("\n")) == (74, True, bool(told)), done


def test_retry_asks_load_for_parked_segments(shell: Shell, spool: SpoolOnDisk) -> None:
    """All of them, or one by its number."""
    park(spool, "refused")
    assert "1 is handed to load again" in shell.must("spool", "retry")
    assert [path.stem for path in asked(spool.directory / "parked")] == [f"{1:020d}"]


def test_retry_says_where_it_would_change_nothing(shell: Shell, spool: SpoolOnDisk) -> None:
    """A damaged segment is repaired first: it is passed over, which is 4 where there is no other, or by its number."""
    park(spool, "damaged")
    assert (shell.run("spool", "retry"), "repair" in shell.out, "stays until" in shell.err) == (4, True, True)
    assert (shell.run("spool", "retry", "1"), "repair" in shell.err) == (4, True)
    assert asked(spool.directory / "parked") == []


def test_a_changed_segment_is_tried_again_only_by_its_number(shell: Shell, spool: SpoolOnDisk) -> None:
    """It is evidence, until somebody has found that what stands in ClickHouse is not this gate's."""
    park(spool, "changed")
    assert (shell.run("spool", "retry"), "compare" in shell.out) == (4, True)
    assert asked(spool.directory / "parked") == []
    shell.must("spool", "retry", "1")
    assert [path.stem for path in asked(spool.directory / "parked")] == [f"{1:020d}"]


def test_a_damaged_parked_segment_is_repaired_and_retried(shell: Shell, spool: SpoolOnDisk) -> None:
    """What could not be read before is handed to load."""
    damage(spool)
    park(spool, "damaged")
    assert "then `fleetgate spool retry`" in shell.must("spool", "repair", "--yes")
    assert "1 is handed to load again" in shell.must("spool", "retry", "1")
