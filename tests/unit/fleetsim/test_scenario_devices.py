"""Devices of a scenario against a gate that says what a test tells it to, over real sockets, on a fast clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.fleetsim.gate_double import GateDouble, Http, Puback, make_pki, serving

from fleetsim import encode
from fleetsim.bundle import read_bundle
from fleetsim.clock import Clock
from fleetsim.gate import Gate
from fleetsim.scenarios.device import Device
from fleetsim.scenarios.disk import Disk
from fleetsim.scenarios.world import Pace, World

SPEED = 100.0
PACE = Pace(vehicles=1, interval_s=5.0, before_s=60.0, trouble_s=0.0, speed=SPEED)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki") / "made"
    make_pki(directory)
    return directory


def drive(double: GateDouble, pki: Path, play: Callable[[World, Device], object], transport: str = "mqtt") -> Device:
    """A minute of one vehicle's life, awake from the start."""

    async def main() -> Device:
        async with serving(double, pki) as (mqtt, https):
            world = World(Gate(mqtt, https, "localhost"), [read_bundle(pki / "device")], Clock(None, SPEED), 1, PACE)
            device = world.devices[0]
            device.transport = transport
            world.at(0, device.wake)
            play(world, device)
            await asyncio.to_thread(world.run)
            return device

    return asyncio.run(main())


def keys(double: GateDouble) -> list[tuple[int, int]]:
    return [(envelope.epoch, envelope.seq) for envelope in map(encode.decode_envelope, double.received)]


def test_a_vehicle_sends_what_it_records_in_its_own_order(pki: Path) -> None:
    """A message for each interval, numbered from 0 in an epoch above the gate's, each answered."""
    double = GateDouble(epoch=4)
    device = drive(double, pki, lambda world, device: None)
    assert keys(double) == [(5, seq) for seq in range(len(double.received))]
    assert device.notes.answers == {"accepted": len(double.received)}
    assert len(double.received) >= 8


def test_after_a_lost_answer_the_same_bytes_go_out_again(pki: Path) -> None:
    """On the next connection, before anything newer."""
    double = GateDouble()
    drive(double, pki, lambda world, device: world.at(20, device.lose_next_answer))
    again = [raw for number, raw in enumerate(double.received) if raw in double.received[:number]]
    assert len(again) >= 1
    assert double.connects >= 2


def test_a_reboot_opens_an_epoch_and_an_old_disk_does_too(pki: Path) -> None:
    """Over MQTT the gate's word about the epoch outweighs what the disk says."""
    double = GateDouble()

    def play(world: World, device: Device) -> None:
        world.at(20, device.reboot)
        world.at(40, lambda: setattr(double, "epoch", device.core.epoch))
        world.at(40, lambda: device.reboot(Disk()))

    drive(double, pki, play)
    assert [epoch for epoch, _ in dict(keys(double)).items()] == [1, 2, 3]


def test_without_a_network_a_vehicle_signs_and_sends_later(pki: Path) -> None:
    """Nothing is missing for it: what was recorded meanwhile has its numbers, in their order."""
    double = GateDouble()

    def play(world: World, device: Device) -> None:
        world.at(15, device.lose_network)
        world.at(45, device.find_network)

    drive(double, pki, play)
    once = list(dict.fromkeys(keys(double)))
    assert once == [(1, seq) for seq in range(len(once))]
    assert len(once) >= 8


def test_over_https_batches_are_answered_item_by_item(pki: Path) -> None:
    """The device asks for the time first, and signs with it."""

    def accept(_: int, body: bytes) -> Http:
        count = 1 if body[:1] == b"\x98" else len(msgspec.msgpack.decode(body))
        item = {"epoch": 1, "seq": 0, "status": "accepted", "reason": None}
        return Http(202, msgspec.msgpack.encode([item] * count))

    device = drive(GateDouble(http=accept), pki, lambda world, device: None, "https")
    assert device.notes.answers["accepted"] == device.notes.sends > 5


def test_a_device_that_is_told_to_stop_sends_nothing_for_ten_minutes(pki: Path) -> None:
    """As the reference agent: its rules are the same."""
    double = GateDouble(puback=lambda _: Puback(0x87, "bad_mac"))
    device = drive(double, pki, lambda world, device: None)
    assert device.notes.answers == {"bad_mac": 1}
    assert double.connects == 1
