"""What the other rooms get to see of the control records: frozen values, no database in them.

Decides the closed sets of statuses and states and the pattern of ids. What a status means for a message is decided by
the judge; which state follows which, by `control.states`.
"""

from __future__ import annotations

import re
from enum import StrEnum

from msgspec import Struct

ID_PATTERN = r"[a-z0-9][a-z0-9._-]{0,62}"
"""Tenant, vehicle and device ids (schemas/envelope.md); at most 63 bytes, so that one fits a DNS label."""

_ID = re.compile(ID_PATTERN)


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


class DeviceStatus(StrEnum):
    """What people decided about a device."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    BANNED = "banned"
    DECOMMISSIONED = "decommissioned"


class DeviceState(StrEnum):
    """How far a device is trusted: moved by its score, and by a person's decision."""

    TRUSTED = "trusted"
    WATCHED = "watched"
    QUARANTINED = "quarantined"
    RELEASED = "released"
    BANNED = "banned"


class CredentialStatus(StrEnum):
    ACTIVE = "active"
    FORMER = "former"
    REVOKED = "revoked"


def status_at(status: str, revoked_from_ms: int | None, now_ms: int) -> CredentialStatus:
    """A credential's status now, whether or not anybody has written down since that its revocation took effect."""
    revoked = revoked_from_ms is not None and revoked_from_ms <= now_ms
    return CredentialStatus.REVOKED if revoked else CredentialStatus(status)


class CredentialRecord(Struct, frozen=True, gc=False):
    """A certificate of a device. `key_digest`, `fingerprint`: SHA-256, 32 bytes; times in Unix milliseconds.

    `revoked_from_ms` may be still to come: `status` is that of the time when the record was read.
    """

    key_digest: bytes
    fingerprint: bytes
    kid: int
    status: CredentialStatus
    not_after_ms: int
    ended_at_ms: int | None
    revoked_from_ms: int | None = None


class DeviceRecord(Struct, frozen=True, gc=False):
    """A telematics unit. `vehicle_id` is None while it sits in no vehicle; `credentials` stand newest first.

    `state_at_ms` is when an edge or a person gave it `state`, `decided_at_ms` when a person last did: what stands of
    two views of a device is decided by `control.states`.
    """

    tenant: str
    device_id: str
    vehicle_id: str | None
    status: DeviceStatus
    state: DeviceState
    state_at_ms: int
    credentials: tuple[CredentialRecord, ...]
    decided_at_ms: int = 0


class Change(Struct, frozen=True, gc=False):
    """One device's records changed; `revision` is unique and only grows."""

    revision: int
    kind: str
    tenant: str
    device_id: str
    at_ms: int
