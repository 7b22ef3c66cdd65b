"""Decides what a device is given at enrolment and how it is read: the bundle directory.

Many devices in one file are `identities`'. Both leave verification to others: TLS checks the gate's certificate, the
gate checks the device's. How a bundle is renewed is `renewal`'s; a renewal that a crash interrupted is finished before
the bundle is read.
"""

import base64
import binascii
import socket
import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fleetsim import mac, renewal


class BundleError(Exception):
    """A device bundle that cannot be used; the text names the file and the field."""


class _DeviceFile(msgspec.Struct):
    tenant: str
    device_id: str
    vehicle_id: str
    kid: int
    mac_key: str


@dataclass(frozen=True)
class Device(ABC):
    """One device's identity and MAC key, which never shows in a repr. Where its certificate is, its subclasses know."""

    tenant: str
    device_id: str
    vehicle_id: str
    kid: int
    mac_key: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """`tenant/device_id`, as the journal keeps it."""
        return f"{self.tenant}/{self.device_id}"

    @property
    def topic(self) -> str:
        """The MQTT topic this device publishes to."""
        return f"fleet/v1/{self.tenant}/{self.device_id}/telemetry"

    @abstractmethod
    def trusted(self) -> str:
        """What the gate's certificate is verified with, in PEM. Raises BundleError."""

    @abstractmethod
    def present_in(self, context: ssl.SSLContext) -> None:
        """Have the context present this device's certificate, in the place of another. Raises BundleError."""


@dataclass(frozen=True)
class Bundle(Device):
    """A device whose files are in a directory of its own."""

    directory: Path

    def trusted(self) -> str:
        try:
            return (self.directory / "ca.pem").read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{self.directory}: ca.pem cannot be used ({error})") from None

    def present_in(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.directory / "certificate.pem", self.directory / "private.pem")
        except (ssl.SSLError, OSError) as error:
            raise BundleError(f"{self.directory}: the certificate files cannot be used ({error})") from None


def read_bundle(directory: Path) -> Bundle:
    """Read `device.json` and check that the files beside it exist. Raises BundleError."""
    path = directory / "device.json"
    try:
        renewal.finish(directory)
        device = _decode(path.read_bytes())
        key = base64.b64decode(device.mac_key, validate=True)
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; is {directory} a device bundle?") from None
    except (msgspec.MsgspecError, binascii.Error) as error:
        # The library's message names the field and the type, never the value.
        raise BundleError(f"{path}: {error}; enrol the device again to get a whole bundle") from None
    if len(key) != mac.KEY_BYTES:
        raise BundleError(f"{path}: mac_key has {len(key)} bytes, not {mac.KEY_BYTES}; enrol the device again")
    for name in ("certificate.pem", "private.pem", "ca.pem"):
        if not (directory / name).is_file():
            raise BundleError(f"{directory / name}: missing; enrol the device again to get a whole bundle")
    return Bundle(device.tenant, device.device_id, device.vehicle_id, device.kid, key, directory)


class _NamedContext(ssl.SSLContext):
    """A context that checks the server against a fixed name, whatever address the library connects to."""

    server_name = "localhost"

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        kwargs["server_hostname"] = self.server_name
        return super().wrap_socket(sock, *args, **kwargs)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, self.server_name, session)


def tls_context(device: Device, server_name: str) -> ssl.SSLContext:
    """Mutual TLS 1.3 with the device's certificate, trusting its own CA only. Raises BundleError."""
    context = trusting_context(device.trusted(), server_name)
    device.present_in(context)
    return context


def trusting_context(ca: str, server_name: str) -> ssl.SSLContext:
    """TLS 1.3 that trusts this CA only, for a device to present its certificate in. Raises BundleError."""
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = server_name
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise BundleError(f"the CA certificate of a device cannot be used ({error})") from None
    return context


_decode = msgspec.json.Decoder(_DeviceFile).decode
