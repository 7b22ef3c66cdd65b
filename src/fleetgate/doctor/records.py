"""What the gate's own machine knows of a device: its records, its root keys, its rules about CAs, its own certificate.

Decides which of these are at hand; each is looked at by itself, so that one that is away hides nothing of the others.
Reads only. What a status means for a connection is decided by the edge (`accept.fleet`).
"""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from fleetgate.accept.vetting import NobodyKnows, Vetting
from fleetgate.clock import Clock
from fleetgate.config import Config
from fleetgate.control.chain import Paths
from fleetgate.control.issuers import Issuers
from fleetgate.control.keyring import Keyring
from fleetgate.control.profile import ProfileError, key_digest_of
from fleetgate.control.records import CredentialStatus, DeviceState, DeviceStatus
from fleetgate.control.revocation import MAX_LIST_BYTES, ListError, RevocationLists, read_list
from fleetgate.control.roster import CredentialDetail, DeviceDetail, show_device
from fleetgate.control.store import Store
from fleetgate.doctor.certificate import Chain, at, day, der, find_gap
from fleetgate.doctor.files import DeviceFile, Unusable, read_certificates
from fleetgate.doctor.findings import Check, Finding, Who, cannot_tell, good, wrong
from fleetgate.errors import ConfigError, FleetgateError, NotFound
from fleetgate.judge.keys import derive_mac_key

RECORDS, MAC_KEY, GATE_CERTIFICATE = "records", "MAC key", "gate's certificate"
ISSUER, LISTS = "issuer", "revocation lists"
AS_EDGE = "run this on the gate's machine, as the user of its edge"

_STATUS = {
    DeviceStatus.SUSPENDED: Finding.SUSPENDED,
    DeviceStatus.BANNED: Finding.BANNED,
    DeviceStatus.DECOMMISSIONED: Finding.DECOMMISSIONED,
}


class GateMachine:
    """What is at hand of a gate: everything on its own machine, perhaps a keyring elsewhere, nothing on a vehicle."""

    def __init__(self, config: Config, clock: Clock, *, configured: bool, keyring: Path | None = None) -> None:
        """`configured`: a configuration file was found; `keyring` is a file that was asked for by name."""
        self._config = config
        self._clock = clock
        self._named_keyring = keyring
        self.trust_bundle = config.path(config.edge.trust_bundle)
        self.here = configured or self.trust_bundle.exists()
        self.trust_domain = config.trust_domain if self.here else None

    @property
    def has_keyring(self) -> bool:
        return self.here or self._named_keyring is not None

    def check_records(self, who: Who, leaf: x509.Certificate | None) -> tuple[list[Check], DeviceDetail | None]:
        """What the records say of the device, and of the certificate it shows."""
        try:
            with Store.open(self._config, self._clock) as store:
                detail = show_device(store, who.tenant, who.device_id)
        except NotFound:
            what = f"there is no device {who.device_id} of tenant {who.tenant}"
            return [wrong(RECORDS, Finding.UNKNOWN_DEVICE, what)], None
        except FleetgateError as error:
            return [cannot_tell(RECORDS, str(error), AS_EDGE)], None
        found = [*_of_device(detail), *(_of_credential(detail, leaf) if leaf is not None else [])]
        vehicle = f"sits in {detail.vehicle_id}" if detail.vehicle_id else "sits in no vehicle"
        return found or [good(RECORDS, f"the device is {detail.status} and {detail.state}, and {vehicle}")], detail

    def check_mac_key(self, who: Who, leaf: x509.Certificate, device: DeviceFile, detail: DeviceDetail | None) -> Check:
        """Whether device.json has the MAC key that the gate derives for this certificate, and under which root."""
        try:
            keyring = Keyring.load(self._named_keyring or self._config.path(self._config.edge.keyring))
        except FleetgateError as error:
            return cannot_tell(MAC_KEY, str(error), AS_EDGE)
        kid, root, entry = device.kid, keyring.root(device.kid), _entry_of(detail, leaf)
        if kid in keyring.withdrawn:
            what = f"root key {kid} was withdrawn: nothing is accepted under it any more"
            return wrong(MAC_KEY, Finding.ROOT_WITHDRAWN, what)
        if kid not in keyring.roots:
            known = ", ".join(map(str, sorted(keyring.roots)))
            return wrong(MAC_KEY, Finding.WRONG_KID, f"device.json says key id {kid}, the keyring has {known}")
        if root is None:
            return wrong(MAC_KEY, Finding.WRONG_KID, f"root key {kid} is retired: nothing is accepted under it")
        derived = derive_mac_key(root, who.tenant, who.device_id, key_digest_of(leaf.public_key()))
        if compare_digest(derived, device.mac_key):
            return good(MAC_KEY, f"it is the one that the gate derives under root key {kid}")
        if entry is not None and entry.kid != kid:
            what = f"device.json says key id {kid}, the records {entry.kid}, and the key is not that of {kid}"
            return wrong(MAC_KEY, Finding.WRONG_KID, what)
        what = f"the gate derives another one for this certificate under root key {kid}"
        return wrong(MAC_KEY, Finding.WRONG_MAC_KEY, what)

    def check_vetting(self, chain: Chain, anchors: Sequence[x509.Certificate], now_ms: int) -> list[Check]:
        """What the edge asks of a good chain besides: may its CA speak for the tenant, do revocation lists name it."""
        paths = Paths(anchors)
        path = [der(one) for one in paths.verified(chain.leaf, chain.sent, now_ms)]
        try:
            vetting = Vetting(self.trust_domain or "", paths, Issuers.load(self._config, anchors), self._clock)
            vetting.lists, found = self._lists(anchors, now_ms)
        except ConfigError as error:
            return [cannot_tell(ISSUER, str(error), AS_EDGE)]
        try:
            refusal = vetting.refusal(vetting.identity(path[0], path))
        except NobodyKnows:
            what = (
                "a revocation list of its CA is past nextUpdate and edge.crl_grace_seconds: nobody is let in under it"
            )
            return [*found, wrong(LISTS, Finding.LIST_EXPIRED, what)]
        except ProfileError as error:
            return [*found, wrong(ISSUER, Finding.ISSUER_NOT_ALLOWED, str(error))]
        if refusal is not None:
            return [*found, wrong(LISTS, Finding.REVOKED, "a revocation list names it, or a CA above it")]
        return found

    def _lists(self, anchors: Sequence[x509.Certificate], now_ms: int) -> tuple[RevocationLists, list[Check]]:
        """Those that are files here; what stands at a URL is known to the edge."""
        lists, found = [], []
        for entry in self._config.crls:
            if entry.url:
                why = f"{entry.url} is fetched by the edge, and not looked at here"
                found.append(cannot_tell(LISTS, why, "connect with --mqtt: the gate refuses whom the list names"))
                continue
            path = self._config.path(entry.file)
            try:
                with path.open("rb") as file:
                    content = file.read(MAX_LIST_BYTES + 1)
                lists.append(read_list(content, anchors, now_ms, only_cas=entry.only_cas))
            except (OSError, ListError) as error:
                found.append(cannot_tell(LISTS, f"{path}: {getattr(error, 'strerror', None) or error}", AS_EDGE))
        return RevocationLists(lists, self._config.edge.crl_grace_seconds * 1000), found

    def check_server(self, cas: Sequence[x509.Certificate], now_ms: int) -> Check:
        """Whether the device's CA file verifies the certificate that this gate shows."""
        try:
            leaf, *sent = read_certificates(self._config.path(self._config.edge.certificate))
        except Unusable as error:
            return cannot_tell(GATE_CERTIFICATE, f"edge.certificate: {error}")
        gap = find_gap(Chain(leaf, sent), cas, now_ms)
        if gap is not None:
            return wrong(GATE_CERTIFICATE, Finding.SERVER_UNVERIFIED, f"the CA file does not verify it: {gap[1]}")
        if not leaf.not_valid_before_utc <= at(now_ms) <= leaf.not_valid_after_utc:
            return wrong(GATE_CERTIFICATE, Finding.SERVER_EXPIRED, f"it ended on {day(leaf.not_valid_after_utc)}")
        return good(GATE_CERTIFICATE, "the CA file verifies it")


def _entry_of(detail: DeviceDetail | None, leaf: x509.Certificate) -> CredentialDetail | None:
    """The records' entry of exactly this certificate."""
    fingerprint = leaf.fingerprint(SHA256()).hex()
    return next((entry for entry in detail.credentials if entry.fingerprint == fingerprint), None) if detail else None


def _of_device(detail: DeviceDetail) -> list[Check]:
    if (finding := _STATUS.get(DeviceStatus(detail.status))) is not None:
        return [wrong(RECORDS, finding, f"{detail.device_id} of {detail.tenant} is {detail.status}{_by_whom(detail)}")]
    if detail.state == DeviceState.BANNED:
        return [wrong(RECORDS, Finding.BANNED, f"{detail.device_id} of {detail.tenant} is banned{_by_whom(detail)}")]
    if detail.state == DeviceState.QUARANTINED:
        return [wrong(RECORDS, Finding.QUARANTINED, f"{detail.device_id} of {detail.tenant} is in quarantine")]
    return []


def _by_whom(detail: DeviceDetail) -> str:
    """Since when, and why."""
    taken = detail.kept_out_by
    if taken is None:
        return ""
    return f" since {day(at(taken.at_ms))}" + (f": {taken.reason}" if taken.reason else "")


def _of_credential(detail: DeviceDetail, leaf: x509.Certificate) -> list[Check]:
    entry, shown = _entry_of(detail, leaf), f"certificate {leaf.fingerprint(SHA256()).hex()[:12]}..."
    if entry is None:
        what = f"{detail.device_id} of {detail.tenant} is known, but not with {shown}"
        return [wrong(RECORDS, Finding.UNKNOWN_CERTIFICATE, what)]
    since = f" since {day(at(entry.ended_at_ms))}" if entry.ended_at_ms is not None else ""
    if entry.status == CredentialStatus.REVOKED:
        reason = f": {entry.reason}" if entry.reason else ""
        return [wrong(RECORDS, Finding.REVOKED, f"{shown} is revoked{since}{reason}")]
    if entry.status == CredentialStatus.FORMER:
        return [wrong(RECORDS, Finding.FORMER_CERTIFICATE, f"{shown} was replaced by a newer one{since}")]
    return []
