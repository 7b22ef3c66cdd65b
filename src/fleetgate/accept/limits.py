"""The limits: how fast each device, and all devices of a tenant, a software version, an issuer or the gate may be.

An `Account` is what one of them has left of its rates. Decides who shares which account, and how long somebody must
wait. What becomes of him meanwhile is decided by the listeners: a device above its own rates is told so (0x97, 429)
and scored; one whose tenant, software, issuer or gate has used up theirs is not read from, or told to come again, and
never scored: it may be the others who were too fast. Each edge counts for itself, and anew when it starts.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from enum import StrEnum
from typing import Final
from weakref import WeakValueDictionary

from fleetgate.accept.limitlog import LimitLog
from fleetgate.bucket import Bucket
from fleetgate.config import Limits as Settings
from fleetgate.config import Sending
from fleetgate.rates import Rate, parse_rates

MAX_ACCOUNTS: Final = 20_000
"""Of one level, and of devices that are not in memory; beyond it the one that was unused for longest, of the tenant
that has most of them, begins anew. A device chooses what its software is called, so their number is nobody's plan, and
not to be at the cost of another tenant."""

MESSAGE_BYTES: Final = 1024
"""So many bytes of a packet or envelope count as a message more: the dearest body of 64 KiB, of names that nobody
knows, takes 7 ms to judge, as many user properties 16 ms to read; a usual message of 170 bytes takes 0.03 to 0.06."""


def cost(size: int) -> int:
    """What a packet of MQTT, or an envelope over HTTPS, of so many bytes takes from an account's messages: what a large
    one costs edge and load grows with its bytes."""
    return 1 + size // MESSAGE_BYTES


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
    """The rates of one level. `log` is told when somebody waits for one that is shared."""

    def __init__(self, level: Level, settings: Sending, log: LimitLog | None = None) -> None:
        self.level = level
        self.log = log if level is not Level.DEVICE else None  # of a device's own each refusal is on record
        self.of: Mapping[Quantity, tuple[Rate, ...]] = {
            quantity: parse_rates(getattr(settings, quantity, "")) for quantity in Quantity
        }


class Account:
    """What one has left. Something passes while one is left of each rate; then it is charged, if need be below nothing.
    What does not pass costs nothing. `now` is in monotonic seconds. `limits_events`: whether there is
    such a rate; events are known, and charged, when a message has passed. `used_at`: when somebody last sent. `name` is
    whose it is, as `limitlog` tells it."""

    __slots__ = (
        "__weakref__", "_buckets", "_bytes", "_hits", "_messages", "_name", "_rates", "_sent", "limits_events",
        "used_at",
    )  # fmt: skip

    def __init__(self, rates: Rates, hits: Hits, name: tuple[str, ...] = ()) -> None:
        self._hits = hits
        self._name = name
        self._rates = rates
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
            if left < 1:
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
            self._hits[self._rates.level, of] += 1
            if self._rates.log is not None:
                self._rates.log.reached(self._rates.level, of, self._name, now)
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

    def charge_sent(self, messages: int, size: int, events: int, now: float) -> None:
        """For what has passed."""
        for quantity, count in zip(SENT, (messages, size, events), strict=True):
            self.charge(quantity, count, now)

    def charge(self, quantity: Quantity, count: int, now: float) -> None:
        """The same for one quantity."""
        for bucket in self._buckets[quantity]:
            bucket.refill(now)
            bucket.left -= count

    def rested(self, now: float) -> bool:
        """Whether a new account would be the same."""
        return all(bucket.refill(now) and bucket.full for buckets in self._buckets.values() for bucket in buckets)


class _Accounts:
    """Those of one level by tenant and name, of the latest used. The tenant is empty where the name is of none."""

    def __init__(self, level: Level, settings: Sending, hits: Hits, log: LimitLog) -> None:
        self._rates = Rates(level, settings, log)
        self._hits = hits
        self._of: dict[str, OrderedDict[str, Account]] = {}
        self._count = 0

    def limit(self, *quantities: Quantity) -> bool:
        """Whether there is anything to count."""
        return any(self._rates.of[quantity] for quantity in quantities)

    def new(self, name: tuple[str, ...] = ()) -> Account:
        return Account(self._rates, self._hits, name)

    def of(self, tenant: str, name: str) -> Account:
        named = self._of.get(tenant)
        account = (named.get(name) if named else None) or self.new((tenant, name) if tenant else (name,))
        self.keep(tenant, name, account)
        return account

    def keep(self, tenant: str, name: str, account: Account) -> None:
        named = self._of.get(tenant)
        if named is None:
            named = self._of[tenant] = OrderedDict()
        self._count += name not in named
        named[name] = account
        named.move_to_end(name)
        if self._count > MAX_ACCOUNTS:
            max(self._of.values(), key=len).popitem(last=False)
            self._count -= 1


class Limits:
    """The accounts of everybody, by the settings in force. `shares_sending`: whether anybody shares a limit of what is
    sent with others."""

    def __init__(self, settings: Settings, hits: Hits) -> None:
        self._hits = hits
        self._log = LimitLog()
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
        self._devices = _Accounts(Level.DEVICE, settings.device, self._hits, self._log)
        self._tenants = _Accounts(Level.TENANT, settings.tenant, self._hits, self._log)
        self._softwares = _Accounts(Level.SOFTWARE, settings.software, self._hits, self._log)
        self._issuers = _Accounts(Level.ISSUER, settings.issuer, self._hits, self._log)
        self._gates = _Accounts(Level.GATE, settings.gate, self._hits, self._log)
        self._gate = self._gates.new()
        levels = (self._tenants, self._softwares, self._issuers, self._gates)
        self.shares_sending = any(level.limit(*SENT) for level in levels)

    def device(self, tenant: str, device_id: str) -> Account:
        """The account of a device: one, for as long as somebody holds it, or it is kept."""
        account = self._live.get((tenant, device_id))
        if account is None:
            account = self._live[tenant, device_id] = self._devices.new()
        return account

    def keep(self, tenant: str, device_id: str, account: Account, now: float) -> None:
        """Of a device that nobody holds any more: it is not to begin anew by being forgotten."""
        if not account.rested(now):
            self._devices.keep(tenant, device_id, account)

    def shared(self, tenant: str, software: str, issuer: str, *quantities: Quantity) -> list[Account]:
        """The accounts of these in which any of the quantities is counted. A software version is its tenant's; of one
        that is not known yet (empty) nothing is counted."""
        named = ((self._tenants, "", tenant), (self._softwares, tenant, software), (self._issuers, "", issuer))
        return [level.of(of, name) for level, of, name in named if name and level.limit(*quantities)]

    def senders(self, tenant: str, software: str, issuer: str) -> list[Account]:
        """Those which what a device sends is charged to, besides its own; the gate's too."""
        accounts = self.shared(tenant, software, issuer, *SENT)
        return [*accounts, self._gate] if self._gates.limit(*SENT) else accounts

    def admit_to_gate(self, quantity: Quantity, now: float) -> bool:
        """Whether one more connection or handshake of anybody may begin, before it is known whose."""
        return not _admit_one([self._gate], quantity, now)

    def admit_handshake(self, tenant: str, device_id: str, issuer: str, now: float) -> bool:
        """Whether a handshake that has just shown this device's certificate was not one too many."""
        account = self.device(tenant, device_id)
        shared = self.shared(tenant, "", issuer, Quantity.HANDSHAKES)
        admitted = not _admit_one([account, *shared], Quantity.HANDSHAKES, now)
        self.keep(tenant, device_id, account, now)
        return admitted

    def return_handshake(self, tenant: str, device_id: str, issuer: str, now: float) -> None:
        """Takes back what one was charged that turned out to be nobody's of them."""
        account = self.device(tenant, device_id)
        for each in (account, *self.shared(tenant, "", issuer, Quantity.HANDSHAKES)):
            each.charge(Quantity.HANDSHAKES, -1, now)
        self.keep(tenant, device_id, account, now)

    def admit_connection(self, account: Account, tenant: str, software: str, issuer: str, now: float) -> float:
        """0.0 when a device with this account may begin one more, else the seconds to wait."""
        shared = self.shared(tenant, software, issuer, Quantity.CONNECTIONS)
        return _admit_one([account, *shared], Quantity.CONNECTIONS, now)


def _admit_one(accounts: list[Account], quantity: Quantity, now: float) -> float:
    """0.0 when one more may pass by all of these, which is then charged to all; else the seconds to wait."""
    longest = max(account.wait((quantity,), now) for account in accounts)
    if not longest:
        for account in accounts:
            account.charge(quantity, 1, now)
    return longest
