"""A device's next credential: when it is due, which key it is for, and what a crash leaves of it."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from joserfc import jwe
from joserfc.jwk import ECKey, OKPKey
from tests.renewing import AGREEMENT_KEY, Key

from fleetsim.bundle import read_bundle
from fleetsim.renewal import Renewal, RenewalError

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LIFETIME = timedelta(days=360)
NAME = "spiffe://fleet.test/tenant/acme/device/tcu-0001"


class Signer:
    """Grants whatever it is asked for, unless told otherwise."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def certificate(self, public_key: Any, name: str = NAME) -> bytes:
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        uri = x509.UniformResourceIdentifier(name)
        builder = x509.CertificateBuilder(
            issuer, issuer, public_key, x509.random_serial_number(), BEGIN, BEGIN + LIFETIME
        )
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def answer(self, request: bytes, name: str = NAME, mac_key: bytes = b"n" * 32) -> bytes:
        csr = x509.load_pem_x509_csr(request)
        assert csr.is_signature_valid
        public_key: Any = csr.public_key()
        return self.answer_for(csr, public_key, name, mac_key)

    def answer_for(self, csr: x509.CertificateSigningRequest, public_key: Any, name: str, mac_key: bytes) -> bytes:
        recipient: Any = csr.public_key()
        if isinstance(recipient, ed25519.Ed25519PublicKey):
            named = csr.extensions.get_extension_for_oid(AGREEMENT_KEY).value
            assert isinstance(named, x509.UnrecognizedExtension)
            recipient = load_der_public_key(named.value)
        pem = recipient.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        key = ECKey.import_key(pem) if isinstance(recipient, ec.EllipticCurvePublicKey) else OKPKey.import_key(pem)
        sealed = jwe.encrypt_compact({"alg": "ECDH-ES", "enc": "A256GCM"}, mac_key, key, ["ECDH-ES", "A256GCM"])
        certificate = self.certificate(public_key, name).decode()
        return json.dumps({"certificate": certificate, "kid": 2, "mac_key": sealed}).encode()


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


NEW_KEY: dict[str, Callable[[], Key]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.fixture(params=NEW_KEY)
def device(request: pytest.FixtureRequest, signer: Signer, tmp_path: Path) -> Path:
    """A bundle as enrolment leaves it."""
    directory = tmp_path / "device"
    directory.mkdir()
    key = NEW_KEY[request.param]()
    (directory / "private.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (directory / "certificate.pem").write_bytes(signer.certificate(key.public_key()))
    (directory / "ca.pem").write_text("of the gate")
    facts = {"tenant": "acme", "device_id": "tcu-0001", "vehicle_id": "veh-1", "kid": 1}
    (directory / "device.json").write_text(json.dumps(facts | {"mac_key": base64.b64encode(b"o" * 32).decode()}))
    return directory


def public_key_of_request(request: bytes) -> object:
    return x509.load_pem_x509_csr(request).public_key()


def check_whole(directory: Path) -> int:
    """That the files of a bundle are of one credential; the key id of it."""
    bundle = read_bundle(directory)
    private = load_pem_private_key((directory / "private.pem").read_bytes(), None)
    assert (
        x509.load_pem_x509_certificate((directory / "certificate.pem").read_bytes()).public_key()
        == private.public_key()
    )
    assert bundle.mac_key == {1: b"o" * 32, 2: b"n" * 32}[bundle.kid]
    assert (bundle.vehicle_id, (directory / "ca.pem").read_text()) == ("veh-1", "of the gate")
    return bundle.kid


def test_a_renewal_is_due_at_two_thirds_of_the_lifetime(device: Path) -> None:
    """In Unix milliseconds; the clock is the caller's."""
    assert Renewal(device).due_ms == (BEGIN + timedelta(days=240)).timestamp() * 1000


def test_what_was_answered_is_the_bundle_from_then_on(device: Path, signer: Signer) -> None:
    """Certificate, private key and MAC key change together; the files that hold keys are the user's alone."""
    renewal = Renewal(device)
    renewal.accept(signer.answer(renewal.request()))
    assert check_whole(device) == 2
    assert {path.name for path in device.iterdir()} == {"private.pem", "certificate.pem", "device.json", "ca.pem"}
    assert [(device / name).stat().st_mode & 0o777 for name in ("private.pem", "device.json")] == [0o600] * 2
    assert renewal.due_ms == (BEGIN + timedelta(days=240)).timestamp() * 1000, "of the new certificate"


def test_the_key_is_on_the_disk_before_anybody_is_asked(device: Path, signer: Signer) -> None:
    """Another process asks with it again, at once, after an answer that got lost."""
    request = Renewal(device).request()
    again = Renewal(device)
    assert again.due_ms == 0
    assert public_key_of_request(again.request()) == public_key_of_request(request)
    again.accept(signer.answer(again.request()))
    assert check_whole(device) == 2


def test_a_request_says_the_devices_own_name(device: Path) -> None:
    """Subject and alternative name of the certificate (RFC 7030, 4.2.2), and a new key of the same kind."""
    csr = x509.load_pem_x509_csr(Renewal(device).request())
    certificate = x509.load_pem_x509_certificate((device / "certificate.pem").read_bytes())
    names = [each.extensions.get_extension_for_class(x509.SubjectAlternativeName).value for each in (csr, certificate)]
    assert (csr.subject, names[0]) == (certificate.subject, names[1])
    assert type(csr.public_key()) is type(certificate.public_key())
    assert csr.public_key() != certificate.public_key()


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number in it is after how many steps on the disk the process ends."""
    left = [10**9]

    def before(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **named: Any) -> Any:
            if not left[0]:
                raise Crash
            left[0] -= 1
            return real(*given, **named)

        return step

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "mkdir"):
            patch.setattr(Path, name, before(getattr(Path, name)))
        patch.setattr(shutil, "rmtree", before(shutil.rmtree))
        yield left


def test_a_crash_at_any_step_leaves_a_whole_bundle(
    device: Path, signer: Signer, tmp_path: Path, steps: list[int]
) -> None:
    """The former or the new one; and whoever was not answered asks with the same key."""
    seen: list[int] = []
    for after in range(100):
        steps[0] = 10**9
        copy = shutil.copytree(device, tmp_path / f"copy-{after}")
        asked: list[object] = []
        steps[0] = after
        try:
            renewal = Renewal(copy)
            request = renewal.request()
            asked.append(public_key_of_request(request))
            renewal.accept(signer.answer(request))
        except Crash:
            steps[0] = 10**9
            seen.append(check_whole(copy))
            if asked and seen[-1] == 1:
                assert public_key_of_request(Renewal(copy).request()) == asked[0]
        else:
            break
    assert sorted(seen) == seen, "from some step on it is the new one"
    assert set(seen) == {1, 2}
    assert len(seen) >= 8


def _answers(signer: Signer, request: bytes) -> dict[str, bytes]:
    csr = x509.load_pem_x509_csr(request)
    good = json.loads(signer.answer(request))
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    return {
        "garbage": b"\xff",
        "no JSON object": b"[]",
        "no certificate": json.dumps(good | {"certificate": "none"}).encode(),
        "a certificate of another key": signer.answer_for(csr, other, NAME, b"n" * 32),
        "a certificate of another device": signer.answer(request, NAME + "-2"),
        "a short MAC key": signer.answer(request, mac_key=b"n" * 16),
        "no JWE": json.dumps(good | {"mac_key": "a.b.c.d.e"}).encode(),
        "a JWE that was changed": json.dumps(good | {"mac_key": good["mac_key"][:-4] + "AAAA"}).encode(),
        "a kid that is none": json.dumps(good | {"kid": "two"}).encode(),
    }


def test_an_answer_that_is_no_renewal_changes_nothing(device: Path, signer: Signer) -> None:
    """It is refused with a reason, whatever stands in it, and a good one is taken after it."""
    renewal = Renewal(device)
    request = renewal.request()
    for what, answer in _answers(signer, request).items():
        try:
            renewal.accept(answer)
        except RenewalError:
            assert check_whole(device) == 1, what
        else:
            pytest.fail(what)
    renewal.accept(signer.answer(request))
    assert check_whole(device) == 2
