"""What a run is given and what it writes: bundles, fleet files, addresses, the ledger; what the attacks are made of."""

from __future__ import annotations

import base64
import json
import random
import sqlite3
from pathlib import Path

import msgspec
import pytest
from tests.unit.fleetsim.bench import BUNDLE

from fleetsim import encode
from fleetsim.attackers import KINDS
from fleetsim.attackers.content import BODIES, ENVELOPES
from fleetsim.attackers.fuzz import bend
from fleetsim.bundle import BundleError, read_bundle
from fleetsim.clock import Clock
from fleetsim.gate import RunError, address
from fleetsim.ledger import HonestBook, Ledger
from fleetsim.outbox import Entry
from fleetsim.roster import read_fleet

DEVICE = {
    "tenant": "acme",
    "device_id": "d1",
    "vehicle_id": "v1",
    "kid": 1,
    "mac_key": base64.b64encode(bytes(32)).decode(),
}


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({**DEVICE, "kid": "one"}, r"device\.json: .*kid"),
        ({**DEVICE, "mac_key": "AAAA"}, r"device\.json: mac_key has 3 bytes"),
        ({**DEVICE, "mac_key": "????"}, r"device\.json: .*enrol"),
        (DEVICE, r"certificate\.pem: missing"),
    ],
)
def test_a_broken_bundle_names_file_and_field(tmp_path: Path, device: dict[str, object], message: str) -> None:
    """A bundle that cannot be used says which file, which field, and what to do."""
    (tmp_path / "device.json").write_text(json.dumps(device))
    with pytest.raises(BundleError, match=message):
        read_bundle(tmp_path)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    """A directory that is no bundle is named."""
    with pytest.raises(BundleError, match=r"is .* a device bundle"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("text", ['{"mqtt": 1}', "{", '{"mqtt":"a:1","https":"a:1","vehicles":[],"x":1}'])
def test_a_broken_fleet_file_is_named(tmp_path: Path, text: str) -> None:
    """FLEET.json with a wrong field, an unknown field or no JSON at all."""
    path = tmp_path / "fleet.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"fleet\.json: "):
        read_fleet(path)


@pytest.mark.parametrize("text", ["localhost", ":1", "host:", "host:x", "host:0", "host:65536"])
def test_an_address_is_host_and_port(text: str) -> None:
    """Anything else is refused with the setting's name."""
    with pytest.raises(RunError, match=r"--mqtt: .* is not HOST:PORT"):
        address(text, "--mqtt")


def test_the_ledger_keeps_a_message_from_signature_to_fate(tmp_path: Path) -> None:
    """A reader of the file sees key, verdict, sends, answer and fate of a message."""
    ledger = Ledger(tmp_path / "ledger.db", Clock())
    book = HonestBook(ledger, "mqtt")
    entry = Entry(3, 17, 1_000, 1, b"raw", ticket=0)
    entry.ref = book.signed(BUNDLE, entry, b"body", 4)
    book.sent(entry)
    book.sent(entry)
    book.answered(entry, "duplicate")
    book.closed(entry, "duplicate", "stored")
    ledger.commit()
    with sqlite3.connect(tmp_path / "ledger.db") as reader:
        columns = "tenant, device_id, epoch, seq, kind, expect, events, envelope, sends, answer, fate"
        row = reader.execute(f"SELECT {columns} FROM messages").fetchone()
    reader.close()
    ledger.close()
    assert row == ("acme", "tcu-0001", 3, 17, "honest", "accepted", 4, b"raw", 2, "duplicate", "stored")


def test_the_thirteen_kinds_are_there() -> None:
    """The attacks are those that the report of the demo names."""
    assert set(KINDS) == {
        "replay",
        "forged_mac",
        "other_credential",
        "other_tenant",
        "revoked",
        "malformed_envelope",
        "malformed_body",
        "future_clock",
        "stale_epoch",
        "equivocation",
        "oversized",
        "flood",
        "fuzz",
    }


def test_no_mutation_leaves_the_envelope_as_it_was() -> None:
    """Each malformed envelope differs from the valid one it was made from."""
    raw = encode.sign(bytes(32), kid=1, epoch=1, seq=2, sent_at=3, enc=1, body=b"body")
    parts = list(msgspec.structs.astuple(encode.decode_envelope(raw)))
    assert all(mutate(parts, raw) != raw for mutate in ENVELOPES)


def test_hostile_bodies_are_small_enough_to_be_read() -> None:
    """A malformed body is refused for what it says, not for its size."""
    assert all(0 < len(body) <= encode.MAX_BODY_BYTES for _, body in BODIES)


def test_bending_is_repeatable() -> None:
    """The same seed fuzzes with the same bytes."""
    assert bend(random.Random(5), bytes(100)) == bend(random.Random(5), bytes(100))
