"""A signer beside a bench's loader, and the verification as the command makes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from fleetgate.clock import SystemClock
from fleetgate.control.auditkey import make_audit_key, read_audit_key
from fleetgate.control.heads import SignedHead, read_public_key
from fleetgate.control.signer import Service, Signer
from fleetgate.control.signing import SignerClient
from fleetgate.control.signlog import SignLog, count_of
from fleetgate.load.counts import Counts
from fleetgate.load.heads import Heads
from fleetgate.proof.findings import Report
from fleetgate.proof.heads import stored_heads
from fleetgate.proof.rows import Keeping
from fleetgate.proof.segments import Scope, verify_segments


class Audit:
    """`sign` makes a round of load's; `verify` gives the report on the bench's spool."""

    def __init__(self, bench: Any, directory: Path) -> None:
        self.bench = bench
        self.directory = directory
        self.socket = directory / "signer.sock"
        self.key, self.public, self.log = (directory / name for name in ("audit.key", "audit.pem", "signer.log"))
        make_audit_key(self.key, self.public, self.log)
        self.client = SignerClient(self.socket, self.public)
        self.counts = Counts(CollectorRegistry())

    @property
    def spool(self) -> str:
        return str(self.bench.spool.identity.hex())

    @contextmanager
    def signer(self) -> Iterator[None]:
        """The service, running."""
        signlog = SignLog(self.log, count_of(self.key))
        service = Service(
            self.socket, Signer(read_audit_key(self.key, self.public), signlog, SystemClock()), SystemClock()
        )
        thread = threading.Thread(target=service.run, args=(lambda: True,))
        thread.start()
        try:
            yield
        finally:
            service.stop()
            thread.join()
            service.close()
            signlog.close()

    def round(self) -> None:
        """What load's thread does once a minute, whether a signer is there or not."""
        bench, clickhouse = self.bench, self.bench.clickhouse
        Heads(bench.spool.directory, self.client, clickhouse, bench.inserts.chain, self.counts).round()

    def sign(self) -> None:
        with self.signer():
            self.round()

    def heads(self) -> list[SignedHead]:
        return stored_heads(self.bench.clickhouse, self.spool).heads

    def verify(self, heads: list[SignedHead] | None = None, now_ms: int | None = None, **scope: Any) -> Report:
        key = read_public_key(self.public)
        keeping = Keeping(SystemClock().now_ms() if now_ms is None else now_ms, 7)
        known = self.heads() if heads is None else heads
        return verify_segments(self.bench.clickhouse, known, key, keeping, Scope(self.spool, **scope))

    def tamper(self, table: str, change: str) -> None:
        """Runs ALTER TABLE `table` `change`, at once, with {spool} for the bench's spool."""
        where = change.replace("{spool}", f"'{self.spool}'")
        self.bench.clickhouse.command(f"ALTER TABLE {table} {where} SETTINGS mutations_sync = 2")

    def found(self) -> list[tuple[str, int | None, str | None]]:
        """(kind, segment, table) of each finding."""
        return [(f.kind.value, f.segment, f.table) for f in self.verify().findings]
