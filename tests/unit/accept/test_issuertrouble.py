"""Devices that are refused because of their CA: when that is an alert, and when it is over."""

from __future__ import annotations

import pytest
from tests.units import NOW

from fleetgate.accept.issuertrouble import IssuerTrouble
from fleetgate.accept.surge import CALM_MS
from fleetgate.control.cohorts import Cohort, CohortKind
from fleetgate.spool.format import AlertRecord

CA = "c0ffee"
SIZES = {Cohort(CohortKind.ISSUER, "", CA): 400}
MINUTE_MS = 60_000


class Watch:
    def __init__(self, edge_id: str = "edge-1") -> None:
        self.alerts: list[AlertRecord] = []
        self.trouble = IssuerTrouble(edge_id)
        self.trouble.on_alert = self.alerts.append

    def refuse(self, count: int, now: int = NOW) -> None:
        for number in range(count):
            self.trouble.refused(("acme", f"tcu-{number}"), CA, now)

    def look(self, now: int, sizes: dict[Cohort, int] = SIZES) -> list[tuple[str, str]]:
        """All that was told until then."""
        self.trouble.look(now, sizes)
        return [(alert.kind, alert.state) for alert in self.alerts]


def test_a_ca_that_has_expired_is_an_alert_as_long_as_it_is() -> None:
    """Once; a chain with a renewed certificate of it ends that."""
    watch = Watch()
    watch.trouble.verified(CA, NOW)
    assert watch.look(NOW - 1) == []
    assert watch.look(NOW) == watch.look(NOW + MINUTE_MS) == [("issuer_expired", "open")]
    assert (watch.alerts[0].cohort, watch.alerts[0].detail["vehicles"]) == ("issuer c0ffee", 400)
    watch.trouble.verified(CA, NOW + 10**9)
    assert watch.look(NOW + 2 * MINUTE_MS)[1:] == [("issuer_expired", "closed")]


def test_a_ca_of_nobody_seen_lately_is_no_alert() -> None:
    """It ended when its last car was scrapped."""
    watch = Watch()
    watch.trouble.verified(CA, NOW)
    assert watch.look(NOW, sizes={}) == []


def test_many_devices_refused_under_one_ca_are_an_alert() -> None:
    """A surge, until for a quarter of an hour it was less than half of one."""
    watch = Watch()
    watch.refuse(19)
    assert watch.look(NOW) == []
    watch.refuse(20)
    assert watch.look(NOW) == [("connections_refused", "open")]
    for minute in range(60):
        watch.refuse(10, NOW + minute * MINUTE_MS)
        watch.look(NOW + minute * MINUTE_MS)
    last = NOW + 63 * MINUTE_MS
    for now in range(NOW + 60 * MINUTE_MS, last + CALM_MS, MINUTE_MS):
        watch.look(now)
    assert len(watch.alerts) == 1
    assert watch.look(last + CALM_MS)[1:] == [("connections_refused", "closed")]


@pytest.mark.parametrize("restarted", [False, True])
def test_who_is_refused_for_days_is_not_calm(restarted: bool) -> None:
    """They leave the census after a day, and the alert stays open as long as they are refused."""
    watch = Watch()
    watch.refuse(400)
    assert watch.look(NOW) == [("connections_refused", "open")]
    if restarted:
        record = watch.alerts[0]
        watch.trouble = IssuerTrouble("edge-1")
        watch.trouble.on_alert = watch.alerts.append
        watch.trouble.restore([record], NOW)
    for minute in range(60):
        watch.refuse(10, NOW + minute * MINUTE_MS)
        assert watch.look(NOW + minute * MINUTE_MS, sizes={}) == [("connections_refused", "open")]
    assert watch.look(NOW + 60 * MINUTE_MS + 2 * CALM_MS, sizes={})[1:] == [("connections_refused", "closed")]


def test_a_ca_under_which_nobody_ever_came_in_is_an_alert_too() -> None:
    """Whom the census does not know is counted by being refused; fewer than the smallest cohort are none."""
    watch = Watch()
    watch.refuse(49)
    assert watch.look(NOW, sizes={}) == []
    watch.refuse(50)
    assert watch.look(NOW, sizes={}) == [("connections_refused", "open")]


def test_one_device_that_comes_again_and_again_is_none() -> None:
    """Nor are twenty of a fleet that has a thousand."""
    watch = Watch()
    for _ in range(100):
        watch.refuse(1)
    watch.refuse(20)
    assert watch.look(NOW, sizes={Cohort(CohortKind.ISSUER, "", CA): 1_000}) == []


@pytest.mark.parametrize("edge_id", ["edge-1", "edge-9"])
def test_a_start_forgets_no_alert(edge_id: str) -> None:
    """It is not told again, and ends as it would have, also where the edge has another name since."""
    watch, after = Watch(), Watch(edge_id)
    watch.trouble.verified(CA, NOW)
    watch.refuse(20)
    watch.look(NOW)
    keys = {record.key for record in watch.alerts}
    after.trouble.restore(watch.trouble.now_open(), NOW)
    assert after.look(NOW + 1) == []
    assert after.look(NOW + CALM_MS) == [("connections_refused", "closed")]
    after.trouble.verified(CA, NOW + 10**9)
    assert after.look(NOW + CALM_MS + 1)[1:] == [("issuer_expired", "closed")]
    assert {record.key for record in after.alerts} == keys
