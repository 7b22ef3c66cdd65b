"""What a verification says: findings, each of a closed set of kinds, and notes on what is no finding."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field


class Kind(StrEnum):
    MISSING = "missing"
    ALTERED = "altered"
    ADDED = "added"
    CUT_OFF = "cut_off"
    SIGNATURE = "signature"
    UNSIGNED = "unsigned"


class Finding(Struct, frozen=True):
    """`what` is a sentence. `segment` and `table` are None where it is not about one."""

    kind: Kind
    spool: str
    segment: int | None
    table: str | None
    what: str

    @property
    def place(self) -> tuple[str, int | None, str | None]:
        return self.spool, self.segment, self.table


class Report(Struct):
    """`rows` were hashed; `heads` had a good signature; `unsigned` segments are behind the newest of them."""

    spools: int = 0
    segments: int = 0
    rows: int = 0
    heads: int = 0
    unsigned: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, kind: Kind, spool: str, segment: int | None, what: str, table: str | None = None) -> None:
        self.findings.append(Finding(kind, spool, segment, table, what))


class AuditFinding(Struct, frozen=True):
    """`what` is a sentence; `place` is None where it is about none."""

    kind: Kind
    place: int | None
    what: str


class AuditReport(Struct):
    """`rows` were hashed; `heads` had a good signature; `unsigned` rows are behind the newest of them."""

    rows: int = 0
    heads: int = 0
    unsigned: int = 0
    findings: list[AuditFinding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, kind: Kind, place: int | None, what: str) -> None:
        self.findings.append(AuditFinding(kind, place, what))
