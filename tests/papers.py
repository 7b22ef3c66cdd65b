"""A device's papers with a mistake in them: real keys, real certificates, a certificate authority of their own.

`Workshop` is a good authority and makes good bundles; what is given to `leaf` is the one thing that is wrong with one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.control.pki import Authority
from fleetgate.doctor.examine import Ports, examine
from fleetgate.doctor.files import Paths
from fleetgate.doctor.findings import Check
from fleetgate.doctor.records import GateMachine
from tests.authorities import CA, now, pem, usage

TENANT, DEVICE_ID = "acme", "car-7-tcu"
NAME = f"spiffe://fleet.example/tenant/{TENANT}/device/{DEVICE_ID}"


def new_key() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


def private_pem(key: Any) -> bytes:
    content: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return content


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Workshop:
    """An authority in `directory`, made where there is none; `issuing` and `root` are its certificates, `above` is its
    root as a CA that makes others."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if not (directory / "issuing.key").exists():
            Authority.create(directory, "fleet.example", SystemClock())
        authority = Authority.load(directory, SystemClock())
        self.root, self.issuing = authority.root, authority.issuing
        self.key: Any = load_pem_private_key((directory / "issuing.key").read_bytes(), None)
        self.above = CA(self.root, load_pem_private_key((directory / "root.key").read_bytes(), None))  # type: ignore[arg-type]

    def leaf(
        self,
        public_key: Any,
        *,
        names: Sequence[x509.GeneralName] = (x509.UniformResourceIdentifier(NAME),),
        purposes: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
        signs: bool = True,
        ca: bool = False,
        begin: datetime | None = None,
        days: int = 300,
        issuer: tuple[x509.Name, Any] | None = None,
    ) -> x509.Certificate:
        issuer_name, issuer_key = issuer or (self.issuing.subject, self.key)
        begin = begin or now() - timedelta(minutes=5)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(DEVICE_ID))
            .issuer_name(issuer_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage(*["digital_signature"] * signs, *["key_cert_sign"] * ca), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return builder.sign(issuer_key, SHA256())

    def bundle(self, directory: Path, **mistake: Any) -> Paths:
        """A device's files; `mistake` as `leaf` takes it, or `key` for a private key of another kind."""
        key = mistake.pop("key", None) or new_key()
        sent = mistake.pop("sent", (self.issuing,))
        certificate = self.leaf(key.public_key(), **mistake)
        return write_bundle(directory, [certificate, *sent], private_pem(key), [self.root])


def write_bundle(
    directory: Path, chain: Sequence[x509.Certificate], private: bytes, cas: Sequence[x509.Certificate]
) -> Paths:
    directory.mkdir()
    paths = Paths.of_bundle(directory)
    assert None not in paths
    (directory / "certificate.pem").write_bytes(pem(*chain))
    (directory / "ca.pem").write_bytes(pem(*cas))
    write_private(directory / "private.pem", private)
    facts = {"tenant": TENANT, "device_id": DEVICE_ID, "vehicle_id": "car-7", "kid": 1}
    write_device(directory, **facts)
    return paths


def write_private(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def write_device(directory: Path, **facts: Any) -> None:
    """device.json with these facts; a MAC key that no gate derives, unless one is given."""
    plain: dict[str, Any] = {"mac_key": base64.b64encode(bytes(32)).decode()}
    write_private(directory / "device.json", json.dumps(plain | facts).encode())


def look(paths: Paths, *, elsewhere: Path, now_ms: int | None = None) -> list[Check]:
    """What the doctor says of these files in a directory where there is no gate."""
    config = msgspec.structs.replace(Config(), home=str(elsewhere))
    gate = GateMachine(config, SystemClock(), configured=False)
    clock = SystemClock().now_ms if now_ms is None else lambda: now_ms
    return trio.run(examine, paths, Ports(), gate, clock)
