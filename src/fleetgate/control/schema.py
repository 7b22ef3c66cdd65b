"""The tables of the control database, in SQLAlchemy Core.

Tenant, vehicle, device, credential and binding are apart, so that replacing a unit, renewing a certificate or selling
the car changes one of them and leaves the history of the others. VINs stand in a table of their own, which a
connection opened for reading cannot read (`control.database`), nor what ties the car of one tenant to that of another.
The clauses for PostgreSQL are not in use: `control.database` opens SQLite alone. Which rows may be written together is
decided by `control.devices`, `control.credentials` and `control.quarantine`. All times are Unix milliseconds.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    event,
)

SCHEMA_VERSION = 3  # what changed since 1 is in `control.migrations`

_RowId = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts up by itself in SQLite

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""`schema`: version of these tables. `revision`: that of the newest row of `changes`."""

tenants = Table(
    "tenants",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("created_at_ms", BigInteger, nullable=False),
)

vehicles = Table(
    "vehicles",
    metadata,
    Column("tenant", String(63), ForeignKey("tenants.tenant"), nullable=False),
    Column("vehicle_id", String(63), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "vehicle_id"),
)

vins = Table(
    "vins",
    metadata,
    Column("tenant", String(63), nullable=False),
    Column("vehicle_id", String(63), nullable=False),
    Column("vin", String(17), nullable=False),
    PrimaryKeyConstraint("tenant", "vehicle_id"),
    ForeignKeyConstraint(["tenant", "vehicle_id"], ["vehicles.tenant", "vehicles.vehicle_id"]),
)

devices = Table(
    "devices",
    metadata,
    Column("tenant", String(63), ForeignKey("tenants.tenant"), nullable=False),
    Column("device_id", String(63), nullable=False),
    Column("status", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("state_at_ms", BigInteger, nullable=False),
    Column("decided_at_ms", BigInteger, nullable=False, server_default="0"),
    Column("enrolled_at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "device_id"),
)
"""`state_at_ms`: when an edge or a person gave it `state`; `decided_at_ms`: when a person last did, 0 for never."""

credentials = Table(
    "credentials",
    metadata,
    Column("credential_id", _RowId, primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("device_id", String(63), nullable=False),
    Column("certificate", Text, nullable=False),  # PEM, the leaf alone
    Column("serial", String(40), nullable=False),  # hex; a serial has up to 20 bytes
    Column("fingerprint", LargeBinary(32), nullable=False, unique=True),
    Column("key_digest", LargeBinary(32), nullable=False),
    Column("kid", BigInteger, nullable=False),
    Column("parent", _RowId, ForeignKey("credentials.credential_id")),
    Column("not_before_ms", BigInteger, nullable=False),
    Column("not_after_ms", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("reason", Text),
    Column("revoked_from_ms", BigInteger),
    Column("invalid_from_ms", BigInteger),
    ForeignKeyConstraint(["tenant", "device_id"], ["devices.tenant", "devices.device_id"]),
)
"""`parent`: the credential that this one was renewed from; none: a person enrolled it. `ended_at_ms`: when another took
its place or it was revoked. `revoked_from_ms`: when a revocation takes effect; where that is still to come, `status` is
what it was, and becomes `revoked` with the first write after it (`control.store`). `invalid_from_ms`: since when it was
not to be trusted, where that is known to be before its revocation."""
Index("credentials_of_device", credentials.c.tenant, credentials.c.device_id)
Index("credentials_of_key", credentials.c.key_digest)
_to_come = and_(credentials.c.revoked_from_ms.is_not(None), credentials.c.status != "revoked")
Index("revocations_to_come", credentials.c.revoked_from_ms, sqlite_where=_to_come, postgresql_where=_to_come)
Index(
    "one_active_credential",
    credentials.c.tenant,
    credentials.c.device_id,
    unique=True,
    sqlite_where=credentials.c.status == "active",
    postgresql_where=credentials.c.status == "active",
)

bindings = Table(
    "bindings",
    metadata,
    Column("binding_id", _RowId, primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("device_id", String(63), nullable=False),
    Column("vehicle_id", String(63), nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    Column("to_ms", BigInteger),
    ForeignKeyConstraint(["tenant", "device_id"], ["devices.tenant", "devices.device_id"]),
    ForeignKeyConstraint(["tenant", "vehicle_id"], ["vehicles.tenant", "vehicles.vehicle_id"]),
)
for _side in ("device_id", "vehicle_id"):
    Index(
        f"one_open_binding_of_{_side.removesuffix('_id')}",
        bindings.c.tenant,
        bindings.c[_side],
        unique=True,
        sqlite_where=bindings.c.to_ms.is_(None),
        postgresql_where=bindings.c.to_ms.is_(None),
    )

transfers = Table(
    "transfers",
    metadata,
    Column("transfer_id", _RowId, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("from_tenant", String(63), nullable=False),
    Column("from_vehicle_id", String(63), nullable=False),
    Column("to_tenant", String(63), nullable=False),
    Column("to_vehicle_id", String(63), nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    ForeignKeyConstraint(["from_tenant", "from_vehicle_id"], ["vehicles.tenant", "vehicles.vehicle_id"]),
    ForeignKeyConstraint(["to_tenant", "to_vehicle_id"], ["vehicles.tenant", "vehicles.vehicle_id"]),
)
"""Which pseudonym of one tenant was the same car as which of another: for those who may see VINs, like those."""

quarantine_cases = Table(
    "quarantine_cases",
    metadata,
    Column("case_id", _RowId, primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("device_id", String(63), nullable=False),
    Column("opened_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Column("closed_at_ms", BigInteger),
    Column("why", Text, nullable=False),
    Column("score", Float, nullable=False),
    Column("policy_version", String(128), nullable=False),
    ForeignKeyConstraint(["tenant", "device_id"], ["devices.tenant", "devices.device_id"]),
)
Index(
    "one_open_case",
    quarantine_cases.c.tenant,
    quarantine_cases.c.device_id,
    unique=True,
    sqlite_where=quarantine_cases.c.closed_at_ms.is_(None),
    postgresql_where=quarantine_cases.c.closed_at_ms.is_(None),
)

decisions = Table(
    "decisions",
    metadata,
    Column("decision_id", _RowId, primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("device_id", String(63), nullable=False),
    Column("case_id", _RowId, ForeignKey("quarantine_cases.case_id")),  # none: decided without a case
    Column("at_ms", BigInteger, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("classification", String(16), nullable=False),
    Column("actor", Text, nullable=False),
    Column("comment", Text, nullable=False),
    ForeignKeyConstraint(["tenant", "device_id"], ["devices.tenant", "devices.device_id"]),
)
Index("decisions_of_device", decisions.c.tenant, decisions.c.device_id, decisions.c.at_ms)

transitions_applied = Table(
    "transitions_applied",
    metadata,
    Column("spool", String(32), nullable=False),
    Column("segment", BigInteger, nullable=False),
    Column("record_offset", BigInteger, nullable=False),
    Column("applied_at_ms", BigInteger, nullable=False),
    Column("outcome", String(16), nullable=False),
    UniqueConstraint("spool", "segment", "record_offset"),
)

spools = Table(
    "spools",
    metadata,
    Column("spool", String(32), primary_key=True),
    Column("begun_at_ms", BigInteger, nullable=False),
    Column("loaded", BigInteger, nullable=False),
    Column("newest_received_ms", BigInteger, nullable=False, server_default="0"),
    Column("replaced_at_ms", BigInteger),
)
"""See `control.spools`."""

watch_turns = Table(
    "watch_turns",
    metadata,
    Column("spool", String(32), primary_key=True),
    Column("said", BigInteger, nullable=False),
    Column("until_ms", BigInteger),
    Column("watches", Boolean, nullable=False),
)
"""See `control.watchturns`."""

breaker_overrides = Table(
    "breaker_overrides",
    metadata,
    Column("kind", String(16), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("name", String(128), nullable=False),
    Column("mode", String(16), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    PrimaryKeyConstraint("kind", "tenant", "name"),
)
"""What people say of cohorts, which need not have any device. None said: as the edges decide."""

edge_alerts = Table(
    "edge_alerts",
    metadata,
    Column("key", Text, nullable=False),
    Column("opened_at_ms", BigInteger, nullable=False),
    Column("closed_at_ms", BigInteger),
    Column("kind", String(32), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("cohort", Text, nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    PrimaryKeyConstraint("key", "opened_at_ms"),
)
"""The `alert` records of spools: what an edge has opened and closed. Of one key at most one is open."""
suspicions = Table(
    "suspicions",
    metadata,
    Column("suspicion_id", _RowId, primary_key=True),
    Column("revision", BigInteger, nullable=False, index=True),
    Column("spool", String(32), nullable=False),
    Column("segment", BigInteger, nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("device_id", String(63), nullable=False),
    Column("edge_id", Text, nullable=False),
    Column("signal", String(32), nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("noted_at_ms", BigInteger, nullable=False, index=True),
    Column("detail", Text, nullable=False),  # JSON
    UniqueConstraint("spool", "segment", "tenant", "device_id", "signal"),
)
"""See `control.suspicions`. `revision` is that of the change that told edges of it."""

audit = Table(
    "audit",
    metadata,
    Column("place", _RowId, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", String(32), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", Text, nullable=False),  # JSON; never key material
    Column("hash", String(64), nullable=False),
)
"""A chain: `control.auditchain`. Triggers refuse what is no row at its end, so that no mistake of ours breaks it; who
can write into the file can take them away, and is found out by the hashes."""

RESTORED = "records_restored"
"""The action of a row that the chain begins anew with (`control.auditheads`)."""
Index("audit_beginnings", audit.c.place, sqlite_where=audit.c.action == RESTORED)

AUDIT_TRIGGERS = (
    "CREATE TRIGGER audit_at_its_end BEFORE INSERT ON audit "
    "WHEN NEW.place IS NOT (SELECT coalesce(max(place), 0) + 1 FROM audit) "
    "BEGIN SELECT RAISE(ABORT, 'a row of the audit is written at its end'); END",
    "CREATE TRIGGER audit_not_changed BEFORE UPDATE ON audit "
    "BEGIN SELECT RAISE(ABORT, 'no row of the audit is changed'); END",
    "CREATE TRIGGER audit_not_deleted BEFORE DELETE ON audit "
    "BEGIN SELECT RAISE(ABORT, 'no row of the audit is deleted'); END",
)
for _trigger in AUDIT_TRIGGERS:
    event.listen(audit, "after_create", DDL(_trigger).execute_if(dialect="sqlite"))  # type: ignore[no-untyped-call]

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("chain", String(64), nullable=False),
    Column("place", BigInteger, nullable=False),
    Column("link", String(64), nullable=False),
    Column("signed_at_ms", BigInteger, nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("signature", String(128), nullable=False),
    PrimaryKeyConstraint("chain", "place", "key_id"),
)
"""See `control.auditheads`. With the key: a signer that began anew signs a place again."""

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("endpoint", String(64), nullable=False),
    Column("delivery", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("endpoint", "delivery"),
)
"""See `control.deliveries`."""

changes = Table(
    "changes",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("device_id", String(63), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
"""What edges poll. Rows are never removed while any edge may be behind them, or stands at them: it compares."""
