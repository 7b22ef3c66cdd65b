"""The keys of step 3: derived once, for known key ids only, bound to tenant, device and public key."""

from __future__ import annotations

import hashlib

import pytest
from tests.units import DEVICE_ID, KEY_DIGEST, ROOTS, TENANT, Unit, elements, hkdf, pack, sign

from fleetgate.judge import Outcome, Reason
from fleetgate.judge.keys import MacKeys, derive_mac_key

ROOT = bytes(range(32))
OTHER_DIGEST = hashlib.sha256(b"another key").digest()


def test_the_derivation_is_that_of_the_envelopes_text() -> None:
    """HKDF-SHA-256 with salt and info of section 2, computed here with two HMACs."""
    assert derive_mac_key(ROOT, TENANT, DEVICE_ID, KEY_DIGEST) == hkdf(ROOT, TENANT, DEVICE_ID, KEY_DIGEST)


@pytest.mark.parametrize(
    "other",
    [
        (bytes(32), TENANT, DEVICE_ID, KEY_DIGEST),
        (ROOT, "rival", DEVICE_ID, KEY_DIGEST),
        (ROOT, TENANT, "tcu-0002", KEY_DIGEST),
        (ROOT, TENANT, DEVICE_ID, OTHER_DIGEST),
        (ROOT, TENANT + DEVICE_ID[:1], DEVICE_ID[1:], KEY_DIGEST),  # lengths keep the names apart
    ],
)
def test_a_key_of_anything_else_does_not_verify(other: tuple[bytes, str, str, bytes]) -> None:
    """Another root, tenant, device or public key gives another key, and its messages are refused."""
    assert Unit().judge(sign(key=derive_mac_key(*other))).reason is Reason.BAD_MAC


@pytest.mark.parametrize(("root", "digest"), [(ROOT[:31], KEY_DIGEST), (ROOT, KEY_DIGEST[:16])])
def test_a_key_of_the_wrong_length_is_refused(root: bytes, digest: bytes) -> None:
    """A short root or digest is a mistake of the caller, never a weak key."""
    with pytest.raises(ValueError, match="32 bytes"):
        derive_mac_key(root, TENANT, DEVICE_ID, digest)


def test_strange_key_ids_do_not_fill_the_memory() -> None:
    """A device that names a thousand key ids leaves nothing behind: what is kept is bounded by the keyring."""
    keys = MacKeys(ROOTS, TENANT, DEVICE_ID, KEY_DIGEST)
    assert [kid for kid in range(1_000) if keys.get(kid) is not None] == [1, 2]


def test_a_message_is_verified_whatever_was_verified_before() -> None:
    """The key's states are copied, not used up: the second message under it verifies as the first did."""
    unit = Unit()
    assert [unit.take(sign(seq=seq)).outcome for seq in range(3)] == [Outcome.ACCEPTED] * 3


def test_a_shorter_tag_is_no_tag() -> None:
    """There is one tag length; a prefix of the right tag is malformed, not verified."""
    fields = elements()
    fields[7] = fields[7][:8]
    assert Unit().judge(pack(fields)).reason is Reason.MALFORMED_ENVELOPE
