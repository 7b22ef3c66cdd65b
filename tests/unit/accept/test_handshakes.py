"""Whose handshake it is that a refused certificate begins: nobody's but its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.gates import IDENTITY, Gate, record
from tests.units import DEVICE_ID, TENANT

from fleetgate.accept.handshakes import Handshakes
from fleetgate.accept.limits import Limits, no_hits
from fleetgate.accept.vetting import NobodyKnows
from fleetgate.config import DeviceLimit
from fleetgate.config import Limits as Settings
from fleetgate.judge import Reason

HOURLY = Settings(device=DeviceLimit(messages="", handshakes="1/h"))


def handshakes(gate: Gate, limits: Limits, vetting: Any) -> Handshakes:
    """Of an edge that has the device in memory."""
    gate.fleet.add(record(), None, 0.0)
    return Handshakes(limits, vetting, SimpleNamespace(), gate.fleet, gate.clock)  # type: ignore[arg-type]  # not asked


def test_a_certificate_on_a_list_is_charged_to_nobody_else(gate: Gate) -> None:
    """It passes more often than its device may, and then no more; of the device's nothing is gone."""
    limits = Limits(HOURLY, no_hits())
    listed = handshakes(gate, limits, SimpleNamespace(refusal=lambda identity: Reason.REVOKED))
    assert [listed.admits(IDENTITY) for _ in range(110)] == [True] * 100 + [False] * 10
    assert limits.admit_handshake(TENANT, DEVICE_ID, "", gate.clock.monotonic())


def test_while_lists_are_out_of_date_nobody_is_known_to_be_refused(gate: Gate) -> None:
    """A whole CA is told to come back then: its devices' limits hold."""

    def nobody_knows(identity: object) -> None:
        raise NobodyKnows

    limits = Limits(HOURLY, no_hits())
    unknown = handshakes(gate, limits, SimpleNamespace(refusal=nobody_knows))
    assert [unknown.admits(IDENTITY) for _ in range(3)] == [True, False, False]
