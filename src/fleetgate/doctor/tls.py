"""TLS to a port: is it the right server, and what does it say of the device's certificate.

Decides what an error of OpenSSL means for a person. The certificate is shown only to a server that the CA file
verifies.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.doctor.certificate import clip, day
from fleetgate.doctor.files import name_of
from fleetgate.doctor.findings import Finding
from fleetgate.doctor.reach import NAME_CA, SERVER, SESSION, TLS, Target, Trouble, connect, without_tls

HANDSHAKE_SECONDS = 5.0
SETTLE_SECONDS = (0.5, 4.0)
"""A gate that refuses the certificate says so behind the handshake (TLS 1.3). What was sent by then resets the
connection, and the reset takes the alert along: so nothing is said for this long. The second time is for a gate that
was too busy for the first."""


MQTT, HTTP = "mqtt", "http/1.1"
"""The names of ALPN."""

TlsStream = trio.SSLStream[trio.SocketStream]


class Means(NamedTuple):
    """What a connection is made with: the CAs that verify the server (none: it is not verified, and shown nothing),
    and the files of a certificate and key that fit together. `alone`: the certificate has no CA behind it."""

    cas: Sequence[x509.Certificate] = ()
    certificate: Path | None = None
    key: Path | None = None
    alone: bool = False

    @property
    def can_show(self) -> bool:
        return bool(self.cas) and self.certificate is not None and self.key is not None


async def secure(stream: trio.SocketStream, target: Target, means: Means, protocol: str) -> TlsStream:
    """TLS, with the server verified where there are CAs. Raises Trouble."""
    tls = trio.SSLStream(stream, _context(means, protocol), server_hostname=target.host, https_compatible=True)
    try:
        with trio.fail_after(HANDSHAKE_SECONDS):
            await tls.do_handshake()
    except trio.TooSlowError:
        raise await without_tls(target, Finding.NO_ANSWER, "it takes the connection and does not answer TLS") from None
    except (trio.BrokenResourceError, ValueError) as error:
        raise await _handshake_trouble(error.__cause__ or error, target, means) from None
    if (other := tls.selected_alpn_protocol()) not in (None, protocol):
        what = "it speaks HTTPS, not MQTT" if other == HTTP else "it speaks MQTT, not HTTPS"
        raise Trouble(TLS, Finding.WRONG_PORT, f"{target}: {what}")
    return tls


def _context(means: Means, protocol: str) -> ssl.SSLContext:
    """Raises Trouble where OpenSSL does not take the files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a server that asks for one and says no more would be waited for
    context.set_alpn_protocols([protocol, *{MQTT, HTTP} - {protocol}])  # of both a gate names the one that it speaks
    if not means.cas:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    context.load_verify_locations(cadata=b"".join(ca.public_bytes(Encoding.DER) for ca in means.cas))
    if means.can_show:
        try:
            context.load_cert_chain(means.certificate or "", means.key, password=b"")  # never asks for one
        except (ssl.SSLError, OSError) as error:
            why = getattr(error, "reason", None) or error
            raise Trouble(TLS, Finding.TLS_FAILED, f"OpenSSL does not take certificate and key: {why}") from None
    return context


async def _handshake_trouble(error: BaseException, target: Target, means: Means) -> Trouble:
    if isinstance(error, ssl.SSLCertVerificationError):
        return await _unverified(error, target)
    reason = str(getattr(error, "reason", None) or error)
    if "ALERT" in reason.upper() and means.can_show and "PROTOCOL_VERSION" not in reason:
        return refused(error, means)
    if "ALERT" in reason.upper():
        return Trouble(TLS, Finding.TLS_FAILED, f"{target}: it ends the handshake ({clip(reason)})")
    return await without_tls(target, Finding.TLS_FAILED, f"the handshake fails ({clip(reason)})")


_HOSTNAME_MISMATCH, _IP_MISMATCH, _NOT_YET_VALID, _EXPIRED = 62, 64, 9, 10  # X509_V_ERR_...


async def _unverified(error: ssl.SSLCertVerificationError, target: Target) -> Trouble:
    shown = await _server_certificate(target)
    if error.verify_code in (_HOSTNAME_MISMATCH, _IP_MISMATCH):
        names = f"; it is for {_hosts(shown)}" if shown is not None else ""
        what = f"the server's certificate is not for {clip(target.host)}{names}"
        return Trouble(SERVER, Finding.SERVER_NAME_MISMATCH, what)
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        span = (
            f": it is valid from {day(shown.not_valid_before_utc)} to {day(shown.not_valid_after_utc)}" if shown else ""
        )
        return Trouble(SERVER, Finding.SERVER_EXPIRED, f"{error.verify_message}{span}")
    issuer = f"; it was issued by {clip(name_of(shown.issuer))}" if shown is not None else ""
    what = f"the CA file does not verify the server's certificate ({error.verify_message}){issuer}"
    return Trouble(SERVER, Finding.SERVER_UNVERIFIED, what)


async def _server_certificate(target: Target) -> x509.Certificate | None:
    """What the server shows to somebody who does not verify it, and shows it nothing."""
    try:
        async with await connect(target) as stream:
            tls = trio.SSLStream(stream, _context(Means(), HTTP), server_hostname=target.host)
            with trio.move_on_after(HANDSHAKE_SECONDS):
                await tls.do_handshake()
                shown = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
                _ = shown.extensions, shown.issuer, shown.not_valid_before_utc, shown.not_valid_after_utc
                return shown
    except Exception:  # a stranger's bytes; without it the finding stands with fewer words
        return None
    return None


def _hosts(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no host at all"
    hosts = [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]
    return clip(", ".join(hosts)) or "no host at all"


# What a server says of the device's certificate: by an alert, behind the handshake in TLS 1.3.

_ALERTS = {
    "CERTIFICATE_EXPIRED": (Finding.EXPIRED, "has expired, by the gate's clock"),
    "UNKNOWN_CA": (Finding.UNKNOWN_ISSUER, "does not lead to a CA that the gate trusts"),
    "UNSUPPORTED_CERTIFICATE": (Finding.WRONG_EKU, "is not one for clients"),
    "CERTIFICATE_REVOKED": (Finding.REVOKED, "is revoked"),
    "DECRYPT_ERROR": (Finding.KEY_MISMATCH, "does not fit the private key"),
}


def refused(error: BaseException | None, means: Means) -> Trouble:
    """What the end of the connection means that came instead of an answer; None: it came without a word."""
    reason = str(getattr(error, "reason", None) or error or "it ends the connection without a word")
    alert = reason.upper().partition("ALERT_")[2]
    if not means.can_show:
        what = "the gate asks for the certificate of a device, and none was shown"
        if means.certificate is not None:
            return Trouble(SESSION, None, f"{what}: without a CA file nobody knows to whom it would be", NAME_CA)
        return Trouble(SESSION, None, what, "name the device's files too")
    finding, what = _ALERTS.get(alert, (Finding.CERTIFICATE_REFUSED, f"is refused ({clip(alert.lower() or reason)})"))
    if finding is Finding.UNKNOWN_ISSUER and means.alone:
        finding, what = Finding.MISSING_INTERMEDIATE, "is shown without its issuing CA's, which the gate does not have"
    return Trouble(SESSION, finding, f"the gate says: the device's certificate {what}")


class Silent(Exception):
    """The connection ended without an answer and without an alert."""


async def hear_refusal(tls: TlsStream, means: Means, settle_s: float) -> bytes:
    """Waits for so long before anything is said; what came, mostly nothing. Raises Trouble, Silent."""
    with telling_refusals(means), trio.move_on_after(settle_s):
        data = bytes(await tls.receive_some(4096))
        if not data:
            raise Silent
        return data
    return b""


@contextmanager
def telling_refusals(means: Means) -> Iterator[None]:
    """Turns the end of the connection into a Trouble where an alert says why, else into Silent."""
    try:
        yield
    except trio.BrokenResourceError as error:
        if "ALERT" in str(getattr(error.__cause__, "reason", "")).upper():
            raise refused(error.__cause__ or error, means) from None
        raise Silent from None
