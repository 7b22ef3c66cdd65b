"""Decides how single units attack: they repeat what they captured, are copies of others, or probe with forged messages.

Each has a valid certificate, as a stolen or opened unit has; beside its attack it goes on as an honest one. Which of
its signs gives it away is the gate's business; the truth only says who it was, and from which message on.
"""

from collections.abc import Callable, Sequence
from functools import partial

from fleetsim import encode
from fleetsim.encode import Body, Event
from fleetsim.mac import TAG_BYTES
from fleetsim.scenarios.device import Device
from fleetsim.scenarios.links import MqttLink
from fleetsim.scenarios.scenario import HOUR_S, WATCHED, Scenario, everybody_drives
from fleetsim.scenarios.world import World
from fleetsim.swarm_wire import Phase

REPLAY_EVERY_S, REPLAYED_AT_ONCE = 30.0, 8
PROBE_EVERY_S = HOUR_S
# A connection that is not there now is waited for.
TRY_AGAIN_S = 5.0

RING_SHARE, CLONE_SHARE, PROBE_SHARE = 0.03, 0.03, 0.2


def _inject(world: World, device: Device, raw: bytes) -> bool:
    """Send bytes over the device's own session; whether it is up."""
    link = device.link
    if not isinstance(link, MqttLink) or link.phase is not Phase.LIVE:
        return False
    world.inject(link, raw, lambda label: device.notes.answers.update({f"hostile {label}": 1}))
    return True


def _repeat(world: World, device: Device, every_s: float, what: str, attack: Callable[[], bool]) -> None:
    """Attack again and again from now on; the truth begins with the first message that is out."""
    begun = False

    def go() -> None:
        nonlocal begun
        done = attack()
        if done and not begun:
            begun = True
            world.truth.attacks(device, what, world.now_ms())
        world.after(every_s if done else TRY_AGAIN_S, go)

    go()


def _over_mqtt(world: World, indices: Sequence[int]) -> list[Device]:
    return [world.devices[i] for i in indices if world.devices[i].transport == "mqtt"]


def replays(world: World, indices: Sequence[int]) -> None:
    """Each repeats what it sent itself, on its own connection: not the latest, which may not be answered yet."""
    for device in _over_mqtt(world, indices):

        def attack(device: Device = device) -> bool:
            captured = list(device.notes.captured)[-2 * REPLAYED_AT_ONCE : -REPLAYED_AT_ONCE]
            sent = [_inject(world, device, raw) for raw in captured]
            return any(sent)

        world.trouble(partial(_repeat, world, device, REPLAY_EVERY_S, "replay_own", attack), over_s=30)


def replay_ring(world: World) -> None:
    """Half of the ring repeats its own messages, half what its neighbour sent."""
    everybody_drives(world)
    ring = [i for i in world.pick(RING_SHARE, at_least=8) if world.devices[i].transport == "mqtt"]
    replays(world, ring[::2])
    others = _over_mqtt(world, ring[1::2])
    for device, neighbour in zip(others, [*others[1:], *others[:1]], strict=True):

        def attack(device: Device = device, neighbour: Device = neighbour) -> bool:
            return bool(neighbour.notes.captured) and _inject(world, device, neighbour.notes.captured[0])

        world.trouble(partial(_repeat, world, device, REPLAY_EVERY_S, "replay_of_another", attack), over_s=30)


def clones(world: World, indices: Sequence[int]) -> None:
    """A copy of each unit goes on beside it: as a second start over MQTT or HTTPS, or as a copy of its memory."""
    kinds = ("clone_mqtt", "clone_https", "clone_memory")
    for number, index in enumerate(indices):
        world.trouble(partial(_clone, world, index, kinds[number % len(kinds)]), over_s=30)


def _clone(world: World, index: int, what: str) -> None:
    original = world.devices[index]
    copy = world.another(original, "https" if what == "clone_https" else "mqtt")
    copy.disk = original.disk.copy()
    if what == "clone_memory":
        copy.become(original)
    else:
        copy.reboot()
    world.follow(copy, index)
    copy.wake()
    world.truth.attacks(original, what, world.now_ms())


def clone(world: World) -> None:
    """Three ways to be in two places at once."""
    everybody_drives(world)
    clones(world, [i for i in world.pick(CLONE_SHARE, at_least=6) if world.devices[i].transport == "mqtt"])


def forged(world: World, device: Device) -> bytes:
    """An envelope with a tag that somebody guessed."""
    event = Event(0, "sample", {1: round(world.rng.uniform(0, 120), 2)}, {})
    body = encode.encode_body(encode.ROWS_MSGPACK, Body("2026.44.1", "cfg-a", [event]))
    numbers = (1, device.bundle.kid, max(1, device.core.epoch), world.rng.randrange(1 << 20), int(world.now_ms()))
    return encode.encode_envelope(
        encode.Envelope(*numbers, encode.ROWS_MSGPACK, body, world.rng.randbytes(TAG_BYTES)), "msgpack"
    )


def slow_probe(world: World) -> None:
    """Many units, each with one forged message an hour."""
    everybody_drives(world)
    for device in _over_mqtt(world, world.pick(PROBE_SHARE)):

        def attack(device: Device = device) -> bool:
            return _inject(world, device, forged(world, device))

        world.trouble(partial(_repeat, world, device, PROBE_EVERY_S, "slow_probe", attack), over_s=PROBE_EVERY_S)


SCENARIOS = (
    Scenario(
        "replay-ring",
        "3 % of the units send captured messages again, their own and each other's",
        WATCHED._replace(vehicles=400, before_s=300.0, speed=20.0),
        replay_ring,
    ),
    Scenario(
        "clone",
        "3 % of the units are in two places at once, copied at rest or while they run",
        WATCHED._replace(vehicles=400, before_s=300.0, trouble_s=HOUR_S, speed=40.0),
        clone,
    ),
    Scenario(
        "slow-probe",
        "20 % of the units send one forged message an hour beside their telemetry",
        WATCHED._replace(vehicles=400, interval_s=60.0, before_s=600.0, trouble_s=5 * HOUR_S, speed=40.0),
        slow_probe,
    ),
)
