"""Devices that are refused before anything of theirs is judged, because of the CA that issued their certificates.

Decides when that is an alert: nobody is scored for it, so no quarantine would tell. A CA whose chain has expired fails
in TLS, where nothing is said of the device; but the edge has verified the chain before, and knows until when it was
good. What fails behind TLS (a revocation list that names a whole fleet or is out of date, a CA that may not speak for
the tenant any more) names its device, and is an alert when it is a surge. Who is refused is decided by `vetting`. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from fleetgate.accept.surge import CALM_MS, Key, Window, alert_key, limit_at_opening, limit_of
from fleetgate.control.cohorts import Cohort, CohortKind
from fleetgate.spool.format import AlertRecord

EXPIRED: Final = "issuer_expired"
REFUSED: Final = "connections_refused"
KINDS: Final = (EXPIRED, REFUSED)
MAX_ISSUERS: Final = 1_000  # chains that were verified: few CAs vouch for many devices


class _Surge:
    """Of one CA. `limit` is what a surge was when its alert opened: whoever is refused for a day has left the census.
    `busy_at` is when there last was half of one."""

    def __init__(self) -> None:
        self.refused = Window()
        self.limit = math.inf
        self.busy_at = 0


class IssuerTrouble:
    """Of one edge. Issuers are named as `fleet.issuer_of` does; `on_alert` gets each opening and closing."""

    def __init__(self, edge_id: str) -> None:
        self._edge_id = edge_id
        self._good_until: dict[str, int] = {}
        self._surges: dict[str, _Surge] = {}
        self._open: dict[tuple[str, str], AlertRecord] = {}  # by kind and cohort: the edge may be renamed
        self.on_alert: Callable[[AlertRecord], None] = lambda record: None

    def verified(self, issuer: str, until_ms: int) -> None:
        """A chain below this CA was verified; all CA certificates in it are good until then (Unix ms)."""
        if issuer in self._good_until or len(self._good_until) < MAX_ISSUERS:
            self._good_until[issuer] = until_ms

    def refused(self, key: Key, issuer: str, now: int) -> None:
        self._surges.setdefault(issuer, _Surge()).refused.note(key, "", now)

    def look(self, now: int, sizes: Mapping[Cohort, int]) -> None:
        """Opens and closes; called every second or so. `sizes` as of the census."""
        for issuer, until_ms in self._good_until.items():
            record = self._open.get((EXPIRED, str(_cohort(issuer))))
            if record is not None and until_ms > now:
                self._close(record, now)
            elif record is None and until_ms <= now and (devices := sizes.get(_cohort(issuer), 0)):
                self._raise(EXPIRED, issuer, now, {"vehicles": devices, "expired_at_ms": until_ms})
        for issuer, surge in list(self._surges.items()):
            self._look_at(issuer, surge, now, sizes.get(_cohort(issuer), 0))

    def now_open(self) -> list[AlertRecord]:
        return list(self._open.values())

    def restore(self, records: Iterable[AlertRecord], now: int) -> None:
        """After a start: the alerts that were open."""
        for record in records:
            self._open[record.kind, record.cohort] = record
            if record.kind == REFUSED:
                issuer = record.cohort.removeprefix(f"{CohortKind.ISSUER} ")
                surge = self._surges[issuer] = _Surge()
                surge.limit, surge.busy_at = limit_at_opening(record), now

    def _look_at(self, issuer: str, surge: _Surge, now: int, seen: int) -> None:
        record = self._open.get((REFUSED, str(_cohort(issuer))))
        devices = surge.refused.count(now)
        if record is None:
            size = max(seen, devices)  # a CA's may have been refused since their first day
            surge.limit, surge.busy_at = limit_of(size), now
            if devices >= surge.limit:
                self._raise(REFUSED, issuer, now, {"vehicles": devices, "size": size})
            elif not devices:
                del self._surges[issuer]
        elif 2 * devices >= surge.limit:
            surge.busy_at = now
        elif now - surge.busy_at >= CALM_MS:
            self._close(record, now)

    def _raise(self, kind: str, issuer: str, now: int, detail: dict[str, str | int | float]) -> None:
        cohort = str(_cohort(issuer))
        record = AlertRecord(alert_key(self._edge_id, "", kind, cohort), "open", now, kind, "", cohort, detail)
        self._open[record.kind, record.cohort] = record
        self.on_alert(record)

    def _close(self, record: AlertRecord, now: int) -> None:
        del self._open[record.kind, record.cohort]
        self.on_alert(msgspec.structs.replace(record, state="closed", at=max(now, record.at + 1), detail={}))


def _cohort(issuer: str) -> Cohort:
    return Cohort(CohortKind.ISSUER, "", issuer)
