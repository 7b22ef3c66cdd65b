"""What the doctor can find: a closed set of names, what each means, and how it is mended.

docs/reference/doctor.md has the same table, and a test compares. What was found in a particular case is said by the
check that found it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec
from msgspec import Struct


class Says(StrEnum):
    """How a check ended. CANNOT_TELL: what it needs is not here; what to do about that stands beside it."""

    OK = "ok"
    WRONG = "wrong"
    CANNOT_TELL = "cannot tell"


class Finding(StrEnum):
    FILE_MISSING = "file_missing"
    FILE_DAMAGED = "file_damaged"
    FILES_SWAPPED = "files_swapped"
    SECRET_EXPOSED = "secret_exposed"  # noqa: S105  the name of a finding
    KEY_ENCRYPTED = "key_encrypted"
    KEY_MISMATCH = "key_mismatch"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    CLOCK_OFF = "clock_off"
    CA_AS_DEVICE = "ca_as_device"
    WRONG_KEY_TYPE = "wrong_key_type"
    WRONG_USAGE = "wrong_usage"
    WRONG_EKU = "wrong_eku"
    WRONG_SAN = "wrong_san"
    TOO_LONG = "too_long"
    PROFILE = "profile"
    OTHER_TRUST_DOMAIN = "other_trust_domain"
    TENANT_MISMATCH = "tenant_mismatch"
    DEVICE_MISMATCH = "device_mismatch"
    MISSING_INTERMEDIATE = "missing_intermediate"
    UNKNOWN_ISSUER = "unknown_issuer"
    ISSUER_EXPIRED = "issuer_expired"
    CHAIN_REFUSED = "chain_refused"
    ISSUER_NOT_ALLOWED = "issuer_not_allowed"
    LIST_EXPIRED = "list_expired"
    UNKNOWN_DEVICE = "unknown_device"
    UNKNOWN_CERTIFICATE = "unknown_certificate"
    FORMER_CERTIFICATE = "former_certificate"
    REVOKED = "revoked"
    SUSPENDED = "suspended"
    BANNED = "banned"
    DECOMMISSIONED = "decommissioned"
    QUARANTINED = "quarantined"
    WRONG_KID = "wrong_kid"
    ROOT_WITHDRAWN = "root_withdrawn"
    WRONG_MAC_KEY = "wrong_mac_key"
    UNKNOWN_HOST = "unknown_host"
    PORT_CLOSED = "port_closed"
    NO_ANSWER = "no_answer"
    PLAIN_HTTP = "plain_http"
    PLAIN_MQTT = "plain_mqtt"
    NOT_TLS = "not_tls"
    TLS_FAILED = "tls_failed"
    SERVER_UNVERIFIED = "server_unverified"
    SERVER_NAME_MISMATCH = "server_name_mismatch"
    SERVER_EXPIRED = "server_expired"
    CERTIFICATE_REFUSED = "certificate_refused"
    WRONG_PORT = "wrong_port"
    MQTT_3 = "mqtt_3"
    NOT_A_GATE = "not_a_gate"
    GATE_NOT_READY = "gate_not_ready"


class Remedy(NamedTuple):
    """`means` is what the finding says of anybody's device, `mend` what to do. TENANT and DEVICE stand for names."""

    means: str
    mend: str


_RENEW = (
    "give it new files on the gate's machine: "
    "`fleetgate device renew --tenant TENANT --device DEVICE --out next/DEVICE`"
)
_SHOW = "`fleetgate device show --tenant TENANT --device DEVICE` on the gate's machine"

REMEDIES: dict[Finding, Remedy] = {
    Finding.FILE_MISSING: Remedy(
        "a file is not there or cannot be read",
        "take all files from the directory that `fleetgate device enroll` wrote, and let the agent's user read them",
    ),
    Finding.FILE_DAMAGED: Remedy(
        "a file is cut off, altered or of another form",
        "copy it again from the directory that `fleetgate device enroll` wrote, as binary; where it is DER, make it "
        "PEM with `openssl x509 -inform DER` or `openssl pkey -inform DER`",
    ),
    Finding.FILES_SWAPPED: Remedy(
        "a file holds something else than its name says, or the certificates in it stand in the wrong order",
        "certificate.pem holds the device's certificate first and its issuing CA behind it, private.pem the private "
        "key, ca.pem the root that the gate's own certificate is verified with",
    ),
    Finding.SECRET_EXPOSED: Remedy(
        "a file with a private key or MAC key can be read by others",
        "run `chmod 600` on it; where others have had a shell on this machine, replace the keys on "
        "the gate's machine: `fleetgate device revoke --tenant TENANT --device DEVICE --reason ...`, then "
        "`fleetgate device enroll`",
    ),
    Finding.KEY_ENCRYPTED: Remedy(
        "the private key is encrypted with a passphrase, which no agent can type",
        "take the passphrase off with `openssl pkey -in private.pem -out new.pem`, and `chmod 600 new.pem`",
    ),
    Finding.KEY_MISMATCH: Remedy(
        "the private key is not the one that the certificate was issued for",
        "bring certificate.pem and private.pem from one enrolment; if the right key is lost, " + _RENEW,
    ),
    Finding.EXPIRED: Remedy("the certificate has expired", "let the device renew it; one that cannot: " + _RENEW),
    Finding.NOT_YET_VALID: Remedy(
        "the certificate is not valid yet",
        "set this machine's clock; if it is right, that of the machine with the CA was ahead: set it, and " + _RENEW,
    ),
    Finding.CLOCK_OFF: Remedy(
        "the clock of this machine is wrong",
        "set it (NTP, or the time that the gate tells in CONNACK `now` and in HTTP `Date`) before anything is signed: "
        "the gate refuses what is more than 60 s ahead or 7 days behind, and flags what is 5 minutes late",
    ),
    Finding.CA_AS_DEVICE: Remedy(
        "the certificate is a CA's, not a device's",
        "put the device's own certificate first into certificate.pem, the issuing CA's behind it",
    ),
    Finding.WRONG_KEY_TYPE: Remedy(
        "the certificate's key is neither P-256 nor Ed25519",
        "make a key with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` and have a certificate "
        "issued for it",
    ),
    Finding.WRONG_USAGE: Remedy(
        "the key usage lacks digitalSignature, or lets the device sign certificates",
        "have the CA issue it with keyUsage = digitalSignature and nothing else",
    ),
    Finding.WRONG_EKU: Remedy(
        "the extended key usage does not name clientAuth, or allows anything",
        "have the CA issue it with extendedKeyUsage = clientAuth; a server's certificate is not a device's",
    ),
    Finding.WRONG_SAN: Remedy(
        "the certificate does not have exactly one name, a SPIFFE URI of a device",
        "have the CA issue it with one subject alternative name, "
        "URI:spiffe://TRUST-DOMAIN/tenant/TENANT/device/DEVICE, and no DNS name, address or second URI beside it",
    ),
    Finding.TOO_LONG: Remedy(
        "the certificate is valid for more than 400 days", "have the CA issue it for 400 days or less, and renew it"
    ),
    Finding.PROFILE: Remedy(
        "the certificate does not fit the profile of devices in another way",
        "have the CA issue it as docs/reference/doctor.md describes the profile",
    ),
    Finding.OTHER_TRUST_DOMAIN: Remedy(
        "the certificate is of another trust domain than the gate",
        "use the certificate that this gate's CA issued; or, on the gate, set trust_domain to the CA's",
    ),
    Finding.TENANT_MISMATCH: Remedy(
        "device.json names another tenant than the certificate",
        "bring device.json and certificate.pem from one enrolment; the certificate is what the gate believes",
    ),
    Finding.DEVICE_MISMATCH: Remedy(
        "device.json names another device than the certificate",
        "bring device.json and certificate.pem from one enrolment; the certificate is what the gate believes",
    ),
    Finding.MISSING_INTERMEDIATE: Remedy(
        "the issuing CA's certificate is not behind the device's",
        "append the certificate of the issuing CA to certificate.pem (on the gate's machine: pki/issuing.pem); if its "
        "CA is none of this gate's, the device needs a certificate that is",
    ),
    Finding.UNKNOWN_ISSUER: Remedy(
        "the certificate does not lead to a CA that the gate trusts",
        "use the certificate that this gate's CA issued; or, on the gate, add its CA to edge.trust_bundle",
    ),
    Finding.ISSUER_EXPIRED: Remedy(
        "a CA certificate above the device's is not valid at this time",
        "have the issuing CA's certificate renewed, and put it behind the device's; check this machine's clock",
    ),
    Finding.CHAIN_REFUSED: Remedy(
        "the verifier refuses the way from the certificate to a root",
        "have the certificate issued again by a CA that keeps to RFC 5280",
    ),
    Finding.ISSUER_NOT_ALLOWED: Remedy(
        "the certificate's CA may not speak for the tenant",
        "use a certificate of the tenant's own CA; or, on the gate, change the table [issuers]",
    ),
    Finding.LIST_EXPIRED: Remedy(
        "a revocation list is too old to say anything of the certificates of its CA",
        "publish the CA's next list where the entry of [[crls]] names it; until then devices are told to come back",
    ),
    Finding.UNKNOWN_DEVICE: Remedy(
        "the records have no such device", "`fleetgate device list` shows all; `fleetgate device enroll` makes one"
    ),
    Finding.UNKNOWN_CERTIFICATE: Remedy(
        "the records have the device, but not this certificate",
        "use the files of its last enrolment: " + _SHOW + " lists the fingerprints; if they are lost, " + _RENEW,
    ),
    Finding.FORMER_CERTIFICATE: Remedy(
        "a newer certificate took this one's place",
        "use the files that the device got last: " + _SHOW + " lists the fingerprints",
    ),
    Finding.REVOKED: Remedy(
        "the certificate is revoked",
        "nothing on the device mends it: ask the gate's operators why (" + _SHOW + "), then enrol it again",
    ),
    Finding.SUSPENDED: Remedy("the device is suspended", "ask the gate's operators why; " + _SHOW),
    Finding.BANNED: Remedy(
        "the device is banned", "ask the gate's security team; `fleetgate quarantine` has the case and its decisions"
    ),
    Finding.DECOMMISSIONED: Remedy("the device is out of service", "enrol it again, if it is to serve"),
    Finding.QUARANTINED: Remedy(
        "the device is in quarantine: its messages are acknowledged, and kept apart",
        "`fleetgate quarantine list` shows the case; a person decides it with `fleetgate quarantine release` or `ban`",
    ),
    Finding.WRONG_KID: Remedy(
        "device.json names another root key than the device's MAC key was made under, or one that is retired",
        "bring device.json from the last enrolment or renewal; if it is lost, " + _RENEW,
    ),
    Finding.ROOT_WITHDRAWN: Remedy(
        "the root key that the device's MAC key was made under was withdrawn",
        "use the files of a renewal since then, if there was one; else " + _RENEW,
    ),
    Finding.WRONG_MAC_KEY: Remedy(
        "the MAC key is not the one that the gate derives for this certificate",
        "bring device.json and certificate.pem from one enrolment: the MAC key belongs to the certificate's key",
    ),
    Finding.UNKNOWN_HOST: Remedy("the host's name has no address", "check its spelling, and this machine's DNS"),
    Finding.PORT_CLOSED: Remedy(
        "nobody listens on the port",
        "check host and port (8883 for MQTT, 8443 for HTTPS by default), that the edge runs (`fleetgate up`), and that "
        "it listens on an address of this network: edge.mqtt_listen, edge.https_listen",
    ),
    Finding.NO_ANSWER: Remedy(
        "nothing comes back", "look for a firewall or proxy on the way, and whether the edge is busy (its /readyz)"
    ),
    Finding.PLAIN_HTTP: Remedy(
        "the port speaks HTTP without TLS",
        "name the vehicles' port (edge.mqtt_listen or edge.https_listen), not the admin port or the port behind a "
        "proxy; never send a device's data to a port without TLS",
    ),
    Finding.PLAIN_MQTT: Remedy(
        "the port speaks MQTT without TLS", "name the broker's or gate's TLS port, 8883 by default, not 1883"
    ),
    Finding.NOT_TLS: Remedy("what listens there speaks no TLS", "check host and port: it is some other service"),
    Finding.TLS_FAILED: Remedy(
        "the TLS handshake failed",
        "the gate speaks TLS 1.3 (1.2 only with edge.tls_1_2): update the client's TLS library; the edge's log has a "
        "line `handshake_failed` with its own view",
    ),
    Finding.SERVER_UNVERIFIED: Remedy(
        "ca.pem does not verify the server's certificate",
        "if this is the right host, take ca.pem from this gate (its pki/root.pem); if not, somebody else answers there",
    ),
    Finding.SERVER_NAME_MISMATCH: Remedy(
        "the server's certificate does not have the name that was called",
        "call it by a name in its certificate; or give the gate a certificate with this name: "
        "docs/how-to/replace-certificates-and-keys.md",
    ),
    Finding.SERVER_EXPIRED: Remedy(
        "the server's certificate, or a CA above it, is not valid at this time",
        "replace the gate's certificate (docs/how-to/replace-certificates-and-keys.md); check this machine's clock",
    ),
    Finding.CERTIFICATE_REFUSED: Remedy(
        "the gate refuses the device's certificate in the TLS handshake",
        "run `fleetgate doctor` with the same files on the gate's machine, which knows its trust bundle; the edge's "
        "log has a line `handshake_failed`",
    ),
    Finding.WRONG_PORT: Remedy(
        "the port speaks the other of the two protocols",
        "MQTT has 8883 and HTTPS 8443 by default (edge.mqtt_listen, edge.https_listen)",
    ),
    Finding.MQTT_3: Remedy(
        "what listens there speaks only MQTT 3.1.1",
        "the gate speaks MQTT 5: check host and port, or bring the devices' messages from that broker to the gate",
    ),
    Finding.NOT_A_GATE: Remedy("what listens there is no fleetgate", "check host and port"),
    Finding.GATE_NOT_READY: Remedy(
        "the gate says: come back later",
        "wait; if it goes on, look at its /readyz: a full disk, control away, a clock in doubt, draining",
    ),
}


class Check(Struct, frozen=True):
    """One line of the doctor's answer: what was looked at, how it ended, and in words what was found there.

    `mend` is how to mend it, or for CANNOT_TELL how to find out.
    """

    check: str
    says: Says
    what: str
    finding: Finding | None = None
    mend: str = ""


class Who(NamedTuple):
    """Whose files these are, as far as is known: put into remedies."""

    tenant: str = ""
    device_id: str = ""


NOBODY = Who()


def good(check: str, what: str) -> Check:
    return Check(check, Says.OK, what)


def wrong(check: str, finding: Finding, what: str) -> Check:
    return Check(check, Says.WRONG, what, finding, REMEDIES[finding].mend)


def cannot_tell(check: str, why: str, find_out: str = "") -> Check:
    return Check(check, Says.CANNOT_TELL, why, None, find_out)


def for_whom(check: Check, who: Who) -> Check:
    """With the names of the device in its remedy, so that a command can be typed as it stands."""
    if not (who.tenant and who.device_id):
        return check
    mend = check.mend.replace("TENANT", who.tenant).replace("DEVICE", who.device_id)
    return msgspec.structs.replace(check, mend=mend)
