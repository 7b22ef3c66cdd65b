"""The keyring: MAC root keys in a file that only its owner reads.

Decides which root keys there are, which of them still verify, and which one new credentials are made under. When one
may be added or ended is decided by `control.rotation`; how a device's key follows from a root, by `judge.keys`; the
file's mode and owner, by `control.secretfile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from fleetgate.clock import Entropy
from fleetgate.control.secretfile import read_secret, write_secret
from fleetgate.errors import ConfigError

ROOT_BYTES = 32
MAX_KID = 2**32 - 1  # u32 in the envelope
FIRST_KID = 1
SETTLING_MS = 5_000
"""For so long new credentials are still made under the root key before: an edge takes a new keyring within 3 s, and
until then would refuse them."""


class RootState(StrEnum):
    ACTIVE = "active"
    RETIRED = "retired"  # its last credential has ended: kept for proving old messages, verifies no new one
    WITHDRAWN = "withdrawn"  # in an emergency, while credentials are under it: like a retired one, but blames nobody


class Root(Struct, frozen=True, forbid_unknown_fields=True):
    """A root key as it stands in the file. Its repr holds no secret."""

    root: bytes
    created_at: int
    state: RootState

    def __repr__(self) -> str:
        return f"Root(created_at={self.created_at}, state={self.state.value!r})"

    def __rich_repr__(self) -> Any:
        yield "state", self.state.value


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    roots: dict[str, Root]


class Keyring:
    """Root keys by key id. Its repr tells the key ids and nothing else."""

    __slots__ = ("_active", "_roots", "_withdrawn")

    def __init__(
        self,
        roots: Mapping[int, bytes | None],
        withdrawn: frozenset[int] = frozenset(),
        created_ms: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """`roots` maps each key id to its 32 bytes, or to None once retired; withdrawn ones are not among them.
        `created_ms` is when each was made (Unix ms), where that is known. Raises ValueError if none is active."""
        active = {kid: created_ms.get(kid, 0) for kid, root in roots.items() if root is not None}
        if not active:
            raise ValueError("a keyring needs an active root key")
        self._roots = MappingProxyType(dict(roots))
        self._active = active
        self._withdrawn = withdrawn

    @classmethod
    def load(cls, path: Path) -> Keyring:
        """Raises ConfigError, naming the file, for one that others can read or that is not a keyring."""
        entries = read_roots(path)
        withdrawn = frozenset(kid for kid, entry in entries.items() if entry.state is RootState.WITHDRAWN)
        roots = {
            kid: entry.root if entry.state is RootState.ACTIVE else None
            for kid, entry in entries.items()
            if kid not in withdrawn
        }
        try:
            return cls(roots, withdrawn, {kid: entry.created_at for kid, entry in entries.items()})
        except ValueError:
            raise ConfigError(f"{path} holds no active root key: restore the file or make a new keyring") from None

    @classmethod
    def create(cls, path: Path, now_ms: int, entropy: Entropy) -> Keyring:
        """Writes a new keyring with one root key. Raises Conflict where the file exists."""
        root = entropy(ROOT_BYTES)
        write_secret(path, encode_roots({FIRST_KID: Root(root, now_ms, RootState.ACTIVE)}))
        return cls({FIRST_KID: root}, created_ms={FIRST_KID: now_ms})

    @staticmethod
    def proving_roots(path: Path) -> Mapping[int, bytes]:
        """Every root key in the file, those that ended too: for proving what was accepted under them, never for
        accepting. Raises ConfigError."""
        return {kid: entry.root for kid, entry in read_roots(path).items()}

    def issuing_kid(self, now_ms: int) -> int:
        """The key id that a credential made now is made under: the newest, once every edge knows it."""
        settled = [kid for kid, created_ms in self._active.items() if now_ms - created_ms >= SETTLING_MS]
        return max(settled) if settled else min(self._active, key=lambda kid: (self._active[kid], kid))

    @property
    def roots(self) -> Mapping[int, bytes | None]:
        """Every key id the gate knows; None for a retired one. As `judge.keys.MacKeys` takes it.

        A withdrawn one is not among them, as if the gate never had it: devices that did nothing wrong send under it,
        and must not be scored for that.
        """
        return self._roots

    @property
    def withdrawn(self) -> frozenset[int]:
        """The key ids that were ended in an emergency."""
        return self._withdrawn

    def root(self, kid: int) -> bytes | None:
        """32 bytes; None where the key id is unknown or retired."""
        return self._roots.get(kid)

    def check_successor(self, later: Keyring) -> None:
        """Whether `later` may take this one's place while devices are sending.

        Raises ConfigError for one in which an active root key is another or gone: that is the file of another gate, or
        an old copy, and every device under that key would be refused and scored. Retired it may be at once.
        """
        for kid, root in self._roots.items():
            if root is None or kid in later.withdrawn:
                continue
            if kid not in later.roots:
                raise ConfigError(f"the keyring has no root key {kid} any more: retire it first, or restore it")
            if later.roots[kid] not in (root, None):
                raise ConfigError(f"root key {kid} of the keyring is another one now: give a new key a new key id")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keyring) and all(
            getattr(self, name) == getattr(other, name) for name in Keyring.__slots__
        )

    def __repr__(self) -> str:
        return f"Keyring(kids={sorted(self._roots)})"


def encode_roots(roots: Mapping[int, Root]) -> bytes:
    """The content of the file."""
    file = _File({str(kid): entry for kid, entry in sorted(roots.items())})
    return msgspec.json.format(msgspec.json.encode(file)) + b"\n"


def read_roots(path: Path) -> dict[int, Root]:
    """Everything in the file, by key id.

    Raises ConfigError, naming the file, for one that others can read or that is not a keyring.
    """
    content = read_secret(path)
    try:
        entries = _decode(content).roots
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ConfigError(f'{path} is not a keyring: it must hold {{"roots": {{"1": ...}}}}') from None
    for name, entry in entries.items():
        if not (name.isascii() and name.isdecimal() and name == str(int(name)) and int(name) <= MAX_KID):
            raise ConfigError(f"{path}: a key id must be a decimal number from 0 to {MAX_KID}")
        if len(entry.root) != ROOT_BYTES:
            raise ConfigError(f"{path}: root key {name} must have {ROOT_BYTES} bytes")
    return {int(name): entry for name, entry in entries.items()}


_decode = msgspec.json.Decoder(_File).decode
