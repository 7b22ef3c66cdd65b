"""The devices this edge has in memory, each joined from its record of control and its checkpoint.

Built when a device first connects (or is replayed from the spool); forgotten again when it is idle and the checkpoint
holds all of it. Who may connect is not decided here (`registry`); what is known of a device stands in `known`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fleetgate.accept.denials import REFUSAL_OF_STATUS, WHOLE_DEVICE
from fleetgate.accept.known import Key, KnownDevice, issuer_of
from fleetgate.accept.limits import Limits
from fleetgate.accept.standing import Part, Standing
from fleetgate.control.profile import CertificateIdentity
from fleetgate.control.records import CredentialStatus, DeviceRecord, DeviceState
from fleetgate.control.states import View
from fleetgate.judge import Credential, Peer, Reason
from fleetgate.judge.freshness import MAX_AGE_MS
from fleetgate.judge.keys import MacKeys
from fleetgate.judge.mac import FORMER_CREDENTIAL_MS
from fleetgate.judge.sequence import Window
from fleetgate.spool import checkpoint

FORMER_CREDENTIALS = 2
FORMER_SESSIONS_MS = MAX_AGE_MS
"""A device whose renewal got lost goes on under its former certificate, as long as a message may be old, and asks again
meanwhile. After that it can only ask."""
IDLE_SECONDS = 300.0  # a device comes back within minutes or after hours; its windows wait in the checkpoint
ASTRAY_SECONDS = 86_400.0  # of one whose numbers have gone back, nothing else remembers how


class Fleet:
    """All devices in memory, by (tenant, device id). `roots` are the MAC root keys by key id, `limits` are where each
    has its account."""

    def __init__(self, roots: Mapping[int, bytes | None], limits: Limits) -> None:
        self._roots = roots
        self.limits = limits
        self._known: dict[Key, KnownDevice] = {}
        self._dirty: dict[Key, KnownDevice] = {}

    def __len__(self) -> int:
        return len(self._known)

    def replace_roots(self, roots: Mapping[int, bytes | None]) -> None:
        """Other root keys, from the next message on: keys that were derived before are forgotten."""
        self._roots = roots
        for known in self._known.values():
            for credential in known.credentials.values():
                credential.macs = MacKeys(roots, known.device.tenant, known.device.device_id, credential.key_digest)

    def limits_replaced(self) -> None:
        """Other limits, from the next message on."""
        for known in self._known.values():
            known.account = self.limits.device(*known.key)

    def get(self, key: Key) -> KnownDevice | None:
        return self._known.get(key)

    def all(self) -> Iterable[KnownDevice]:
        return self._known.values()

    def add(self, record: DeviceRecord, saved: checkpoint.DeviceState | None, now_s: float) -> KnownDevice:
        """Takes a device into memory; one that is there already stays as it is, its record is updated."""
        known = self._known.get((record.tenant, record.device_id))
        if known is None:
            known = self._build(record, saved, now_s)
            self._known[known.key] = known
        self.update(known, record)
        return known

    def _build(self, record: DeviceRecord, saved: checkpoint.DeviceState | None, now_s: float) -> KnownDevice:
        account = self.limits.device(record.tenant, record.device_id)
        if saved is None:
            known = KnownDevice(record, Standing(record.state, record.state_at_ms, record.decided_at_ms), account)
        else:
            parts = {each.signal: Part(each.score, each.at) for each in saved.scores}
            standing = Standing(DeviceState(saved.state), saved.state_at, saved.decided_at, parts)
            known = KnownDevice(record, standing, account)
            known.device.epoch, known.timeline.epoch_sent_at = saved.epoch, saved.epoch_sent_at
            known.device.kid, known.device.kid_at = saved.kid, saved.kid_at
            known.software, known.issuer = saved.software, saved.issuer
            known.before_trouble = saved.before_trouble
            for window in saved.windows:
                credential = self.credential(known, window.key_digest)
                credential.windows.by_epoch[window.epoch] = Window(window.highest, window.newest_sent_at, window.slots)
        known.idle_since = now_s
        return known

    def credential(self, known: KnownDevice, key_digest: bytes) -> Credential:
        """The device's credential of that key, made when it is not there: its windows outlive its record."""
        credential = known.credentials.get(key_digest)
        if credential is None:
            macs = MacKeys(self._roots, known.device.tenant, known.device.device_id, key_digest)
            credential = known.credentials[key_digest] = Credential(key_digest, b"", macs)
        return credential

    def update(self, known: KnownDevice, record: DeviceRecord) -> None:
        """Lets a newer control record take effect, from the next message on."""
        known.record = record
        known.device.vehicle_id = record.vehicle_id or ""
        revoked = {entry.key_digest for entry in record.credentials if entry.status is CredentialStatus.REVOKED}
        for entry in reversed(record.credentials):  # newest last, so that it stands where two have one key
            credential = self.credential(known, entry.key_digest)
            credential.fingerprint = entry.fingerprint
            credential.ended_at_ms = entry.ended_at_ms
            credential.refusal = Reason.REVOKED if entry.key_digest in revoked else None
        if known.standing.adopt(View(record.state, record.state_at_ms, record.decided_at_ms)):
            self.touch(known)
        self.settle(known)

    def deny(self, known: KnownDevice, now_ms: int) -> None:
        """Lets those of its denials take effect whose time has come."""
        known.denied = None
        for name, denial in known.denials.items():
            if denial.from_ms > now_ms:
                continue
            if name == WHOLE_DEVICE:
                known.denied = denial.reason
            elif (credential := known.credentials.get(name)) is not None:
                credential.refusal = denial.reason
        self.settle(known)

    def settle(self, known: KnownDevice) -> None:
        """Derives what the judge reads from record and standing."""
        known.device.held = known.standing.state is DeviceState.QUARANTINED
        if known.standing.state is DeviceState.BANNED:
            known.device.refusal = Reason.BANNED
        else:
            known.device.refusal = REFUSAL_OF_STATUS[known.record.status] or known.denied

    def peer(
        self, known: KnownDevice, identity: CertificateIdentity, now_ms: int, *, json_allowed: bool
    ) -> Peer | None:
        """The judge's view of a connection with this certificate; None when no session may begin with it."""
        if not self.admits(known, identity, now_ms):
            return None
        presented = known.credentials[identity.key_digest]
        presented.fingerprint = identity.fingerprint  # of the certificate that is really there
        issuer = issuer_of(identity)
        if issuer and issuer != known.issuer:
            known.issuer = issuer
            self.touch(known)
        former = [
            known.credentials[entry.key_digest]
            for entry in known.record.credentials
            if entry.status is CredentialStatus.FORMER
            and entry.key_digest != identity.key_digest
            and entry.ended_at_ms is not None
            and now_ms - entry.ended_at_ms <= FORMER_CREDENTIAL_MS
        ]
        former.sort(key=lambda credential: -(credential.ended_at_ms or 0))
        return Peer(known.device, presented, tuple(former[:FORMER_CREDENTIALS]), json_allowed=json_allowed)

    def admits(self, known: KnownDevice, identity: CertificateIdentity, now_ms: int) -> bool:
        """Whether the records have this credential, and, of a former one, whether it may still be what the device has:
        for a week after it was renewed, and until a message under a newer one was accepted (docs/adr/0007)."""
        newer_has_signed = False
        for entry in known.record.credentials:  # newest first
            if entry.key_digest == identity.key_digest:
                if entry.status is not CredentialStatus.FORMER:
                    return True  # a revoked one is told that it is
                ended_ms = entry.ended_at_ms
                return not newer_has_signed and ended_ms is not None and now_ms - ended_ms <= FORMER_SESSIONS_MS
            newer = known.credentials.get(entry.key_digest)
            newer_has_signed = newer_has_signed or (newer is not None and bool(newer.windows.by_epoch))
        return False

    def touch(self, known: KnownDevice) -> None:
        """Marks a device as changed since the last checkpoint."""
        if not known.dirty:
            known.dirty = True
            self._dirty[known.key] = known

    def changed(self) -> list[Key]:
        """The devices that changed since they were last taken for the checkpoint."""
        return list(self._dirty)

    def take(self, keys: Iterable[Key], now_ms: int) -> list[checkpoint.DeviceState]:
        """Frozen copies, for the checkpoint, of those of these devices that changed. Forgets windows of no use.

        Call it when everything received is committed: what is in the checkpoint must be in the spool.
        """
        taken = [known for key in keys if (known := self._dirty.pop(key, None)) is not None]
        for known in taken:
            known.dirty = False
        return [_freeze(known, now_ms) for known in taken]

    def forget_idle(self, now_s: float) -> None:
        """Drops devices that are idle and whole in the checkpoint. Call it right after a checkpoint became durable."""
        for key, known in list(self._known.items()):
            kept_s = ASTRAY_SECONDS if known.timeline.astray else IDLE_SECONDS
            if known.session is None and not known.dirty and now_s - known.idle_since > kept_s:
                self.limits.keep(*key, known.account, now_s)
                del self._known[key]


def _freeze(known: KnownDevice, now_ms: int) -> checkpoint.DeviceState:
    windows = []
    for credential in known.credentials.values():
        credential.windows.forget(known.device.epoch, now_ms - MAX_AGE_MS)
        windows += [
            checkpoint.WindowState(
                credential.key_digest, epoch, window.highest, window.newest_sent_at, window.slots.tobytes()
            )
            for epoch, window in credential.windows.by_epoch.items()
        ]
    standing = known.standing
    return checkpoint.DeviceState(
        *known.key,
        known.device.epoch,
        standing.state.value,
        standing.state_at,
        known.device.kid,
        known.device.kid_at,
        known.software,
        known.issuer,
        now_ms,
        standing.decided_at,
        known.timeline.epoch_sent_at,
        known.before_trouble,
        [checkpoint.ScoreState(name, *part) for name, part in standing.parts.items()],
        windows,
    )
