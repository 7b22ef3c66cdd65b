"""Mistakes with the files themselves, each in real files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from tests.authorities import pem
from tests.papers import DEVICE_ID, TENANT, Workshop, look, new_key, private_pem, write_device, write_private

from fleetgate.doctor.files import Paths, read_papers
from fleetgate.doctor.findings import Finding, Says

Found = Callable[..., list[Finding]]


def file(paths: Paths, name: str) -> Path:
    path = getattr(paths, name)
    assert isinstance(path, Path)
    return path


def test_nothing_is_wrong_with_a_good_bundle(good: Paths, says: Found) -> None:
    """No finding; only the gate's machine could tell more."""
    assert says(good) == []


def test_the_wrong_key_for_the_certificate(good: Paths, says: Found) -> None:
    """A private key of another device."""
    write_private(file(good, "key"), private_pem(new_key()))
    assert says(good) == [Finding.KEY_MISMATCH]


def test_a_key_that_others_may_read(good: Paths, says: Found) -> None:
    """Private key and MAC key alike."""
    file(good, "key").chmod(0o644)
    file(good, "device").chmod(0o640)
    assert says(good) == [Finding.SECRET_EXPOSED, Finding.SECRET_EXPOSED]


def test_an_encrypted_key_is_not_asked_for_its_passphrase(good: Paths, says: Found) -> None:
    """It is told, and nobody is prompted."""
    content = new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    write_private(file(good, "key"), content)
    assert says(good) == [Finding.KEY_ENCRYPTED]


@pytest.mark.parametrize("name", ["certificate", "key", "ca", "device"])
def test_a_file_that_is_cut_off(good: Paths, says: Found, name: str) -> None:
    """Half of any file."""
    path = file(good, name)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    assert says(good)[0] is Finding.FILE_DAMAGED


@pytest.mark.parametrize("name", ["certificate", "key", "ca", "device"])
def test_a_file_of_garbage(good: Paths, says: Found, name: str) -> None:
    """Bytes of no form at all."""
    file(good, name).write_bytes(os.urandom(2000))
    assert says(good)[0] is Finding.FILE_DAMAGED


@pytest.mark.parametrize("name", ["certificate", "key", "ca", "device"])
def test_a_file_that_is_not_there(good: Paths, says: Found, name: str) -> None:
    """One of the four is missing."""
    file(good, name).unlink()
    assert says(good)[0] is Finding.FILE_MISSING


@pytest.mark.parametrize("name", ["certificate", "key", "ca", "device"])
def test_a_pipe_is_not_waited_for(good: Paths, says: Found, name: str) -> None:
    """A FIFO in the place of a file would hold whoever opens it."""
    file(good, name).unlink()
    os.mkfifo(file(good, name), 0o600)
    assert says(good)[0] is Finding.FILE_MISSING


def test_a_certificate_in_der(good: Paths, workshop: Workshop, tmp_path: Path) -> None:
    """What to do about it is said."""
    file(good, "certificate").write_bytes(workshop.issuing.public_bytes(Encoding.DER))
    [check] = [check for check in look(good, elsewhere=tmp_path) if check.finding is Finding.FILE_DAMAGED]
    assert "it is DER" in check.what
    assert "openssl x509 -inform DER" in check.mend


@pytest.mark.parametrize(("one", "other"), [("certificate", "key"), ("key", "ca"), ("certificate", "device")])
def test_two_files_in_each_others_place(good: Paths, says: Found, one: str, other: str) -> None:
    """Each holds what the other should."""
    first, second = file(good, one).read_bytes(), file(good, other).read_bytes()
    file(good, one).write_bytes(second)
    file(good, other).write_bytes(first)
    assert Finding.FILES_SWAPPED in says(good) or says(good) == [Finding.FILE_DAMAGED, Finding.FILES_SWAPPED]


def test_the_device_s_certificate_in_place_of_the_cas(good: Paths, says: Found) -> None:
    """ca.pem without a CA in it."""
    leaf = file(good, "certificate").read_text().partition("-----END CERTIFICATE-----\n")
    file(good, "ca").write_text("".join(leaf[:2]))
    assert says(good) == [Finding.FILES_SWAPPED]


def test_the_ca_before_the_device(good: Paths, workshop: Workshop, says: Found) -> None:
    """A chain in the wrong order: TLS would show the CA's certificate as the device's."""
    content = file(good, "certificate").read_bytes()
    issuing = pem(workshop.issuing)
    file(good, "certificate").write_bytes(issuing + content.replace(issuing, b""))
    assert says(good) == [Finding.FILES_SWAPPED]


def test_the_key_of_the_ca_is_named(workshop: Workshop, tmp_path: Path) -> None:
    """Somebody took issuing.key for the device's."""
    paths = workshop.bundle(tmp_path / "device")
    write_private(file(paths, "key"), (workshop.directory / "issuing.key").read_bytes())
    [check] = [check for check in look(paths, elsewhere=tmp_path) if check.finding is Finding.KEY_MISMATCH]
    assert "that of a CA" in check.what


def test_device_json_of_another_tenant(good: Paths, says: Found) -> None:
    """The certificate says acme."""
    write_device(file(good, "device").parent, tenant="globex", device_id=DEVICE_ID, kid=1)
    assert says(good) == [Finding.TENANT_MISMATCH]


def test_device_json_of_another_device(good: Paths, says: Found) -> None:
    """The certificate says car-7-tcu."""
    write_device(file(good, "device").parent, tenant=TENANT, device_id="car-8-tcu", kid=1)
    assert says(good) == [Finding.DEVICE_MISMATCH]


@pytest.mark.parametrize(
    "facts",
    [
        {"tenant": TENANT},
        {"kid": 2**32},
        {"kid": "1"},
        {"tenant": "Not An Id"},
        {"mac_key": "c2hvcnQ="},
        {"mac_key": "?"},
    ],
    ids=lambda facts: "-".join(map(str, facts.values()))[:12],
)
def test_device_json_with_a_field_that_cannot_be(good: Paths, says: Found, facts: dict[str, object]) -> None:
    """Missing, out of range, of another kind."""
    whole = {"tenant": TENANT, "device_id": DEVICE_ID, "kid": 1}
    write_device(file(good, "device").parent, **(facts if facts == {"tenant": TENANT} else whole | facts))
    assert says(good) == [Finding.FILE_DAMAGED]


def test_no_secret_stands_in_what_is_said(good: Paths, tmp_path: Path) -> None:
    """Neither the private key nor the MAC key, in no repr and no sentence."""
    papers, checks = read_papers(good), look(good, elsewhere=tmp_path)
    body = file(good, "key").read_text().splitlines()[1]
    said = f"{papers.device!r} {checks!r}"
    assert body not in said
    assert "AAAA" not in said
    assert [check.says for check in checks].count(Says.CANNOT_TELL) == 1
