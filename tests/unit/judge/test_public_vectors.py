"""The vectors of RFC 4231 (HMAC-SHA-256) and RFC 5869 (HKDF-SHA-256), through the judge's own MAC and derivation.

As `cryptography-vectors` carries them. The MAC is tried without the gate's context string, and with a context that is
the beginning of the message. What is truncated is truncated by `judge.mac`, to 16 bytes as in test case 5.
"""

from __future__ import annotations

from pathlib import Path

import cryptography_vectors
import pytest

from fleetgate.judge.envelope import TAG_BYTES
from fleetgate.judge.keys import MacKey, hkdf

VECTORS = Path(cryptography_vectors.__file__).parent
BLOCK_BYTES = 64


def vectors(file: str, last: str) -> list[dict[str, str]]:
    """Each block of `name = value` lines, which ends with the line that is named `last`."""
    found: list[dict[str, str]] = []
    block: dict[str, str] = {}
    for line in (VECTORS / file).read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            block[name.strip()] = value.strip()
            if name.strip() == last:
                found.append(block)
                block = {}
    return found


HMAC = [[bytes.fromhex(case[name]) for name in ("Key", "Msg", "MD")] for case in vectors(
    "HMAC/rfc-4231-sha256.txt", "MD")]  # fmt: skip
SHORT = [case for case in HMAC if len(case[0]) <= BLOCK_BYTES]
# Test case 5, which the package leaves out: the first 128 bits.
TRUNCATED = (b"\x0c" * 20, b"Test With Truncation", "a3b6167473100ee06e0c796c2955552b")


@pytest.mark.parametrize(("key", "message", "digest"), SHORT)
def test_rfc_4231(key: bytes, message: bytes, digest: bytes) -> None:
    """Whole digests, twice from one key; and with the first half as context."""
    mac = MacKey(key, b"")
    assert mac.digest(message) == mac.digest(message) == digest
    half = len(message) // 2
    assert MacKey(key, message[:half]).digest(message[half:]) == digest


def test_rfc_4231_with_truncation() -> None:
    """The tag of an envelope has the length of this one."""
    key, message, tag = TRUNCATED
    assert MacKey(key, b"").digest(message)[:TAG_BYTES].hex() == tag


def test_a_key_longer_than_a_block_is_no_key_here() -> None:
    """Cases 6 and 7 have one of 131 bytes, to be hashed first: MAC keys have 32, nothing longer is taken silently."""
    long = [key for key, _, _ in HMAC if len(key) > BLOCK_BYTES]
    assert len(long) == 2
    for key in long:
        with pytest.raises(ValueError, match="at most 64 bytes"):
            MacKey(key)


@pytest.mark.parametrize("case", vectors("KDF/rfc-5869-HKDF-SHA256.txt", "OKM"), ids=lambda case: case["COUNT"])
def test_rfc_5869(case: dict[str, str]) -> None:
    """The derivation that `derive_mac_key` stands on, with salt, info and length of the vector."""
    ikm, salt, info, okm = (bytes.fromhex(case[name]) for name in ("IKM", "salt", "info", "OKM"))
    assert hkdf(ikm, salt, info, int(case["L"])) == okm
