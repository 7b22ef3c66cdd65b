"""A gate that says what a test tells it to: real sockets, real mutual TLS, no judgement of its own.

The real gate cannot be made to answer 0x97 to the first message and 0x83 to the second; this can.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import json
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from fleetsim.attackers.wire import text, varint


class Puback(NamedTuple):
    """An answer over MQTT."""

    code: int = 0
    reason: str = ""
    current_epoch: int | None = None


class Http(NamedTuple):
    """An answer over HTTPS; `items` are msgspec-encoded by the test."""

    status: int = 202
    body: bytes = b""
    headers: tuple[str, ...] = ()


@dataclass
class GateDouble:
    """Answers by `puback`, `http` and `renewal`, given how many of them came before; None hangs up instead."""

    puback: Callable[[int], Puback | None] = lambda _: Puback()
    http: Callable[[int, bytes], Http | None] = lambda *_: Http()
    renewal: Callable[[int, bytes], Http | None] = lambda *_: Http(503, headers=("Retry-After: 3600",))
    connack: Callable[[int], int] = lambda _: 0
    goodbye: int | None = None  # DISCONNECT instead of the first PUBACK
    ahead_ms: Callable[[int], int] = lambda _: 0
    epoch: int = 0
    connects: int = 0
    received: list[bytes] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    renewals: list[bytes] = field(default_factory=list)

    async def mqtt(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One MQTT connection."""
        try:
            while True:
                kind, data = await _packet(reader)
                if kind == 1:
                    writer.write(self._connack())
                elif kind == 3:
                    answer = self._publish(data)
                    if answer is None:
                        return
                    writer.write(answer)
                elif kind == 14:
                    return
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def https(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One HTTPS connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                size = next((int(h[15:]) for h in head.split("\r\n") if h.lower().startswith("content-length:")), 0)
                body = await reader.readexactly(size)
                answer: Http | None = Http(405)
                if head.startswith("POST /v1/renew "):
                    self.renewals.append(body)
                    answer = self.renewal(len(self.renewals) - 1, body)
                elif head.startswith("POST"):
                    self.requests.append(body)
                    answer = self.http(len(self.requests) - 1, body)
                if answer is None:
                    return
                fields = (f"Date: {formatdate(usegmt=True)}", f"Content-Length: {len(answer.body)}", *answer.headers)
                head = "\r\n".join((f"HTTP/1.1 {answer.status} Answer", *fields, "", ""))
                writer.write(head.encode() + answer.body)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def _connack(self) -> bytes:
        self.connects += 1
        code = self.connack(self.connects - 1)
        now_ms = int(datetime.datetime.now(datetime.UTC).timestamp() * 1000) + self.ahead_ms(self.connects - 1)
        user = b"\x26" + text("now") + text(str(now_ms)) + b"\x26" + text("epoch") + text(str(self.epoch))
        properties = b"\x21\x00\x80" + user if code == 0 else b""
        data = bytes([0, code]) + varint(len(properties)) + properties
        return b"\x20" + varint(len(data)) + data

    def _publish(self, data: bytes) -> bytes | None:
        at = 2 + struct.unpack(">H", data[:2])[0]
        self.received.append(data[at + 3 :])
        if self.goodbye is not None:
            return b"\xe0\x02" + bytes([self.goodbye, 0])
        answer = self.puback(len(self.received) - 1)
        if answer is None:
            return None
        properties = b"\x1f" + text(answer.reason) if answer.reason else b""
        if answer.current_epoch is not None:
            properties += b"\x26" + text("current_epoch") + text(str(answer.current_epoch))
        packet = data[at : at + 2] + bytes([answer.code]) + varint(len(properties)) + properties
        return b"\x40" + varint(len(packet)) + packet


@asynccontextmanager
async def serving(double: GateDouble, pki: Path) -> AsyncIterator[tuple[tuple[str, int], tuple[str, int]]]:
    """The two listeners' addresses, on ports of the system's choice."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pki / "gate.pem", pki / "gate.key")
    context.load_verify_locations(pki / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    servers = [
        await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context) for handler in (double.mqtt, double.https)
    ]
    try:
        mqtt, https = (("127.0.0.1", server.sockets[0].getsockname()[1]) for server in servers)
        yield mqtt, https
    finally:
        for server in servers:
            server.close()


def make_pki(directory: Path, server_name: str = "localhost") -> None:
    """A throwaway CA with a certificate for the gate, and a device's bundle in `device/`."""
    (directory / "device").mkdir(parents=True)
    ca_key, ca = _certificate("test ca", None, None, x509.BasicConstraints(ca=True, path_length=None))
    gate_name = x509.SubjectAlternativeName([x509.DNSName(server_name)])
    gate_key, gate = _certificate("gate", ca_key, ca, gate_name)
    uri = x509.UniformResourceIdentifier("spiffe://fleet.test/tenant/acme/device/tcu-0001")
    key, device = _certificate("device", ca_key, ca, x509.SubjectAlternativeName([uri]))
    for place, certificate, private in (("gate", gate, gate_key), ("device/certificate", device, key)):
        (directory / f"{place}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        name = "gate.key" if place == "gate" else "device/private.pem"
        (directory / name).write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for place in ("ca.pem", "device/ca.pem"):
        (directory / place).write_bytes(ca.public_bytes(Encoding.PEM))
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    mac_key = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    document = {"tenant": "acme", "device_id": "tcu-0001", "vehicle_id": "veh-1", "kid": 1, "mac_key": mac_key}
    (directory / "device" / "device.json").write_text(json.dumps(document))


_Key = ec.EllipticCurvePrivateKey


def _certificate(
    name: str, ca_key: _Key | None, ca: x509.Certificate | None, extension: x509.ExtensionType
) -> tuple[_Key, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    issuer_key = ca_key or key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(extension, critical=ca is None)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return key, builder.sign(issuer_key, SHA256())


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return first >> 4, await reader.readexactly(length)
