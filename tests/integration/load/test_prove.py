"""One message proved from its signed bytes: every step holds, and for each there is something that breaks it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.load.audit import Audit
from tests.integration.load.test_poison import refusing
from tests.segments import DAY_MS, RECEIVED_AT, SENT_AT, pack, peer, rows_body, sample

from fleetgate.catalogue import catalogue
from fleetgate.control.heads import read_public_key
from fleetgate.errors import CheckFailed, ControlAway, NotFound
from fleetgate.judge.keys import MacKey, derive_mac_key
from fleetgate.judge.mac import _header
from fleetgate.proof.message import Means, Proof, prove
from fleetgate.proof.rows import Keeping
from fleetgate.proof.stored import Name
from fleetgate.spool.format import PeerRecord

ROOTS = {1: hashlib.sha256(b"active").digest(), 2: hashlib.sha256(b"retired").digest()}


def signed(sender: PeerRecord, seq: int, body: bytes, kid: int = 1) -> bytes:
    """An envelope as the device itself makes it."""
    key = MacKey(derive_mac_key(ROOTS[kid], sender.tenant, sender.device_id, sender.key_digest))
    tag = key.digest(_header(1, 1, kid, 3, seq, SENT_AT) + body)[:16]
    return pack([1, kid, 3, seq, SENT_AT, 1, body, tag])


class Bureau(Audit):
    """A spool with signed messages of one device, loaded; `prove` as the command does it."""

    def __init__(self, bench: Any, directory: Path) -> None:
        super().__init__(bench, directory)
        self.sender = peer(bench.vehicle("car"))
        self.certificates = [(self.sender.key_digest, self.sender.fingerprint)]
        odd = [-5, "fault", {1: -0.0, "Foo.Unknown": 0.1}, {"Vehicle.OBD.DTCList": "P0301"}]
        self.send(0, rows_body(sample(-1000, s1=50.5, s2=1e-7), sample(0, s1=9999.0), odd))
        self.send(1, rows_body(sample(0, s1=1.0)), kid=2)
        self.send(2, rows_body(sample(0, s1=2.0)), outcome=2)
        bench.spool.seal()
        bench.load_all()

    def send(self, seq: int, body: bytes, kid: int = 1, outcome: int = 1) -> None:
        raw = signed(self.sender, seq, body, kid)
        spool = self.bench.spool
        spool.writer.message(spool.sender(self.sender), RECEIVED_AT, outcome, 0, raw)

    def prove(self, seq: int = 0, roots: dict[int, bytes] | None = None) -> Proof:
        means = Means(
            ROOTS if roots is None else roots,
            read_public_key(self.public),
            self.heads(),
            lambda _tenant, _device: self.certificates,
            catalogue(),
            Keeping(RECEIVED_AT + DAY_MS, 7),
        )
        return prove(self.bench.clickhouse, Name("acme", self.sender.device_id, 3, seq), means)

    def failing(self, seq: int = 0) -> dict[str, str]:
        """The steps that do not hold, with their sentences."""
        return {step.step: step.what for step in self.prove(seq).steps if step.holds is not True}


@pytest.fixture
def bureau(bench: Any, tmp_path: Path) -> Bureau:
    found = Bureau(bench, tmp_path)
    found.sign()
    return found


STEPS = ["bytes", "signature", "rows", "certificate", "segment", "head"]


@pytest.mark.parametrize("seq", [0, 1, 2], ids=["odd values", "retired root", "held"])
def test_a_message_is_proved(bureau: Bureau, seq: int) -> None:
    """All steps hold, and it is told through which certificate, key, edge, segment and head it came."""
    proof = bureau.prove(seq)
    assert {step.step: step.holds for step in proof.steps} == dict.fromkeys(STEPS, True), proof.steps
    assert (proof.certificate_fingerprint, proof.key_id) == (bureau.sender.fingerprint.hex(), 2 if seq == 1 else 1)
    assert (proof.edge_id, proof.segment, proof.head_place) == ("edge-1", 1, 1)
    assert proof.head_signature == bureau.heads()[0].signature


OURS = "spool = {spool}"
BREAKS = [
    ("events", f"UPDATE signal_values = [50.6, 1e-7] WHERE {OURS} AND event_index = 0 AND seq = 0", "rows",
     "event 0: signal_values is [50.6, 1e-07] in events, and signed is [50.5, 1e-07]"),
    ("events", f"UPDATE signal_values = [0] WHERE {OURS} AND event_index = 2 AND seq = 0", "rows", "signed is [-0.0]"),
    ("events", f"UPDATE software = 'x' WHERE {OURS} AND seq = 0", "rows", "software is 'x' in events, and signed is"),
    ("events", f"UPDATE flags = 0 WHERE {OURS} AND seq = 0", "rows", "flags is 0 in events, and 512 follows from"),
    ("events", f"DELETE WHERE {OURS} AND event_index = 1", "rows", "2 rows of this message, and 3 events were signed"),
    ("raw_messages", f"UPDATE envelope = concat(substring(envelope, 1, length(envelope) - 1), 'x') WHERE {OURS}",
     "signature", "did not sign these bytes"),
    ("raw_messages", f"UPDATE key_digest = repeat('0', 64) WHERE {OURS}", "signature", "did not sign these bytes"),
    ("raw_messages", f"UPDATE envelope = 'x' WHERE {OURS}", "signature", "are no envelope"),
    ("raw_messages", f"UPDATE certificate_fingerprint = repeat('0', 64) WHERE {OURS}", "certificate",
     "no certificate 00"),
    ("segments", f"DELETE WHERE {OURS}", "segment", "has no row in `segments`"),
    ("segments", f"UPDATE damaged = 1 WHERE {OURS}", "head", "does not lead to the head signed at place 1"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "change", "step", "sentence"), BREAKS, ids=[f"{b[0]}-{b[1][:34]}" for b in BREAKS])
def test_what_does_not_hold_is_said(bureau: Bureau, table: str, change: str, step: str, sentence: str) -> None:
    """The step that fails, in a sentence with what is stored and what was signed."""
    bureau.tamper(table, change)
    assert sentence in bureau.failing()[step]


def test_a_message_of_another_number_does_not_pass(bureau: Bureau) -> None:
    """Its bytes are signed, but they say another sequence number."""
    row = f"SELECT * FROM raw_messages WHERE spool = '{bureau.spool}' LIMIT 1"
    bureau.bench.clickhouse.command(f"INSERT INTO raw_messages SELECT * REPLACE (7 AS seq) FROM ({row})")
    assert "those of another message" in bureau.failing(7)["signature"]


def test_a_row_that_load_cannot_have_written_is_an_answer(bureau: Bureau) -> None:
    """No error of the program: a sentence."""
    bureau.tamper("raw_messages", f"UPDATE key_digest = 'x' WHERE {OURS}")
    with pytest.raises(CheckFailed, match="not what load writes"):
        bureau.prove()


def test_a_message_that_is_stored_twice_is_told(bureau: Bureau) -> None:
    """The gate stores one message once."""
    one = "SELECT * FROM raw_messages WHERE spool = '{}' AND seq = 0"
    bureau.bench.clickhouse.command(f"INSERT INTO raw_messages {one.format(bureau.spool)}")
    assert "2 times" in bureau.failing()["bytes"]


def test_without_the_root_key_the_signature_is_not_shown(bureau: Bureau) -> None:
    """A retired root that is kept elsewhere has to be named; it is no proof of anything that it is absent."""
    steps = {step.step: step for step in bureau.prove(1, {1: ROOTS[1]}).steps}
    assert steps["signature"].holds is None
    assert "--keyring" in steps["signature"].what
    assert "rows" not in steps


def test_without_control_the_certificate_is_not_shown(bureau: Bureau) -> None:
    """Everything else is."""

    def away(_tenant: str, _device: str) -> Any:
        raise ControlAway("no answer")

    means = Means(ROOTS, read_public_key(bureau.public), bureau.heads(), away, catalogue(), Keeping(RECEIVED_AT, 7))
    proof = prove(bureau.bench.clickhouse, Name("acme", bureau.sender.device_id, 3, 0), means)
    assert [step.step for step in proof.steps if step.holds is not True] == ["certificate"]


def test_before_a_head_is_signed_that_is_said(bench: Any, tmp_path: Path) -> None:
    """The newest minute is not vouched for yet."""
    assert "no head of the chain is signed" in Bureau(bench, tmp_path).failing()["head"]


def test_rows_whose_signed_bytes_are_gone_cannot_be_proved(bureau: Bureau) -> None:
    """The answer says why, and what still can be checked."""
    bureau.tamper("raw_messages", f"DELETE WHERE {OURS}")
    with pytest.raises(CheckFailed, match="keeps them for"):
        bureau.prove()


def test_what_is_not_stored_is_not_found(bureau: Bureau) -> None:
    """A number that never came."""
    with pytest.raises(NotFound, match="nothing is stored"):
        bureau.prove(99)


def test_a_proof_is_json(bureau: Bureau) -> None:
    """With every field and step."""
    told = msgspec.json.decode(msgspec.json.encode(bureau.prove()))
    assert [step["step"] for step in told["steps"]] == STEPS
    assert told["segment_sha256"]


def test_a_message_that_clickhouse_refused_is_no_tampering(bench: Any, tmp_path: Path) -> None:
    """Its bytes are there, its rows are not: its segment's row says so, and the answer says what to do."""
    with refusing(bench.clickhouse, "has(signal_values, 50.5)"):
        bureau = Bureau(bench, tmp_path)
    bureau.sign()
    steps = {step.step: step for step in bureau.prove().steps}
    assert steps["rows"].holds is None
    assert "spool retry" in steps["rows"].what
    assert [step.step for step in steps.values() if step.holds is False] == []
    assert bureau.prove(1).holds
    bureau.tamper("events", f"DELETE WHERE {OURS} AND seq = 1")
    assert "0 rows of this message" in bureau.failing(1)["rows"]


def test_a_bad_row_beside_the_message_is_one_step(bureau: Bureau) -> None:
    """It does not keep the others from being made."""
    row = f"SELECT * FROM raw_messages WHERE spool = '{bureau.spool}' AND seq = 0 LIMIT 1"
    bureau.bench.clickhouse.command(f"INSERT INTO raw_messages SELECT * REPLACE ('x' AS key_digest) FROM ({row})")
    steps = {step.step: step.holds for step in bureau.prove().steps}
    assert (steps["bytes"], steps["signature"], steps["rows"]) == (False, True, True)


def test_text_that_is_not_utf8_does_not_hold(bureau: Bureau) -> None:
    """Bytes that load never writes are an answer, and no error of the command."""
    bureau.tamper("events", "UPDATE software = unhex('ff') WHERE spool = {spool} AND seq = 0")
    assert "is not UTF-8" in bureau.failing()["rows"]
