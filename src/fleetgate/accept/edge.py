"""The edge process: puts the rooms of `accept` together, recovers, serves, drains.

Decides the order of start and stop, and what happens every so often (seal, checkpoint, delete, look at the disk).
Starting after a kill is the normal start. An error of the spool ends the process: recovery decides.
"""

from __future__ import annotations

import gc
import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import trio
from prometheus_client.registry import CollectorRegistry

from fleetgate import fault, log
from fleetgate.accept import descriptors
from fleetgate.accept.breaker import Breaker
from fleetgate.accept.census import Census
from fleetgate.accept.counts import Counts, EdgeCollector
from fleetgate.accept.denials import DenialMemory
from fleetgate.accept.door import Door
from fleetgate.accept.entrance import Entrance
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.http import VehicleApp
from fleetgate.accept.https import HttpsServer
from fleetgate.accept.intake import Intake
from fleetgate.accept.issuertrouble import KINDS, IssuerTrouble
from fleetgate.accept.limits import Limits
from fleetgate.accept.lists import Lists, Source
from fleetgate.accept.loop import SocketLoop
from fleetgate.accept.material import Material, Replacement
from fleetgate.accept.proxies import Proxies
from fleetgate.accept.recovery import Recovery
from fleetgate.accept.registry import Registry
from fleetgate.accept.renew import Renewals
from fleetgate.accept.room import Room
from fleetgate.accept.scorekeeper import Scorekeeper
from fleetgate.accept.timekeeping import Timekeeper
from fleetgate.accept.turns import Turns
from fleetgate.accept.vetting import Vetting
from fleetgate.accept.witness import Witness
from fleetgate.admin import AdminServer
from fleetgate.catalogue import catalogue
from fleetgate.clock import Clock, Entropy
from fleetgate.config import Config, host_and_port
from fleetgate.control.breaker import overrides
from fleetgate.control.cases import found_harmless
from fleetgate.control.spools import known_spools
from fleetgate.control.store import Store
from fleetgate.ending import asked_to_end
from fleetgate.errors import ConfigError, ControlAway, SpoolError, first_of
from fleetgate.evidence.keeper import Keeper
from fleetgate.judge import Flag, Policy
from fleetgate.sdnotify import ServiceManager
from fleetgate.spool.format import AlertRecord
from fleetgate.spool.home import Known, Spool

BACKLOG = 4096
HOUSEKEEPING_SECONDS = 0.1
CHECKPOINT_DEVICES = 32  # at a time: 0.1 ms of copying on this thread; a look-up waits 0.3 ms, seldom 15
CONTROL_PATIENCE_SECONDS = 60.0
BEHIND_SEGMENTS = 30
BEHIND_TIMES = 10
"""While that many segments wait for load, nobody waits for the next one: it is sealed ten times later. What a segment
costs load beside its rows (six tables, a row of the chain) is paid once for all of it when the backlog drains."""

_log = log.get("accept.edge")
_Answer = TypeVar("_Answer")


class Edge:
    """One edge; `run` serves until SIGTERM or SIGINT. `files` are its keys and certificates, `store` is control."""

    def __init__(self, config: Config, files: Replacement, store: Store, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._manager = ServiceManager()
        self._cursor_trouble = ""
        self._seal_seconds = config.spool.segment_seconds
        self.registry_of_metrics = CollectorRegistry()
        self._proxies = Proxies(config.proxy)
        self.files = files
        self.vetting = Vetting(config.trust_domain, self.files.now.paths, self.files.now.issuers, clock)
        self._store = store
        self.spool = Spool(
            config.path(config.spool.directory), clock, entropy, config.spool.segment_bytes, self._known_spools
        )
        if self.spool.identity.fence_ms > clock.now_ms():
            _log.error(
                "fence", until_ms=self.spool.identity.fence_ms, why="its windows do not know all that was received"
            )
        if self.spool.cut_bytes:
            _log.warning("tail_cut", bytes=self.spool.cut_bytes, kept_in="parked")
        self.lists = Lists(config, self.files.now.bundle, self.spool.directory / "crls", clock)
        self.files.prepare_lists = self.lists.prepare
        self._denials = DenialMemory(self.spool.directory / "denials.db")
        policy = Policy(config.policy.version, catalogue().bodies, fence_ms=self.spool.identity.fence_ms)
        self.counts = Counts(self.registry_of_metrics)
        self._limits = Limits(config.limits, self.counts.limit_hits)
        self.fleet = Fleet(self.files.now.keyring.roots, self._limits)
        self.registry = Registry(
            self._store,
            self._denials,
            self.spool.checkpoint,
            self.fleet,
            clock,
            config.edge.control_grace_seconds,
            config.edge.id,
        )
        self._config = msgspec.structs.replace(config, edge=descriptors.fit(config.edge))
        self._timekeeper = Timekeeper(clock)
        self.room = Room(self.spool, config.spool, clock)
        self.breaker = Breaker(config.edge.id, config.policy.quarantined_score)
        writer = self.spool.writer
        self.scores = Scorekeeper(writer, self.fleet, self.breaker, config.policy, self.counts, clock)
        self.intake = Intake(writer, self.fleet, self.scores, policy, self.counts, clock)
        self.issuer_trouble = IssuerTrouble(config.edge.id)
        self.issuer_trouble.on_alert = self.scores.alert
        self.vetting.on_verified = self.issuer_trouble.verified
        self.vetting.on_refused = self.issuer_trouble.refused
        self._census = Census(self.spool.checkpoint, self.breaker, clock)
        keeper = Keeper(
            config.path(config.evidence.directory),
            config.evidence,
            config.spool.min_free_bytes,
            clock,
            lambda since_ms, before_ms: found_harmless(self._store, since_ms, before_ms),
        )
        self.witness = Witness(keeper, clock)
        self.intake.on_evidence = self.witness.note
        self.registry_of_metrics.register(EdgeCollector(self))

    def _known_spools(self) -> list[Known] | None:
        return known_spools(self._store, Known)

    async def run(self) -> None:
        recovery = Recovery(self.spool, self.registry, self.fleet, self._config.policy)
        await _patiently(lambda: self._recover(recovery))
        self.room.look(self._doubt())
        mqtt_socket = _listen("edge.mqtt_listen", self._config.edge.mqtt_listen)
        https_socket = _listen("edge.https_listen", self._config.edge.https_listen)
        door = Door(self.registry, self.vetting, self.fleet, self.room, self.intake, self._config, self._clock)
        turns = Turns()
        entrance = Entrance(
            mqtt_socket,
            turns,
            self.files.now.mqtt,
            self.vetting,
            self._proxies,
            self._limits,
            self.counts,
            self._clock,
        )
        loop = SocketLoop(turns, entrance, self._config.edge, self.intake, door, self.room, self._limits, self._clock)
        self.registry.on_change = self.scores.on_state = door.device_changed
        self.registry.on_taken = self.scores.taken
        self.registry.on_overrides = self.breaker.override
        self.registry.on_suspicion = self.scores.suspect
        self.registry.on_grace_over = loop.send_away
        self.room.on_change = loop.room_changed
        renewals = Renewals(
            self._config.path(self._config.signer.renewal_socket), self.registry, self.counts, self._clock
        )
        app = VehicleApp(
            self.intake,
            self.registry,
            self.vetting,
            self.fleet,
            self.room,
            renewals,
            self._clock,
            self._config.edge.id,
        )
        https = HttpsServer(
            app,
            trio.SocketListener(trio.socket.from_stdlib_socket(https_socket)),
            self.files.now.https,
            self.files.now.proxies,
            self._proxies,
            self.vetting,
            self._config.edge,
            self._limits,
            self.counts,
            self._clock,
        )

        def lists_changed() -> None:
            self.vetting.lists = self.lists.in_force
            door.vet_again()

        def replaced(material: Material, distrusts: bool, sources: list[Source]) -> None:
            self.fleet.replace_roots(material.keyring.roots)
            self._replace_policy(material.config, door)
            self.vetting.paths, self.vetting.issuers = material.paths, material.issuers
            self.lists.replace(material.config, material.bundle, sources)
            loop.replace_tls(material.mqtt, distrusts=distrusts)
            https.replace_tls(material.https, material.proxies, distrusts=distrusts)

        self.lists.on_change = lists_changed
        lists_changed()
        self.files.on_replaced = replaced
        gc.collect()
        gc.freeze()  # modules and recovered devices stay: a full collection walks through 100,000 objects less, 31 ms
        admin = AdminServer("edge.admin_listen", self._config.edge.admin_listen, self.registry_of_metrics, self._ready)
        asked = asked_to_end()
        with admin, self.witness.keeper:
            async with trio.open_nursery() as nursery:
                rooms = (self.registry.run, self.intake.run, self.files.run, self.lists.run, loop.run, https.run)
                for task in (*rooms, self._housekeeping, self._checkpoints):
                    nursery.start_soon(task)
                _log.info("ready", mqtt=self._config.edge.mqtt_listen, https=self._config.edge.https_listen)
                self._manager.ready()
                await asked.wait()
                self._manager.stopping()
                await self._drain(loop, https)
                nursery.cancel_scope.cancel()
        await self._checkpoint(over_s=0)
        self.spool.close()
        _log.info("drained")

    def _recover(self, recovery: Recovery) -> None:
        """What the edge knew of its devices and cohorts, and what people say of those: the first message may come
        before the first poll. Raises ControlAway, SpoolError; a second call goes on."""
        recovery.run()
        now_ms = self._clock.now_ms()
        self.breaker.override(overrides(self._store))
        self._census.count()
        alerts = recovery.alerts.values()
        self.issuer_trouble.restore([record for record in alerts if record.kind in KINDS], now_ms)
        held = [record for record in alerts if record.kind not in KINDS]
        if held:
            self.scores.restore(held, recovery.watched())
        fault.point("recover.replayed")

    def _doubt(self) -> str:
        """Why nothing may be judged by the time it is; empty when everything may."""
        fenced_ms = self.spool.identity.fence_ms - self._clock.now_ms()
        if fenced_ms > 0:
            # Until then a device's new message could bear a time from before the fence.
            return (
                "the spool was repaired, or its disk replaced, and does not know all that was received: "
                f"taking messages in {fenced_ms // 1000} s"
            )
        return self._timekeeper.doubt(self.fleet.all())

    def _ready(self) -> str:
        """Why the edge is not ready; empty when it can store."""
        return self.room.why

    async def _drain(self, loop: SocketLoop, https: HttpsServer) -> None:
        """Stops accepting, answers what was received, says goodbye; at most `edge.drain_seconds`."""
        _log.info("draining")
        with trio.move_on_after(self._config.edge.drain_seconds):
            self.room.drain()
            loop.drain()
            await https.drain()
            while not loop.empty or self.counts.connections["https"]:  # noqa: ASYNC110  two rooms to be empty
                await trio.sleep(0.05)

    async def _housekeeping(self) -> None:
        """Seals by age, deletes behind the cursor, looks at the disk and the clock."""
        writer, settings = self.spool.writer, self._config.spool
        look_due = -math.inf
        while True:
            await trio.sleep(HOUSEKEEPING_SECONDS)
            self._manager.working(self.room.why)
            if writer.live_age_ms() >= self._seal_seconds * 1000:
                self.intake.commit()
                writer.seal()
            now_s = trio.current_time()
            if now_s >= look_due:
                look_due = now_s + 1
                self.room.look(self._doubt())
                self._note_control()
                self.scores.relax(self._clock.now_ms())
                self.issuer_trouble.look(self._clock.now_ms(), self.breaker.sizes)
                await self._delete_loaded()
                behind = self.spool.waiting() > BEHIND_SEGMENTS
                self._seal_seconds = settings.segment_seconds * (BEHIND_TIMES if behind else 1)

    async def _delete_loaded(self) -> None:
        """In a thread: to unlink a few segments takes the file system up to 20 ms. A cursor that cannot be believed is
        load's trouble: it ends the deleting, never the receiving."""
        try:
            await trio.to_thread.run_sync(self.spool.delete_loaded)
            self._cursor_trouble = ""
        except SpoolError as error:
            if str(error) != self._cursor_trouble:
                self._cursor_trouble = str(error)
                _log.error("nothing_is_deleted", error=self._cursor_trouble)

    async def _checkpoints(self) -> None:
        """Begins a checkpoint every `spool.checkpoint_seconds`, and takes half of that time for it."""
        every_s = self._config.spool.checkpoint_seconds
        due_s = trio.current_time() + every_s
        while True:
            await trio.sleep(HOUSEKEEPING_SECONDS)
            now_s = trio.current_time()
            if now_s >= due_s:
                due_s = now_s + every_s
                await self._checkpoint(over_s=every_s / 2)

    async def _checkpoint(self, over_s: float) -> None:
        """Behind a seal, the position; then the devices changed up to it, a few at a time, spread over `over_s`.

        A device is saved as it is when its turn comes, with everything in it committed: a crash may lose no message
        that its window in the checkpoint would call a duplicate.
        """
        self.intake.commit()
        self.spool.writer.seal()
        position, changed = self.spool.writer.next_segment - 1, self.fleet.changed()
        fault.point("checkpoint.begun")
        for start in range(0, len(changed), CHECKPOINT_DEVICES):
            self.intake.commit()
            with trio.CancelScope(shield=True):  # what is taken is saved, or the next position would pass over it
                devices = self.fleet.take(changed[start : start + CHECKPOINT_DEVICES], self._clock.now_ms())
                await trio.to_thread.run_sync(self.spool.checkpoint.save, devices)
            fault.point("checkpoint.saved")
            await trio.sleep(over_s * CHECKPOINT_DEVICES / len(changed))
        if changed or position != self.spool.checkpoint.segment():
            await trio.to_thread.run_sync(
                self._advance, position, [*self.breaker.now_open(), *self.issuer_trouble.now_open()]
            )
            fault.point("checkpoint.advanced")
        self.fleet.forget_idle(self._clock.monotonic())
        await self._census.count_if_due()

    def _advance(self, position: int, alerts: list[AlertRecord]) -> None:
        self.spool.checkpoint.keep_alerts(alerts)
        self.spool.checkpoint.advance(position)

    def _replace_policy(self, config: Config, door: Door) -> None:
        """Another `[policy]` and other `[limits]`, from the next message on."""
        policy = msgspec.structs.replace(self.intake.policy, version=config.policy.version)
        self.intake.replace_policy(policy, config.policy)
        door.replace_policy(config.policy.version)
        if self._limits.replace(config.limits):
            self.fleet.limits_replaced()

    def _note_control(self) -> None:
        """Flags what is accepted while control is away: revocations may be missing."""
        flags = 0 if self.registry.answers else Flag.STALE_REVOCATION.value
        if flags != self.intake.policy.standing_flags:
            self.intake.policy = msgspec.structs.replace(self.intake.policy, standing_flags=flags)

    def spool_age_seconds(self) -> float:
        return self.spool.oldest_age_ms(self._clock.now_ms()) / 1000


def serve(config: Config, clock: Clock, entropy: Entropy = os.urandom, file: Path | None = None) -> None:
    """Runs an edge in this process until it is told to stop. `file` is where `config` stands: it is watched. Raises
    FleetgateError."""
    try:
        trio.run(_serve, config, clock, entropy, file)
    except BaseExceptionGroup as group:
        raise first_of(group) from group


async def _serve(config: Config, clock: Clock, entropy: Entropy, file: Path | None) -> None:
    files = Replacement(config, file)  # first: what is wrong with them is not to be waited for
    store = await _patiently(lambda: Store.open(config, clock))
    await Edge(config, files, store, clock, entropy).run()


async def _patiently(ask: Callable[[], _Answer]) -> _Answer:
    """Waits for control for a while: without it no device of the spool can be told from a stranger. Raises ControlAway
    when it is away for longer."""
    deadline = trio.current_time() + CONTROL_PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except ControlAway as error:
            if trio.current_time() > deadline:
                raise
            _log.warning("waiting_for_control", error=str(error))
            await trio.sleep(1)


def _listen(setting: str, address: str) -> socket.socket:
    host, port = host_and_port(setting, address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"{setting}: cannot listen on {address}: {error}") from None
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener
