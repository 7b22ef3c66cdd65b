"""Decides how a run goes: who takes part, the pace of messages, the end, and whether it went well.

Devices are driven by their agents, attackers by `attackers`; this starts them, keeps time, and waits for the answers.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fleetsim import attackers, vehicles
from fleetsim import clock as clocks
from fleetsim.agent import Agent
from fleetsim.bundle import Bundle, Device
from fleetsim.clock import Clock
from fleetsim.commits import Committer, commit_every
from fleetsim.core import DeviceCore
from fleetsim.encode import Form
from fleetsim.gate import Gate, RunError
from fleetsim.https_agent import HttpsAgent
from fleetsim.journal import Journal
from fleetsim.ledger import HonestBook, Ledger
from fleetsim.mqtt_agent import MqttAgent, packet_overhead
from fleetsim.renewer import Renewer
from fleetsim.traffic import STEPS, Fleet

# How long answers may take after the last message was made.
DRAIN_S = 30.0
LEDGER_PAUSE_S, JOURNAL_PAUSE_S = 0.1, 0.01
# One vehicle in five speaks HTTPS, and one of three of those writes its envelopes in JSON.
HTTPS_EVERY, JSON_EVERY = 5, 3


class Devices:
    """What all honest devices of one process share: clock, journal, ledger, gate."""

    def __init__(self, gate: Gate, state: Path, ledger: Ledger, clock: Clock, seed: int) -> None:
        self.gate, self.ledger, self.clock, self.seed = gate, ledger, clock, seed
        self.journal = Journal(state / "journal.db")
        self.committer = Committer(self.journal.commit, clock, JOURNAL_PAUSE_S)

    def mqtt(self, bundle: Device) -> MqttAgent:
        """A device that speaks MQTT."""
        core = self._core(bundle, "mqtt", "msgpack", packet_overhead(bundle.topic))
        name = self.gate.server_name
        return MqttAgent(core, self.committer, self.clock, self.gate.mqtt, name, self._renewer(bundle))

    def https(self, bundle: Device, form: Form, linger_s: float) -> HttpsAgent:
        """A device that speaks HTTPS, its envelopes in `form`."""
        core = self._core(bundle, "https", form, 0)
        name, renewer = self.gate.server_name, self._renewer(bundle)
        return HttpsAgent(
            core, self.committer, self.clock, self.gate.https, name, renewer, form=form, linger_s=linger_s
        )

    def _renewer(self, bundle: Device) -> Renewer | None:
        """None for one of many in a file, which does not live long enough."""
        if not isinstance(bundle, Bundle):
            return None
        return Renewer(bundle, self.gate, self.clock, clocks.stream(self.seed, f"{bundle.name} renewal"))

    def _core(self, bundle: Device, transport: str, form: Form, overhead: int) -> DeviceCore:
        return DeviceCore(
            bundle,
            self.journal,
            HonestBook(self.ledger, transport),
            self.clock.now_ms,
            clocks.stream(self.seed, bundle.name),
            form=form,
            packet_overhead=overhead,
        )


@asynccontextmanager
async def committing(devices: Devices) -> AsyncIterator[asyncio.TaskGroup]:
    """A task group beside which journal and ledger are committed; a disk that fails ends the group. Raises RunError."""
    try:
        async with asyncio.TaskGroup() as outer:
            helpers = [
                outer.create_task(devices.committer.run()),
                outer.create_task(commit_every(devices.ledger.commit, devices.clock, LEDGER_PAUSE_S)),
            ]
            async with asyncio.TaskGroup() as group:
                yield group
            for helper in helpers:
                helper.cancel()
    except ExceptionGroup as group:
        if disk := group.subgroup(sqlite3.Error):
            raise RunError(f"the journal or the ledger cannot be written: {_first(disk)}") from None
        if wrong := group.subgroup(RunError):
            raise _first(wrong) from None
        raise
    finally:
        devices.ledger.commit()
        devices.journal.close()


async def drive(
    devices: Devices,
    bundles: Sequence[Bundle],
    seconds: float,
    interval_s: float,
    attacks: Sequence[attackers.Stage],
) -> None:
    """Run vehicles and attackers for `seconds`, then wait for the answers.

    Raises RunError when messages stay without an answer, or a disk fails.
    """
    agents = [_agent(devices, i, bundle, interval_s) for i, bundle in enumerate(bundles)]
    physics = vehicles.Vehicles(len(agents), vehicles.generator(devices.seed))
    fleet = Fleet(len(agents), physics, clocks.stream(devices.seed, "traffic"))
    async with committing(devices) as group:
        running = [group.create_task(agent.run()) for agent in agents]
        running += [group.create_task(attackers.run(stage)) for stage in attacks]
        await _make_messages(fleet, agents, devices.clock, seconds, interval_s)
        await finish(agents, running)
    require_answers(agents)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first


async def attack(stage: attackers.Stage, ledger: Ledger, clock: Clock) -> None:
    """Run one attack by itself."""
    commits = asyncio.create_task(commit_every(ledger.commit, clock, LEDGER_PAUSE_S))
    try:
        await attackers.run(stage)
    finally:
        commits.cancel()


async def finish(agents: Sequence[Agent], running: Sequence[asyncio.Task[None]]) -> None:
    """Tell the agents that nothing more comes, and wait for them, at most DRAIN_S."""
    for agent in agents:
        agent.finish()
    if running:
        _, unfinished = await asyncio.wait(running, timeout=DRAIN_S)
        for task in unfinished:
            task.cancel()


def require_answers(agents: Sequence[Agent]) -> None:
    """Raises RunError if a message has no answer or was lost before it could be signed."""
    late = [agent for agent in agents if agent.open_messages or agent.lost_drafts]
    if late:
        count = sum(agent.open_messages + agent.lost_drafts for agent in late)
        name = late[0].core.bundle.name
        raise RunError(
            f"{count} messages of {len(late)} devices (the first is {name}) got no answer within {DRAIN_S:.0f} s; "
            "is the gate up, and are these devices enrolled and not refused?"
        )


async def _make_messages(
    fleet: Fleet, agents: Sequence[Agent], clock: Clock, seconds: float, interval_s: float
) -> None:
    step_s = interval_s / STEPS
    start_ms = clock.now_ms()
    # Event times are the steps' own, not the loop's: a loop that is late must not make a car jump.
    for step in range(1, int(seconds / step_s) + 1):
        at_ms = start_ms + step * step_s * 1000
        await clock.sleep((at_ms - clock.now_ms()) / 1000)
        for index, draft in fleet.step(at_ms, step_s):
            agents[index].offer(draft)


def _agent(devices: Devices, index: int, bundle: Bundle, interval_s: float) -> Agent:
    if index % HTTPS_EVERY != HTTPS_EVERY - 1:
        return devices.mqtt(bundle)
    form: Form = "json" if index // HTTPS_EVERY % JSON_EVERY == 1 else "msgpack"
    return devices.https(bundle, form, linger_s=3 * interval_s)
