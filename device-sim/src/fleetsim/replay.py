"""Decides how a recording is sent again: each vehicle by a device of its own, at any speed, every message acknowledged.

The recording keeps its spacing and is moved in time so that its last event lies at the moment the replay starts: then
none is from the future, however fast it is played. What was recorded is `recording`'s (one drive, CSV) or `tape`'s (a
fleet); sending is the agents'.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from fleetsim.bundle import Device, read_bundle
from fleetsim.fleet import DRAIN_S, Devices, committing, finish, require_answers
from fleetsim.gate import RunError
from fleetsim.identities import Identities
from fleetsim.recording import parse_mapping, read_rows, takes
from fleetsim.tape import LONGEST_MS, Take, Tape, is_tape


class Play(NamedTuple):
    """What is sent: by how many vehicles, for how long at its own speed, and the messages once the start is known."""

    vehicles: int
    until_ms: int
    takes: Callable[[float], Iterator[Take]]


def play_of(file: Path, time_column: str, mappings: Sequence[str]) -> Play:
    """A fleet's recording, or a drive in CSV with its time column and mappings. Raises RunError."""
    if is_tape(file):
        if mappings:
            raise RunError(f"{file} is a recording of a fleet, which has no columns: leave --map out")
        tape = Tape(file)
        if tape.span.last_ms - tape.span.first_ms > LONGEST_MS:
            raise RunError(f"{file}: its events are more than 29 days apart; one may be 30 days old at most")
        return Play(tape.span.vehicles, tape.span.until_ms, partial(moved, tape))
    if not mappings:
        raise RunError(f"{file} is a drive in CSV: say with --map which of its columns are signals")
    rows = read_rows(file, time_column, [parse_mapping(text) for text in mappings])
    return Play(1, rows[-1].at_ms - rows[0].at_ms, partial(takes, rows))


def choose_senders(vehicles: int, bundles: Sequence[Path], identities: Path | None) -> list[Device]:
    """A device for each vehicle. Raises RunError where they are too few, BundleError."""
    if bundles and identities is not None:
        raise RunError("--device and --identities both say who sends: give one of them")
    found: Iterable[Device] = map(read_bundle, bundles) if identities is None else Identities.open(identities)
    chosen = list(islice(found, vehicles))
    if len(chosen) < vehicles:
        raise RunError(
            f"it takes {vehicles} devices to send this, and there are {len(chosen)}: name one for each vehicle with "
            "--device, or a directory that `fleetsim identities prepare` made with --identities"
        )
    return chosen


def moved(tape: Tape, start_ms: float) -> Iterator[Take]:
    """The messages of a recording, their events at times that end at `start_ms`. Raises RunError."""
    shift_ms = int(start_ms) - tape.span.last_ms
    for take in tape:
        events = tuple(replace(event, at=event.at + shift_ms) for event in take.draft.events)
        yield take._replace(draft=take.draft._replace(events=events))


async def send(devices: Devices, of_vehicles: Sequence[Device], play: Play, speed: float) -> int:
    """Send the messages at `speed` times real time; returns their number. Raises RunError."""
    agents = [devices.mqtt(device) for device in of_vehicles]
    start_ms = devices.clock.now_ms()
    count = 0
    async with committing(devices) as group:
        running = [group.create_task(agent.run()) for agent in agents]
        for take in play.takes(start_ms):
            await devices.clock.sleep((start_ms + take.at_ms / speed - devices.clock.now_ms()) / 1000)
            agent = agents[take.vehicle]
            # A recording loses nothing: where a vehicle would drop its oldest, it waits for the gate instead.
            await agent.room(DRAIN_S)
            agent.offer(take.draft)
            count += 1
        await finish(agents, running)
    require_answers(agents)
    return count
