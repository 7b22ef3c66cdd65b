"""Accounts: several rates at once, who shares which, and what is charged when."""

from __future__ import annotations

import gc

import pytest
from structlog.testing import capture_logs

from fleetgate.accept import limitlog
from fleetgate.accept import limits as limits_module
from fleetgate.accept.limits import SENT, Account, Level, Limits, Quantity, Rates, no_hits
from fleetgate.config import DeviceLimit, Limit
from fleetgate.config import Limits as Settings


def account(**limit: str) -> Account:
    return Account(Rates(Level.TENANT, Limit(**limit)), no_hits())


def test_every_rate_of_a_limit_holds() -> None:
    """A burst of five, and ten in a minute: after two bursts the long one decides."""
    one = account(messages="5/s, 10/min")
    passed = [second for second in range(63) for _ in range(9) if not one.take(1, 100, float(second))]
    assert (passed[:10], len(passed)) == ([0] * 5 + [1] * 5, 20)


def test_what_one_rate_refuses_the_others_are_not_charged_for() -> None:
    """Bytes are used up; the messages that do not pass cost no messages."""
    one = account(messages="3/day", bytes="1000/s")
    assert [one.take(1, 2000, 0.0) == 0.0 for _ in range(9)] == [True] + [False] * 8
    assert [one.take(1, 10, 3.0) == 0.0 for _ in range(9)].count(True) == 2


def test_events_are_charged_afterwards_and_refuse_the_next() -> None:
    """How many there are is known when a message has been judged."""
    one = account(events="100/10s")
    assert one.take(1, 100, 0.0) == 0.0
    one.charge(Quantity.EVENTS, 150, 0.0)
    assert one.take(1, 100, 0.0) == pytest.approx(5.1, abs=0.01)
    assert one.take(1, 100, 5.2) == 0.0


def test_without_limits_everything_passes() -> None:
    """However much it is."""
    one = account()
    assert {one.take(10**9, 10**9, 0.0) for _ in range(100)} == {0.0}
    assert one.wait(tuple(Quantity), 0.0) == 0.0


def test_the_longest_wait_is_told_and_counted() -> None:
    """One hit, of the limit that keeps the sender waiting."""
    hits = no_hits()
    one = Account(Rates(Level.TENANT, Limit(messages="1/s", bytes="10/min")), hits)
    one.take(1, 100, 0.0)
    assert one.take(1, 100, 0.0) == pytest.approx(546, abs=0.01)
    assert {key: count for key, count in hits.items() if count} == {(Level.TENANT, Quantity.BYTES): 1}


def test_one_more_passes_by_all_accounts_or_by_none() -> None:
    """The tenant's connections are not used up by those that the issuer's limit turned away."""
    settings = Settings(tenant=Limit(connections="3/day"), issuer=Limit(connections="1/s"))
    limits = Limits(settings, no_hits())
    own = limits.device("acme", "tcu")
    waits = [limits.admit_connection(own, "acme", "", "ca", now) for now in (0.0, 0.0, 0.0, 2.0, 4.0, 6.0, 8.0)]
    assert [wait == 0.0 for wait in waits] == [True, False, False, True, True, False, False]


class TestWhoShares:
    """Limits of levels."""

    def test_a_device_has_one_account_for_as_long_as_it_is_held(self) -> None:
        """A device that is forgotten begins anew only when that changes nothing."""
        limits = Limits(Settings(device=DeviceLimit(messages="5/h")), no_hits())
        one = limits.device("acme", "tcu")
        assert limits.device("acme", "tcu") is one
        one.take(9, 1, 0.0)
        limits.keep("acme", "tcu", one, 300.0)
        del one
        gc.collect()
        assert limits.device("acme", "tcu").take(1, 1, 300.0) > 0
        assert limits.device("acme", "other").take(1, 1, 300.0) == 0.0

    def test_who_is_kept_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever makes up names gets as many full buckets, and no more memory."""
        monkeypatch.setattr(limits_module, "MAX_ACCOUNTS", 3)
        limits = Limits(Settings(software=Limit(messages="5/h")), no_hits())
        for number in range(9):
            limits.senders("acme", f"2026.{number}", "ca")[0].take(9, 1, 0.0)
        assert [bool(limits.senders("acme", f"2026.{n}", "ca")[0].wait(SENT, 0.0)) for n in (8, 0)] == [True, False]

    def test_who_makes_up_names_resets_no_other_tenants_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of the tenant that has most of them, the one that was unused for longest begins anew."""
        monkeypatch.setattr(limits_module, "MAX_ACCOUNTS", 8)
        limits = Limits(Settings(software=Limit(messages="5/h")), no_hits())

        def left(tenant: str, number: int) -> bool:
            return not limits.senders(tenant, f"2026.{number}", "")[0].wait(SENT, 0.0)

        for number in range(3):
            limits.senders("acme", f"2026.{number}", "")[0].take(9, 1, 0.0)
        for number in range(50):
            limits.senders("globex", f"2026.{number}", "")[0].take(9, 1, 0.0)
        assert [left("acme", number) for number in range(3)] == [False] * 3
        assert [left("globex", number) for number in range(45, 50)] == [False] * 5
        assert left("globex", 44)

    def test_who_comes_all_the_time_does_not_begin_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many others come meanwhile, it is never the one that was unused for longest."""
        monkeypatch.setattr(limits_module, "MAX_ACCOUNTS", 3)
        limits = Limits(Settings(device=DeviceLimit(messages="", handshakes="1/h")), no_hits())
        assert limits.admit_handshake("acme", "busy", "", 0.0)
        for number in range(9):
            limits.admit_handshake("acme", f"tcu-{number}", "", 0.0)
            assert not limits.admit_handshake("acme", "busy", "", 0.0)

    def test_other_limits_begin_with_full_buckets_and_the_same_ones_change_nothing(self) -> None:
        """The configuration file is read again whenever it was written."""
        settings = Settings(tenant=Limit(messages="5/h"))
        limits = Limits(settings, no_hits())
        [before] = limits.senders("acme", "", "")
        assert not limits.replace(Settings(tenant=Limit(messages="5/h")))
        assert limits.senders("acme", "", "") == [before]
        assert limits.replace(Settings(tenant=Limit(messages="6/h")))
        assert limits.senders("acme", "", "") != [before]


class TestWhatTheLogSays:
    """Whoever waits for others is in no row of any table: the log says whose limit is used up."""

    def wait(self, limits: Limits, software: str, now: float) -> None:
        for account in limits.senders("acme", software, "ca"):
            account.take(9, 1, now)

    def test_each_shared_limit_that_is_used_up_is_named_once_a_minute(self) -> None:
        """With the tenant, the version or the issuer that shares it; the gate's has no name."""
        few = Limit(messages="5/h")
        limits = Limits(Settings(tenant=few, software=few, issuer=few, gate=few), no_hits())
        with capture_logs() as logged:
            for now in (0.0, 1.0, 2.0, 59.0, 62.0):
                self.wait(limits, "2026.45.0", now)
        named = [
            {"limit": "tenant", "tenant": "acme"},
            {"limit": "software", "tenant": "acme", "software": "2026.45.0"},
            {"limit": "issuer", "issuer": "ca"},
            {"limit": "gate"},
        ]
        said = {"event": "limit_reached", "quantity": "messages", "log_level": "warning"}
        assert [{**line, "room": ""} for line in logged] == 2 * [{**said, **whose, "room": ""} for whose in named]

    def test_of_a_device_alone_nothing_is_said(self) -> None:
        """Each of its refusals is a row of its own."""
        one = Limits(Settings(device=DeviceLimit(messages="1/h")), no_hits()).device("acme", "tcu")
        with capture_logs() as logged:
            assert [one.take(1, 1, 0.0) > 0 for _ in range(3)] == [False, True, True]
        assert not logged

    def test_names_that_devices_make_up_do_not_fill_the_log(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So many lines in any minute, and others in the next."""
        monkeypatch.setattr(limitlog, "MAX_LINES", 3)
        limits = Limits(Settings(software=Limit(messages="5/h")), no_hits())
        with capture_logs() as logged:
            for now in (0.0, 1.0, 61.5):
                for number in range(9):
                    self.wait(limits, f"{now}.{number}", now)
                    self.wait(limits, f"{now}.{number}", now)
        assert [line["software"] for line in logged] == ["0.0.0", "0.0.1", "0.0.2", "61.5.0", "61.5.1", "61.5.2"]
