"""What is written down about a message that was refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tests.gates import Gate
from tests.units import BODY, elements, pack, sign

from fleetgate.accept.witness import Witness
from fleetgate.evidence.keeper import Keeper
from fleetgate.evidence.sample import Sample


def test_a_copied_tag_does_not_make_a_forgery_the_message_itself(tmp_path: Path) -> None:
    """Only the tag stands in a window: of what the device's key did not sign nothing more is said than that."""
    gate, samples = Gate(tmp_path / "spool"), list[Sample]()
    gate.intake.on_evidence = Witness(cast(Keeper, SimpleNamespace(offer=samples.append)), gate.clock).note
    caller = gate.caller("tcu-0001")

    def receive(raw: bytes) -> None:
        gate.intake.receive(caller, raw, None, gate.clock.ms)

    taken: list[Any] = elements(seq=0, body=BODY, sent_at=gate.clock.ms)
    receive(pack(taken))
    receive(pack([*taken[:-2], b"forged", taken[-1]]))
    receive(sign(seq=0, body=BODY, sent_at=gate.clock.ms + 1))
    found = [(one.facts.verified, one.facts.slot and one.facts.slot.found) for one in samples]
    assert found == [(False, "the tag of the message that was taken"), (True, "another message")]


def test_a_refusal_before_the_tag_is_looked_at_says_nothing_of_the_key(tmp_path: Path) -> None:
    """For another device's topic, signed by this one: who reads "nobody" would look for a thief."""
    gate, samples = Gate(tmp_path / "spool"), list[Sample]()
    gate.intake.on_evidence = Witness(cast(Keeper, SimpleNamespace(offer=samples.append)), gate.clock).note
    raws = sign(seq=0, sent_at=gate.clock.ms), sign(seq=1, key=bytes(32), sent_at=gate.clock.ms)
    for raw, topic in zip(raws, (b"fleet/v1/acme/tcu-0002/telemetry", None), strict=True):
        gate.intake.receive(gate.caller("tcu-0001"), raw, topic, gate.clock.ms)
    assert [(one.facts.what, one.facts.verified) for one in samples] == [
        ("identity_mismatch", None),
        ("bad_mac", False),
    ]
