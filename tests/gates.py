"""An edge without sockets: a real spool, fleet, intake and sessions, driven by hand.

Stands in for two things only: the records of control are values of the test (`enrol`), and the doorkeeper of a session
answers from them as the socket loop does. A kill is leaving the spool as it is and reopening the directory.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import mqtt5
import msgspec
from prometheus_client.registry import CollectorRegistry

from fleetgate.accept.breaker import Breaker
from fleetgate.accept.counts import Counts
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.intake import Intake
from fleetgate.accept.known import Caller, Key, KnownDevice
from fleetgate.accept.limits import Limits
from fleetgate.accept.mqtt import Phase, Session
from fleetgate.accept.recovery import Recovery
from fleetgate.accept.registry import Registry
from fleetgate.accept.scorekeeper import Scorekeeper
from fleetgate.config import Limits as LimitSettings
from fleetgate.config import Policy as PolicySettings
from fleetgate.control.profile import CertificateIdentity
from fleetgate.control.records import CredentialRecord, CredentialStatus, DeviceRecord, DeviceState, DeviceStatus
from fleetgate.judge import Verdict
from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.home import Spool
from tests.spools import SetClock
from tests.units import DEVICE_ID, KEY_DIGEST, NOW, POLICY, ROOTS, TENANT, TOPIC

FINGERPRINT = hashlib.sha256(KEY_DIGEST).digest()
NEVER = 2**53
IDENTITY = CertificateIdentity(TENANT, DEVICE_ID, FINGERPRINT, KEY_DIGEST, NEVER)
_ticks = itertools.count()


def credential(
    digest: bytes = KEY_DIGEST, status: CredentialStatus = CredentialStatus.ACTIVE, ended_at_ms: int | None = None
) -> CredentialRecord:
    return CredentialRecord(digest, hashlib.sha256(digest).digest(), 1, status, NOW + 10**9, ended_at_ms)


def record(device_id: str = DEVICE_ID, **changed: Any) -> DeviceRecord:
    """An active, trusted device with one credential, but for what is given."""
    plain = DeviceRecord(TENANT, device_id, "veh-0001", DeviceStatus.ACTIVE, DeviceState.TRUSTED, 0, (credential(),))
    if changed.get("state") in (DeviceState.RELEASED, DeviceState.BANNED):  # only a person's decision leads there
        changed.setdefault("decided_at_ms", changed.get("state_at_ms", 0))
    return msgspec.structs.replace(plain, **changed)


class Records(Registry):
    """Control as values: what `load` finds. The database and its thread are tested with the registry itself."""

    def __init__(self, fleet: Fleet, saved: Checkpoint, records: Iterable[DeviceRecord]) -> None:
        self._fleet = fleet
        self._saved = saved
        self._records = {(found.tenant, found.device_id): found for found in records}

    def load(self, keys: list[Key]) -> None:
        for key in keys:
            if key in self._records:
                self._fleet.add(self._records[key], self._saved.device(*key), 0.0)


class Gate:
    """An edge on the spool at `directory` whose control knows `records`."""

    def __init__(
        self,
        directory: Path,
        *records: DeviceRecord,
        settings: PolicySettings | None = None,
        limits: LimitSettings | None = None,
        clock: SetClock | None = None,
    ) -> None:
        self.directory = directory
        self.records = list(records) or [record()]
        self.settings = settings or PolicySettings()
        self.limit_settings = limits or LimitSettings()
        self.clock = clock or SetClock()
        self.start()

    def start(self) -> None:
        self.spool = Spool(self.directory, self.clock, os.urandom)
        self.counts = Counts(CollectorRegistry())
        self.breaker = Breaker("edge-1", self.settings.quarantined_score)
        self.limits = Limits(self.limit_settings, self.counts.limit_hits)
        self.fleet = Fleet(ROOTS, self.limits)
        writer = self.spool.writer
        self.scores = Scorekeeper(writer, self.fleet, self.breaker, self.settings, self.counts, self.clock)
        self.intake = Intake(writer, self.fleet, self.scores, POLICY, self.counts, self.clock)

    def kill(self) -> None:
        """The process is gone: nothing is flushed, and the lock falls."""
        self.spool.close()

    close = kill

    def kill_and_recover(self) -> int:
        """A start after a kill; how many messages were replayed."""
        self.kill()
        self.start()
        registry = Records(self.fleet, self.spool.checkpoint, self.records)
        recovery = Recovery(self.spool, registry, self.fleet, self.settings)
        recovery.run()
        return recovery.messages

    def checkpoint(self) -> None:
        for _ in self.checkpointing():
            pass

    def checkpointing(self) -> Iterator[None]:
        """As the edge does: behind a seal, here and now, the position; then changed devices one by one."""
        self.intake.commit()
        self.spool.writer.seal()
        return self._save_changed(self.spool.writer.next_segment - 1, self.fleet.changed())

    def _save_changed(self, position: int, changed: list[Key]) -> Iterator[None]:
        for key in changed:
            self.intake.commit()
            self.spool.checkpoint.save(self.fleet.take([key], self.clock.ms))
            yield
        self.spool.checkpoint.advance(position)

    def known(self, device_id: str = DEVICE_ID) -> KnownDevice:
        """The device, taken into memory as a first connection does."""
        found = next(each for each in self.records if each.device_id == device_id)
        was_away = self.fleet.get((TENANT, device_id)) is None
        known = self.fleet.add(found, self.spool.checkpoint.device(TENANT, device_id), self.clock.monotonic())
        if was_away:
            self.scores.taken(known)
        return known

    def caller(self, device_id: str = DEVICE_ID, digest: bytes = KEY_DIGEST) -> Caller:
        known = self.known(device_id)
        identity = CertificateIdentity(TENANT, device_id, hashlib.sha256(digest).digest(), digest, NEVER)
        peer = self.fleet.peer(known, identity, self.clock.ms, json_allowed=False)
        assert peer is not None
        return Caller(known, peer, "[::1]:1", "mqtt", "edge-1", self.settings.version)

    def receive(self, raw: bytes, caller: Caller | None = None, topic: bytes | None = None) -> Verdict:
        return self.intake.receive(caller or self.caller(), raw, topic, self.clock.ms)

    def session(
        self,
        *,
        identity: CertificateIdentity | None = IDENTITY,
        profile_error: str = "",
        door: Doorkeeper | None = None,
    ) -> Session:
        """Its connection comes, and is through with its handshake, behind all that were made before."""
        keeper, now_s, handshake_s = door or Doorkeeper(self), self.clock.monotonic(), (next(_ticks), next(_ticks))
        return Session(identity, profile_error, "[::1]:1", self.intake, keeper, 300, now_s, handshake_s)

    def live(self, **connect: Any) -> Session:
        """A session that has its CONNACK."""
        session = self.session()
        feed(session, self.clock, mqtt5.ConnectPacket(DEVICE_ID, **connect).write())
        assert session.phase is Phase.LIVE
        session.out.clear()
        return session


class Doorkeeper:
    """Answers as the loop does: at once, or, where it `waits`, when the test calls `answer`."""

    def __init__(self, gate: Gate, *, waits: bool = False) -> None:
        self.gate = gate
        self.waits = waits

    def identify(self, session: Session) -> None:
        if not self.waits:
            self.answer(session)

    def answer(self, session: Session) -> None:
        caller = self.gate.caller()
        if caller.known.session is not None:
            caller.known.session.give_way(session, self.gate.clock.ms)
        caller.known.session = session
        session.welcome(caller, self.gate.clock.ms)


def feed(session: Session, clock: SetClock, data: bytes) -> None:
    session.feed(data, clock.ms, clock.monotonic())


def score_of(gate: Gate, known: KnownDevice) -> float:
    """A device's score now."""
    return known.standing.score(gate.clock.ms, gate.settings)


def publish(raw: bytes, packet_id: int = 1, topic: bytes = TOPIC, qos: int = 1, **options: Any) -> bytes:
    """A PUBLISH with the topic as a string of the codec."""
    level = mqtt5.QoS(qos)
    return mqtt5.PublishPacket(topic.decode(), raw, qos=level, packet_id=packet_id if qos else None, **options).write()


def packets_in(data: bytes) -> list[Any]:
    """What the codec reads in bytes that were sent to a vehicle."""
    found, at = [], 0
    while at < len(data):
        packet, size = mqtt5.read(memoryview(data)[at:])
        found.append(packet)
        at += size
    return found


def memory(gate: Gate) -> dict[object, object]:
    """All that recovery must bring back: states, scores, epochs and windows of every device."""
    found: dict[object, object] = {}
    for known in gate.fleet.all():
        windows = {
            (digest, epoch): (window.highest, window.newest_sent_at, window.slots.tobytes())
            for digest, each in known.credentials.items()
            for epoch, window in each.windows.by_epoch.items()
        }
        found[known.key] = (
            (known.device.epoch, known.device.kid, known.device.kid_at),
            known.standing.state,
            known.standing.state_at,
            known.standing.decided_at,
            known.timeline.epoch_sent_at,
            known.standing.parts,
            known.device.held,
            windows,
        )
    return found
