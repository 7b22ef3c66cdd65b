"""The edge process: puts the rooms of `accept` together, recovers, serves, drains.

Decides the order of start and stop. What happens every so often is `upkeep`'s and `checkpointing`'s. Starting after a
kill is the normal start. An error of the spool ends the process: recovery decides.
"""

from __future__ import annotations

import gc
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
from fleetgate.accept.changes import Follower
from fleetgate.accept.checkpointing import Checkpointing
from fleetgate.accept.contact import Contact
from fleetgate.accept.counts import Counts, EdgeCollector
from fleetgate.accept.denials import DenialMemory
from fleetgate.accept.door import Door
from fleetgate.accept.entrance import Entrance
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.handshakes import Handshakes
from fleetgate.accept.http import VehicleApp
from fleetgate.accept.https import HttpsServer
from fleetgate.accept.intake import Intake
from fleetgate.accept.issuertrouble import KINDS, IssuerTrouble
from fleetgate.accept.known import KnownDevice
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
from fleetgate.accept.turns import Turns
from fleetgate.accept.upkeep import Upkeep
from fleetgate.accept.vetting import Vetting
from fleetgate.accept.witness import Witness
from fleetgate.admin import AdminServer
from fleetgate.catalogue import catalogue
from fleetgate.clock import Clock, Entropy
from fleetgate.config import Config, host_and_port
from fleetgate.control.breaker import overrides
from fleetgate.control.cases import found_harmless
from fleetgate.control.records import DeviceState
from fleetgate.control.spools import known_spools
from fleetgate.control.store import Store
from fleetgate.ending import asked_to_end
from fleetgate.errors import ConfigError, ControlAway, first_of
from fleetgate.evidence.keeper import Keeper
from fleetgate.judge import Policy
from fleetgate.sdnotify import ServiceManager
from fleetgate.spool.home import Known, Spool

BACKLOG = 4096
CONTROL_PATIENCE_SECONDS = 60.0

_log = log.get("accept.edge")
_Answer = TypeVar("_Answer")


class Edge:
    """One edge; `run` serves until SIGTERM or SIGINT. `files` are its keys and certificates, `store` is control."""

    def __init__(self, config: Config, files: Replacement, store: Store, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._manager = ServiceManager()
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
        denials = DenialMemory(self.spool.directory / "denials.db")
        policy = Policy(config.policy.version, catalogue().bodies, fence_ms=self.spool.identity.fence_ms)
        self.counts = Counts(self.registry_of_metrics)
        self._limits = Limits(config.limits, self.counts.limit_hits)
        self.fleet = Fleet(self.files.now.keyring.roots, self._limits)
        self.contact = Contact(clock, config.edge.control_grace_seconds)
        self.registry = Registry(store, denials, self.spool.checkpoint, self.fleet, self.contact, clock)
        self.changes = Follower(self.registry, store, denials, self.fleet, self.contact, clock, config.edge.id)
        self._config = msgspec.structs.replace(config, edge=descriptors.fit(config.edge))
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
        self._upkeep = Upkeep(
            self.spool,
            config.spool.segment_seconds,
            self.fleet,
            self.contact,
            self.intake,
            self.room,
            self.breaker,
            self.issuer_trouble,
            clock,
        )
        self._checkpoints = Checkpointing(
            self.spool, self.fleet, self.intake, self.breaker, self.issuer_trouble, self._census, clock
        )
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
        self._upkeep.look()
        mqtt_socket = _listen("edge.mqtt_listen", self._config.edge.mqtt_listen)
        https_socket = _listen("edge.https_listen", self._config.edge.https_listen)
        door = Door(self.registry, self.vetting, self.fleet, self.room, self.intake, self._config, self._clock)
        handshakes = Handshakes(self._limits, self.vetting, self.registry, self.fleet, self._clock)
        turns = Turns()
        entrance = Entrance(
            mqtt_socket,
            turns,
            self.files.now.mqtt,
            self.vetting,
            self._proxies,
            self._limits,
            handshakes,
            self.counts,
            self._clock,
        )
        loop = SocketLoop(turns, entrance, self._config.edge, self.intake, door, self.room, self._limits, self._clock)

        def changed(known: KnownDevice, decided_ms: int) -> None:
            self.scores.tell_again(known)
            door.device_changed(known, decided_ms)

        self.registry.on_change, self.scores.on_state = changed, door.device_changed
        self.registry.on_taken = self.scores.taken
        self.changes.on_overrides = self.breaker.override
        self.changes.on_suspicion = self.scores.suspect
        self.changes.on_grace_over = loop.send_away
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
            handshakes,
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
                for room in (self.registry, self.changes, self.intake, self.files, self.lists, loop, https):
                    nursery.start_soon(room.run)
                nursery.start_soon(self._upkeep.run, self._manager)
                nursery.start_soon(self._checkpoints.run, self._config.spool.checkpoint_seconds)
                _log.info("ready", mqtt=self._config.edge.mqtt_listen, https=self._config.edge.https_listen)
                self._manager.ready()
                await asked.wait()
                self._manager.stopping()
                await self._drain(loop, https)
                nursery.cancel_scope.cancel()
        await self._checkpoints.save(over_s=0)
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
            self.scores.restore(held, recovery.standing(DeviceState.WATCHED))
        for known in recovery.untold():
            self.scores.tell_again(known)
        self.intake.commit()
        fault.point("recover.replayed")

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
            while not loop.connections.empty or self.counts.connections["https"]:  # noqa: ASYNC110  two rooms to be empty
                await trio.sleep(0.05)

    def _replace_policy(self, config: Config, door: Door) -> None:
        """Another `[policy]` and other `[limits]`, from the next message on."""
        policy = msgspec.structs.replace(self.intake.policy, version=config.policy.version)
        self.intake.replace_policy(policy, config.policy)
        door.replace_policy(config.policy.version)
        if self._limits.replace(config.limits):
            self.fleet.limits_replaced()

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
