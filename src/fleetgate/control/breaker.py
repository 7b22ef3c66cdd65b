"""The breaker of the edges, in the records: what people say of a cohort.

Decides what may be said and that it stands in the audit. When a cohort is held is decided by each edge by itself
(`accept.breaker`); edges ask for the overrides with each poll.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from msgspec import Struct
from sqlalchemy import and_, delete, insert, select

from fleetgate.control.cohorts import Cohort, CohortKind, Mode
from fleetgate.control.reason import check_reason
from fleetgate.control.roster import unknown_tenant
from fleetgate.control.schema import breaker_overrides, edge_alerts, tenants
from fleetgate.control.store import Store, Write
from fleetgate.errors import ConfigError, NotFound

_CA: Final = re.compile(r"[0-9a-f]{16}")


class Override(Struct, frozen=True):
    """What a person said of a cohort, and why."""

    kind: str
    tenant: str
    name: str
    mode: str
    at_ms: int
    actor: str
    reason: str


def set_mode(store: Store, cohort: Cohort, mode: Mode, actor: str, reason: str, trusted: Collection[str] = ()) -> None:
    """From now on, until somebody says something else. `trusted` are the CAs of the configuration, as cohorts name
    them. Raises ConfigError without a reason and for what names no CA, NotFound for a tenant that has no device, a CA
    that is neither trusted nor in an alert, and where there is nothing to take back."""
    check_reason(reason)
    kind, tenant, name = cohort
    table = breaker_overrides
    of_cohort = and_(table.c.kind == kind, table.c.tenant == tenant, table.c.name == name)
    with store.write(actor) as write:
        before = write.row(select(table.c.mode).where(of_cohort))
        if mode is not Mode.AUTO:
            _require(write, cohort, trusted)
        if before is None and mode is Mode.AUTO:
            raise NotFound("nothing was said of this cohort: `fleetgate breaker list` shows what was")
        write.execute(delete(table).where(of_cohort))
        if mode is not Mode.AUTO:
            said = {"mode": mode, "at_ms": write.now_ms, "actor": actor, "reason": reason}
            write.execute(insert(table), {"kind": kind, "tenant": tenant, "name": name} | said)
        detail = {"before": before.mode if before is not None else Mode.AUTO, "reason": reason}
        write.note(f"breaker-{mode}", tenant, _object(cohort), detail)


def _require(write: Write, cohort: Cohort, trusted: Collection[str]) -> None:
    """Who mistypes it would think that the fleet is held. (A version may be announced before a device runs it.)"""
    tenant, name = cohort.tenant, cohort.name
    if cohort.kind is not CohortKind.ISSUER:
        if write.row(select(tenants).where(tenants.c.tenant == tenant)) is None:
            raise NotFound(unknown_tenant(tenant))
    elif not _CA.fullmatch(name):
        raise ConfigError(f"{name!r} is no CA: it takes the first 16 hex digits of the SHA-256 of its public key info")
    elif name not in trusted:
        told = select(edge_alerts.c.key).where(edge_alerts.c.cohort == str(cohort)).limit(1)
        if write.row(told) is None:
            raise NotFound(
                f"CA {name} is neither in edge.trust_bundle nor in an alert of `fleetgate breaker list --all`"
            )


def overrides(store: Store) -> Mapping[Cohort, Mode]:
    """For the edges."""
    rows = store.rows(select(breaker_overrides))
    return {Cohort(CohortKind(row.kind), row.tenant, row.name): Mode(row.mode) for row in rows}


def list_overrides(store: Store) -> list[Override]:
    rows = store.rows(select(breaker_overrides).order_by(breaker_overrides.c.at_ms.desc()))
    return [Override(row.kind, row.tenant, row.name, row.mode, row.at_ms, row.actor, row.reason) for row in rows]


def _object(cohort: Cohort) -> str:
    return f"cohort/{str(cohort) or 'all'}"
