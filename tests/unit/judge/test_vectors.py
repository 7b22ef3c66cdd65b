"""The vectors of schemas/vectors, each through the judge: the outcome it names, and what came out value for value.

The simulator's encoder is tested against the same files, so the two sides agree without sharing code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fleetgate.catalogue import catalogue
from fleetgate.judge import Credential, Device, Flag, Outcome, Peer, Policy, claim, judge
from fleetgate.judge.body import DTYPE_OF, Body, Columns
from fleetgate.judge.envelope import open_envelope
from fleetgate.judge.keys import MacKeys
from fleetgate.judge.verdict import Reason

DIRECTORY = Path(__file__).parents[3] / "schemas" / "vectors"
VECTORS = [pytest.param(path, id=path.stem) for path in sorted(DIRECTORY.glob("*.json"))]
ACCEPTED = [pytest.param(path, id=path.stem) for path in sorted(DIRECTORY.glob("accepted-*.json"))]
POLICY = Policy("vectors", catalogue().bodies)
OUTCOMES = {"accepted": Outcome.ACCEPTED, "duplicate": Outcome.DUPLICATE}
JUDGED_BEFORE = {"oversized", "identity_mismatch", "unknown_device", "suspended", "revoked", "banned", "rate_limited"}


def read(path: Path) -> dict[str, Any]:
    vector: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    return vector


def peer_of(vector: Mapping[str, Any]) -> Peer:
    tenant, device_id, digest = vector["tenant"], vector["device_id"], bytes.fromhex(vector["spki_sha256"])
    roots: dict[int, bytes | None] = {int(kid): bytes.fromhex(root) for kid, root in vector["roots"].items()}
    credential = Credential(digest, digest, MacKeys(roots, tenant, device_id, digest))
    return Peer(Device(tenant, device_id, "veh"), credential, json_allowed=vector["form"] == "json")


@pytest.mark.parametrize("path", VECTORS)
def test_the_judge_says_what_the_vector_expects(path: Path) -> None:
    """After the messages accepted before, the envelope gets its outcome, its reason and (where listed) its flags."""
    vector = read(path)
    peer = peer_of(vector)
    for message in vector["before"]:
        before = judge(bytes.fromhex(message["envelope"]), peer, message["now"], POLICY)
        assert before.outcome is Outcome.ACCEPTED
        claim(before, peer.device, message["now"])
    verdict = judge(bytes.fromhex(vector["envelope"]), peer, vector["now"], POLICY)
    expected = OUTCOMES.get(vector["expect"], Outcome.REJECTED)
    flags = [flag.name.lower() for flag in Flag(verdict.flags) if flag.name is not None]
    assert (verdict.outcome, verdict.reason or verdict.outcome.name.lower()) == (expected, vector["expect"])
    assert sorted(flags) == sorted(vector.get("flags", flags))


@pytest.mark.parametrize("path", ACCEPTED)
def test_an_accepted_vector_comes_out_value_for_value(path: Path) -> None:
    """Fields, labels, times, kinds, values and texts are those that the vector lists."""
    vector = read(path)
    envelope = open_envelope(bytes.fromhex(vector["envelope"]), vector["form"] == "json")
    body = POLICY.bodies.open(envelope.enc, envelope.body)
    fields = {name: getattr(envelope, name) for name in ("kid", "epoch", "seq", "sent_at", "enc")}
    assert fields | {"body": envelope.body.hex()} == vector["fields"]
    assert (body.software, body.config) == (vector["software"], vector["config"])
    events = events_of(body)
    assert len(events) == vector["events_count"]
    assert events == vector.get("events", events)


def events_of(body: Body) -> list[dict[str, Any]]:
    if isinstance(body, Columns):
        stamps = np.frombuffer(body.at, "<i4").tolist()
        read = {number: np.frombuffer(c.data, DTYPE_OF[c.type]).tolist() for number, c in body.columns.items()}
        rows = [{number: values[index] for number, values in read.items()} for index in range(body.n)]
        return [event(at, body.kind, row, {}) for at, row in zip(stamps, rows, strict=True)]
    return [event(found.at, found.kind, found.signals, found.texts) for found in body.events]


def event(at: int, kind: str, values: Mapping[Any, float], texts: Mapping[Any, str]) -> dict[str, Any]:
    paths = catalogue().paths
    signals: dict[str, float] = {}
    unknown: dict[str, float] = {}
    for name, value in values.items():
        path = paths.get(name, str(name)) if isinstance(name, int) else name
        if not math.isnan(value):
            (signals if path in catalogue().numbers else unknown)[path] = value
    named = {paths.get(name, str(name)) if isinstance(name, int) else name: text for name, text in texts.items()}
    return {"at": at, "kind": kind, "signals": signals, "texts": named, "unknown": unknown}


def test_there_is_a_vector_for_every_reason_that_bytes_alone_can_have() -> None:
    """At least 60 files; reasons that need a connection or a record are tested through a listener."""
    expected = {read(path.values[0])["expect"] for path in VECTORS if isinstance(path.values[0], Path)}
    assert len(VECTORS) >= 60
    assert expected == {"accepted", "duplicate"} | {reason.value for reason in Reason} - JUDGED_BEFORE
