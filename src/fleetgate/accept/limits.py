"""The limits: how fast each device, and all devices of a tenant, a software version, an issuer or the gate may be.

An `Account` is what one of them has left of its rates. Decides who shares which account, and how long somebody must
wait. What becomes of him meanwhile is decided by the listeners: a device above its own rates is told so (0x97, 429)
and scored; one whose tenant, software, issuer or gate has used up theirs is not read from, or told to come again, and
never scored: it may be the others who were too fast. Each edge counts for itself, and anew when it starts.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final
from weakref import WeakValueDictionary

from fleetgate.accept.admission import Bucket
from fleetgate.config import Limits as Settings
from fleetgate.config import Sending
from fleetgate.rates import Rate, parse_rates

MAX_ACCOUNTS: Final = 20_000
"""Of one level, and of devices that are not in memory; beyond it the one that was unused for longest begins anew. A
device chooses what its software is called, so their number is nobody's plan."""


class Level(StrEnum):
    DEVICE = "device"
    TENANT = "tenant"
    SOFTWARE = "software"
    ISSUER = "issuer"
    GATE = "gate"


class Quantity(StrEnum):
    MESSAGES = "messages"
    BYTES = "bytes"
    EVENTS = "events"
    CONNECTIONS = "connections"
    HANDSHAKES = "handshakes"


Hits = dict[tuple[Level, Quantity], int]
"""How often each limit made somebody wait."""


def no_hits() -> Hits:
    return {(level, quantity): 0 for level in Level for quantity in Quantity}


SENT: Final = (Quantity.MESSAGES, Quantity.BYTES, Quantity.EVENTS)
_Buckets = tuple[Bucket, ...]


class Rates:
    """The rates of one level."""

    def __init__(self, level: Level, settings: Sending) -> None:
        self.level = level
        self.of: Mapping[Quantity, tuple[Rate, ...]] = {
            quantity: parse_rates(getattr(settings, quantity, "")) for quantity in Quantity
        }

    def __bool__(self) -> bool:
        return any(self.of.values())


class Account:
    """What one has left. Something passes while more than nothing is left of each rate; then it is charged, if need be
    below nothing. What does not pass costs nothing. `now` is in monotonic seconds. `limits_events`: whether there is
    such a rate; events are known, and charged, when a message has passed. `used_at`: when somebody last sent."""

    __slots__ = (
        "__weakref__", "_buckets", "_bytes", "_hits", "_level", "_messages", "_sent", "limits_events", "used_at",
    )  # fmt: skip

    def __init__(self, rates: Rates, hits: Hits) -> None:
        self._hits = hits
        self._level = rates.level
        self._buckets: Mapping[Quantity, _Buckets] = {
            quantity: tuple(map(Bucket, found)) for quantity, found in rates.of.items()
        }
        self._messages, self._bytes, events = (self._buckets[quantity] for quantity in SENT)
        self._sent = self._messages + self._bytes + events
        self.limits_events = bool(events)
        self.used_at = -math.inf

    def take(self, messages: int, size: int, now: float) -> float:
        """0.0 when messages of that cost and size may pass, which are then charged; else the seconds to wait."""
        self.used_at = now
        for bucket in self._sent:  # `Bucket.refill`, written out: the call would be a third of it, for each message
            left = bucket.left + (now - bucket.at) * bucket.per_second
            bucket.at = now
            bucket.left = left = left if left < bucket.burst else bucket.burst
            if left <= 0:
                return self.wait(SENT, now)
        for bucket in self._messages:
            bucket.left -= messages
        for bucket in self._bytes:
            bucket.left -= size
        return 0.0

    def wait(self, quantities: tuple[Quantity, ...], now: float) -> float:
        """Seconds until more of these may pass, counted as a hit of the limit that takes longest; 0.0 when it may."""
        longest, of = self._longest(quantities, now)
        if of is not None:
            self._hits[self._level, of] += 1
        return longest

    def open_in(self, now: float) -> float:
        """The same for what is sent, of somebody who was counted when he began to wait."""
        return self._longest(SENT, now)[0]

    def _longest(self, quantities: tuple[Quantity, ...], now: float) -> tuple[float, Quantity | None]:
        longest, of = 0.0, None
        for quantity in quantities:
            for bucket in self._buckets[quantity]:
                bucket.refill(now)
                if (wait := bucket.wait()) > longest:
                    longest, of = wait, quantity
        return longest, of

    def charge(self, quantity: Quantity, count: int) -> None:
        """For what passed: after `wait` said that it may."""
        for bucket in self._buckets[quantity]:
            bucket.left -= count

    def rested(self, now: float) -> bool:
        """Whether a new account would be the same."""
        return all(bucket.refill(now) and bucket.full for buckets in self._buckets.values() for bucket in buckets)


def admit_one(accounts: Iterable[Account], quantity: Quantity, now: float) -> float:
    """0.0 when one more may pass by all of these, which is then charged to all; else the seconds to wait."""
    accounts = tuple(accounts)
    longest = max((account.wait((quantity,), now) for account in accounts), default=0.0)
    if not longest:
        for account in accounts:
            account.charge(quantity, 1)
    return longest


class _Accounts:
    """Those of one level by name, of the latest used."""

    def __init__(self, level: Level, settings: Sending, hits: Hits) -> None:
        self._rates = Rates(level, settings)
        self._hits = hits
        self._of: OrderedDict[object, Account] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether there is anything to count."""
        return bool(self._rates)

    def new(self) -> Account:
        return Account(self._rates, self._hits)

    def of(self, name: object) -> Account:
        account = self._of.pop(name, None) or self.new()
        self.keep(name, account)
        return account

    def keep(self, name: object, account: Account) -> None:
        self._of[name] = account
        if len(self._of) > MAX_ACCOUNTS:
            self._of.popitem(last=False)


class Limits:
    """The accounts of everybody, by the settings in force. `any_shared`: whether there are any but the devices' own."""

    def __init__(self, settings: Settings, hits: Hits) -> None:
        self._hits = hits
        self._set(settings)

    def replace(self, settings: Settings) -> bool:
        """Other limits from now on, and everybody with full buckets; whether they are others at all."""
        if settings == self._settings:
            return False
        self._set(settings)
        return True

    def _set(self, settings: Settings) -> None:
        self._settings = settings
        self._live: WeakValueDictionary[tuple[str, str], Account] = WeakValueDictionary()
        self._devices = _Accounts(Level.DEVICE, settings.device, self._hits)
        self._tenants = _Accounts(Level.TENANT, settings.tenant, self._hits)
        self._softwares = _Accounts(Level.SOFTWARE, settings.software, self._hits)
        self._issuers = _Accounts(Level.ISSUER, settings.issuer, self._hits)
        gate = _Accounts(Level.GATE, settings.gate, self._hits)
        self.gate = gate.new()
        self._of_gate = (self.gate,) if gate else ()
        self.any_shared = bool(self._tenants or self._softwares or self._issuers or gate)

    def device(self, tenant: str, device_id: str) -> Account:
        """The account of a device: one, for as long as somebody holds it, or it is kept."""
        account = self._live.get((tenant, device_id))
        if account is None:
            account = self._live[tenant, device_id] = self._devices.new()
        return account

    def shared(self, tenant: str, software: str, issuer: str) -> tuple[Account, ...]:
        """Those that a device shares with others. A software version is its tenant's; of one that is not known yet
        (empty) nothing is counted."""
        accounts: tuple[Account, ...] = self._of_gate
        if self._tenants:
            accounts += (self._tenants.of(tenant),)
        if self._softwares and software:
            accounts += (self._softwares.of((tenant, software)),)
        if self._issuers and issuer:
            accounts += (self._issuers.of(issuer),)
        return accounts

    def keep(self, tenant: str, device_id: str, account: Account, now: float) -> None:
        """Of a device that nobody holds any more: it is not to begin anew by being forgotten."""
        if not account.rested(now):
            self._devices.keep((tenant, device_id), account)
