"""A swarm of vehicles that drive: each says its own readings, of now."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.unit.fleetsim.gate_double import GateDouble, make_pki, serving

from fleetsim import encode
from fleetsim.bundle import read_bundle
from fleetsim.drive import Fleet
from fleetsim.encode import Body
from fleetsim.signals import BY_NUMBER
from fleetsim.swarm import Swarm
from fleetsim.swarm_drive import STEP_MS, DrivingFleet
from fleetsim.swarm_plan import Plan
from fleetsim.swarm_work import Shape

START_MS = 1_795_000_000_000
VEHICLES, SEED = 40, 3


def says(fleet: DrivingFleet, index: int, at_ms: int) -> Body:
    return encode.decode_body(fleet.enc, fleet.content(index)(0, at_ms))


def test_each_says_its_own_readings_of_the_moment() -> None:
    """What `drive` has of it then; whoever is asked within the same second is told of the same moment."""
    swarm, fleet = DrivingFleet(VEHICLES, START_MS, SEED), Fleet(VEHICLES, START_MS, SEED)
    now_ms = START_MS + 5 * STEP_MS
    fleet.advance(now_ms)
    for index in range(VEHICLES):
        said = says(swarm, index, now_ms + index)
        [event] = said.events
        assert event.signals == fleet.readings(index)
        assert (event.at, said.software, said.config) == (-index, fleet.software[index], fleet.config[index])
        assert event.texts == ({44: ",".join(codes)} if (codes := fleet.faults(index)) else {})
    assert len({says(swarm, index, now_ms).events[0].signals[7] for index in range(VEHICLES)}) == VEHICLES


def test_no_event_lies_behind_its_message() -> None:
    """The clock of another device is some milliseconds behind: its event is of its message's moment."""
    swarm = DrivingFleet(2, START_MS, SEED)
    says(swarm, 0, START_MS + 10 * STEP_MS)
    assert says(swarm, 1, START_MS + 10 * STEP_MS - 7).events[0].at == 0


def test_vehicles_move_on() -> None:
    """Within an hour somebody is elsewhere, and every value is one that the catalogue allows."""
    swarm = DrivingFleet(VEHICLES, START_MS, SEED)
    hour_later = START_MS + 3600 * STEP_MS
    before, after = ([says(swarm, i, at).events[0].signals for i in range(VEHICLES)] for at in (START_MS, hour_later))
    assert any(one[7] != other[7] for one, other in zip(before, after, strict=True))
    for name, value in (item for signals in after for item in signals.items()):
        signal = BY_NUMBER[int(name)]
        assert (signal.low or 0.0) <= value <= (signal.high or 0.0), signal.path


def test_a_swarm_sends_it(tmp_path: Path) -> None:
    """Over the wire, in messages signed when they go out."""
    make_pki(tmp_path / "pki")
    double = GateDouble()

    async def main() -> None:
        async with serving(double, tmp_path / "pki") as (mqtt, _):
            plan = Plan(mqtt, "localhost", 1, Shape(), 0.1, 0.0, rate=50.0, connect_s=10.0, drive=True)
            await asyncio.to_thread(Swarm(plan, [read_bundle(tmp_path / "pki" / "device")], lambda _: None).run)

    asyncio.run(main())
    for raw in double.received:
        envelope = encode.decode_envelope(raw)
        [event] = encode.decode_body(envelope.enc, envelope.body).events
        assert len(event.signals) > 30
        assert event.at > -2 * STEP_MS
    assert double.received
