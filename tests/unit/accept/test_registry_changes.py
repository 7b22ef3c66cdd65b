"""What the edge makes of a control database that changes, or that was restored from an older day."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from cryptography import x509

from fleetgate.accept import changes as changes_module
from fleetgate.accept.changes import Follower
from fleetgate.accept.contact import Contact
from fleetgate.accept.denials import Denial, DenialMemory
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.known import KnownDevice
from fleetgate.accept.limits import Limits, no_hits
from fleetgate.accept.registry import Registry
from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.config import Limits as LimitSettings
from fleetgate.control.devices import Enrolment, enrol, renew, revoke
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.profile import CertificateIdentity, identity_of
from fleetgate.control.quarantine import Origin, apply_transition
from fleetgate.control.records import DeviceRecord
from fleetgate.control.retirement import resume, suspend
from fleetgate.control.store import Store
from fleetgate.control.suspicions import Suspicion, note_suspicions
from fleetgate.errors import ControlAway
from fleetgate.judge import Reason
from fleetgate.load.records import transition_of
from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.format import TransitionRecord

CLOCK = SystemClock()


class Office:
    """A control database with an authority, and an edge's registry on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = msgspec.structs.replace(Config(), home=str(directory))
        self.authority = Authority.create(directory / "pki", "fleet.example", CLOCK)
        self.keyring = Keyring.create(directory / "keyring.json", CLOCK.now_ms(), lambda count: b"k" * count)
        self.denials = DenialMemory(directory / "denials.db")
        self.checkpoint = Checkpoint(directory / "checkpoint.db")
        self.fleet = Fleet(self.keyring.roots, Limits(LimitSettings(), no_hits()))

    @contextmanager
    def writing(self) -> Iterator[Any]:
        with Store.open(self.config, CLOCK, create=True) as store, store.write("test") as write:
            yield write

    def enrol(self, vehicle: str) -> CertificateIdentity:
        with self.writing() as write:
            return _identity(enrol(write, self.authority, self.keyring, "acme", vehicle))

    def revoke(self, identity: CertificateIdentity, effective_ms: int | None = None) -> None:
        with self.writing() as write:
            revoke(write, identity.tenant, identity.device_id, "a test", effective_ms=effective_ms)

    def renew(self, identity: CertificateIdentity) -> CertificateIdentity:
        with self.writing() as write:
            return _identity(renew(write, self.authority, self.keyring, identity.tenant, identity.device_id))

    def suspend(self, identity: CertificateIdentity) -> None:
        with self.writing() as write:
            suspend(write, identity.tenant, identity.device_id, "a test")

    def resume(self, identity: CertificateIdentity) -> None:
        with self.writing() as write:
            resume(write, identity.tenant, identity.device_id, "a test")

    def suspect(self, number: int, *found: Suspicion) -> None:
        with Store.open(self.config, CLOCK, write=True) as store:
            note_suspicions(store, SPOOL, number, found)

    def run(self, act: Callable[[Registry], Awaitable[None]]) -> None:
        async def whole() -> None:
            with Store.open(self.config, CLOCK) as store:
                self.contact = contact = Contact(CLOCK, 900)
                registry = Registry(store, self.denials, self.checkpoint, self.fleet, contact, CLOCK)
                self.follower = Follower(registry, store, self.denials, self.fleet, contact, CLOCK, "edge-1")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(registry.run)
                    nursery.start_soon(self.follower.run)
                    with trio.fail_after(15):
                        await act(registry)
                    nursery.cancel_scope.cancel()

        trio.run(whole)


def _identity(enrolment: Enrolment) -> CertificateIdentity:
    [leaf, *_] = x509.load_pem_x509_certificates(enrolment.certificate)
    return identity_of(leaf, "fleet.example")


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.denials.close()
    made.checkpoint.close()


SPOOL = "ab" * 16


def suspicion(identity: CertificateIdentity, edge_id: str = "edge-1") -> Suspicion:
    return Suspicion(identity.tenant, identity.device_id, edge_id, "implausible_data", 3, 1_000, {})


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110  the registry polls; there is no event to wait for
        await trio.sleep(0.02)


def refusal(known: KnownDevice | None, identity: CertificateIdentity) -> Reason | None:
    assert known is not None
    return known.device.refusal or known.credentials[identity.key_digest].refusal


def test_a_credential_enrolled_since_the_last_poll_is_looked_up_before_it_is_refused(office: Office) -> None:
    """The device is in memory with its old credential; the new one connects before any poll has told of it."""
    first = office.enrol("car-1")

    async def act(registry: Registry) -> None:
        await registry.lookup(first)
        await until(lambda: office.follower.revision == 1)
        office.revoke(first)
        second = office.enrol("car-1")
        known = await registry.lookup(second)
        assert known is not None
        assert known.has_record_of(second.key_digest)
        assert refusal(known, second) is None

    office.run(act)


def test_an_older_database_lifts_no_denial_and_still_brings_new_ones(office: Office, tmp_path: Path) -> None:
    """Restored from yesterday: who was revoked since stays out, and who is suspended now is out too."""
    revoked, suspended = office.enrol("car-1"), office.enrol("car-2")
    shutil.copy(tmp_path / "control.db", tmp_path / "yesterday.db")
    office.revoke(revoked)

    async def today(registry: Registry) -> None:
        await until(lambda: office.follower.revision == 3)

    async def restored(registry: Registry) -> None:
        await until(lambda: office.follower.older_than_seen)
        assert refusal(await registry.lookup(revoked), revoked) is Reason.REVOKED
        known = await registry.lookup(suspended)
        assert refusal(known, suspended) is None
        office.suspend(suspended)
        await until(lambda: refusal(known, suspended) is Reason.SUSPENDED)
        assert refusal(await registry.lookup(revoked), revoked) is Reason.REVOKED

    office.run(today)
    for leftover in ("control.db-wal", "control.db-shm"):
        (tmp_path / leftover).unlink(missing_ok=True)
    shutil.copy(tmp_path / "yesterday.db", tmp_path / "control.db")
    office.fleet = Fleet(office.keyring.roots, Limits(LimitSettings(), no_hits()))
    office.run(restored)


def test_every_revocation_after_a_restore_is_learnt(office: Office, tmp_path: Path) -> None:
    """Yesterday's database has other changes under numbers that a new edge had passed over as history."""
    known = [office.enrol(f"car-{number}") for number in range(20)]
    with closing(sqlite3.connect(tmp_path / "control.db")) as today, closing(sqlite3.connect(":memory:")) as yesterday:
        today.backup(yesterday)
        for number in range(40):
            office.enrol(f"later-{number}")

        def restore() -> None:
            yesterday.backup(today)
            for identity in known:
                office.revoke(identity)

        async def act(registry: Registry) -> None:
            await until(lambda: office.follower.revision >= 60)
            for identity in known:
                await registry.lookup(identity)
            restore()
            devices = [office.fleet.get((identity.tenant, identity.device_id)) for identity in known]
            with trio.fail_after(20):
                await until(lambda: all(map(refusal, devices, known)))

        office.run(act)


def test_a_restored_database_that_went_on_past_the_edge_is_noticed(office: Office, tmp_path: Path) -> None:
    """Between two polls it lost what denied some and denied others under the same numbers: all of them stay out."""
    lost, found, spared = office.enrol("car-1"), office.enrol("car-2"), office.enrol("car-3")
    with closing(sqlite3.connect(tmp_path / "control.db")) as today, closing(sqlite3.connect(":memory:")) as yesterday:
        today.backup(yesterday)
        office.revoke(lost)
        office.enrol("car-4")

        async def act(registry: Registry) -> None:
            await until(lambda: office.follower.revision == 5)
            devices = [await registry.lookup(identity) for identity in (lost, found, spared)]
            yesterday.backup(today)
            office.revoke(found)
            move(office, lost, 1)
            for number in range(5, 9):
                office.enrol(f"car-{number}")
            await until(lambda: refusal(devices[1], found) is Reason.REVOKED)
            assert (office.follower.restores, office.follower.revision) == (1, 9)
            refusals = [refusal(*pair) for pair in zip(devices, (lost, found, spared), strict=True)]
            assert refusals == [Reason.REVOKED, Reason.REVOKED, None]

        office.run(act)


def test_a_database_that_went_on_while_the_edge_was_down_is_noticed(office: Office, tmp_path: Path) -> None:
    """To the very number at which the edge stood: the next start compares what that change was."""
    lost, found = office.enrol("car-1"), office.enrol("car-2")
    with closing(sqlite3.connect(tmp_path / "control.db")) as today, closing(sqlite3.connect(":memory:")) as yesterday:
        today.backup(yesterday)
        office.suspend(lost)

        async def first(registry: Registry) -> None:
            await until(lambda: office.follower.revision == 3)

        office.run(first)
        yesterday.backup(today)
        office.suspend(found)
        office.fleet = Fleet(office.keyring.roots, Limits(LimitSettings(), no_hits()))

        async def second(registry: Registry) -> None:
            await until(lambda: office.follower.restores == 1)
            known = await registry.lookup(found)
            await until(lambda: refusal(known, found) is Reason.SUSPENDED)
            assert refusal(await registry.lookup(lost), lost) is Reason.SUSPENDED
            await until(lambda: office.denials.newest() != before)

        before = office.denials.newest()
        office.run(second)


def test_a_machines_change_lifts_no_denial(office: Office, tmp_path: Path) -> None:
    """Load may hand a transition on again after the revocation behind it was lost with the database."""
    car = office.enrol("car-1")
    with closing(sqlite3.connect(tmp_path / "control.db")) as today, closing(sqlite3.connect(":memory:")) as yesterday:
        today.backup(yesterday)
        office.suspend(car)

        async def act(registry: Registry) -> None:
            await until(lambda: office.follower.revision == 2 and office.denials.revision() == 2)
            known = await registry.lookup(car)
            yesterday.backup(today)
            await until(lambda: office.follower.older_than_seen)
            for offset in range(3):
                move(office, car, offset)
            await until(lambda: office.follower.revision == 4)
            assert refusal(known, car) is Reason.SUSPENDED

        office.run(act)


def move(office: Office, identity: CertificateIdentity, offset: int) -> None:
    """A transition of an edge's spool, as load hands it on."""
    with Store.open(office.config, CLOCK, write=True) as store:
        at_ms = CLOCK.now_ms()
        whose = (identity.tenant, identity.device_id)
        record = TransitionRecord(*whose, "trusted", "watched", at_ms, "bad_mac", 50.0, "1")
        apply_transition(store, Origin("00" * 16, 1, offset), transition_of(record))


def test_a_new_edge_passes_over_enrolments_and_learns_who_is_refused(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: only the records of devices that something else happened to are read."""
    monkeypatch.setattr(changes_module, "HISTORY_BATCH", 3)
    cars = [office.enrol(f"car-{number}") for number in range(10)]
    office.revoke(cars[1])
    with Store.open(office.config, CLOCK) as store:
        revoked_at = store.devices([("acme", "car-1-tcu")])[("acme", "car-1-tcu")].credentials[0].revoked_from_ms
    assert revoked_at is not None
    again = office.enrol("car-1")
    office.suspend(cars[8])
    asked: list[tuple[str, str]] = []
    look_up = Store.devices

    def devices_of(store: Store, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], DeviceRecord]:
        asked.extend(names)
        return look_up(store, names)

    monkeypatch.setattr(Store, "devices", devices_of)

    async def act(registry: Registry) -> None:
        await until(lambda: office.follower.revision == 13)

    office.run(act)
    learnt = {car.device_id: office.denials.of("acme", car.device_id) for car in cars}
    assert {device_id for _, device_id in asked} == {"car-1-tcu", "car-8-tcu"}
    assert {device_id for device_id, denials in learnt.items() if denials} == {"car-1-tcu", "car-8-tcu"}
    assert learnt["car-1-tcu"] == {cars[1].key_digest: Denial(Reason.REVOKED, revoked_at)}
    assert again.key_digest != cars[1].key_digest


def test_an_edge_that_has_seen_changes_reads_enrolments_too(office: Office) -> None:
    """One may lift what it was told to refuse before."""
    first = office.enrol("car-1")

    async def revoked(registry: Registry) -> None:
        await registry.lookup(first)
        office.revoke(first)
        await until(lambda: office.follower.revision == 2)

    async def enrolled(registry: Registry) -> None:
        known = await registry.lookup(first)
        second = office.enrol("car-1")
        assert known is not None
        await until(lambda: known.has_record_of(second.key_digest))

    office.run(revoked)
    office.run(enrolled)


def test_a_renewal_after_a_restore_lifts_no_revocation_that_was_lost(office: Office, tmp_path: Path) -> None:
    """Yesterday's database lets the device renew; the credential that was revoked today stays refused all the same."""
    stolen = office.enrol("car-1")
    with closing(sqlite3.connect(tmp_path / "control.db")) as today, closing(sqlite3.connect(":memory:")) as yesterday:
        today.backup(yesterday)
        office.revoke(stolen)

        async def act(registry: Registry) -> None:
            await until(lambda: office.denials.revision() == 2)
            known = await registry.lookup(stolen)
            yesterday.backup(today)
            await until(lambda: office.follower.older_than_seen)
            for _ in range(3):
                renewed = office.renew(stolen)
            assert known is not None
            await until(lambda: known.has_record_of(renewed.key_digest))
            assert (refusal(known, stolen), refusal(known, renewed)) == (Reason.REVOKED, None)

        office.run(act)


def test_no_decision_about_a_device_brings_back_a_key_whose_revocation_was_lost(office: Office, tmp_path: Path) -> None:
    """Yesterday's database has the stolen key as active. Its device is suspended and resumed there, beyond the numbers
    that the edge has seen: the device is let in again, that key is not, and neither after a restart."""
    stolen = office.enrol("car-1")
    with closing(sqlite3.connect(tmp_path / "control.db")) as today, closing(sqlite3.connect(":memory:")) as yesterday:
        today.backup(yesterday)
        office.revoke(stolen)

        async def act(registry: Registry) -> None:
            await until(lambda: office.denials.revision() == 2)
            known = await registry.lookup(stolen)
            yesterday.backup(today)
            await until(lambda: office.follower.older_than_seen)
            office.suspend(stolen)
            office.resume(stolen)
            await until(lambda: office.follower.revision == 3)
            assert known is not None
            assert (known.device.refusal, refusal(known, stolen)) == (None, Reason.REVOKED)

        async def restarted(registry: Registry) -> None:
            assert refusal(await registry.lookup(stolen), stolen) is Reason.REVOKED

        office.run(act)
        office.fleet = Fleet(office.keyring.roots, Limits(LimitSettings(), no_hits()))
        office.run(restarted)


def test_a_revocation_takes_effect_at_its_time_on_a_device_in_memory(office: Office) -> None:
    """Nothing happens in control then: the edge waits for it by itself, and says so once."""
    car, changed = office.enrol("car-1"), list[tuple[KnownDevice, int]]()

    async def act(registry: Registry) -> None:
        known = await registry.lookup(car)
        effective_ms = CLOCK.now_ms() + 1500
        office.revoke(car, effective_ms)
        await until(lambda: office.follower.revision == 2 and office.denials.revision() == 2)
        assert refusal(known, car) is None
        registry.on_change = lambda *change: changed.append(change)
        await until(lambda: refusal(known, car) is Reason.REVOKED)
        await until(lambda: changed == [(known, effective_ms)])

    office.run(act)


def test_a_revocation_takes_effect_while_control_is_away(office: Office, tmp_path: Path) -> None:
    """The edge has it on its own disk; a device that comes back then is refused too."""
    car = office.enrol("car-1")

    async def learns(registry: Registry) -> None:
        office.revoke(car, CLOCK.now_ms() + 2500)
        await until(lambda: office.denials.revision() == 2)

    async def is_alone(registry: Registry) -> None:
        known = await registry.lookup(car)
        assert refusal(known, car) is None
        (tmp_path / "control.db").rename(tmp_path / "away.db")
        await until(lambda: not office.contact.answers)
        await until(lambda: refusal(known, car) is Reason.REVOKED)

    office.run(learns)
    office.fleet = Fleet(office.keyring.roots, Limits(LimitSettings(), no_hits()))
    office.run(is_alone)


def test_a_revocation_to_come_can_be_put_off(office: Office) -> None:
    """By a person, until it has taken effect."""
    car = office.enrol("car-1")

    async def act(registry: Registry) -> None:
        known = await registry.lookup(car)
        first = CLOCK.now_ms() + 1000
        office.revoke(car, first)
        office.revoke(car, CLOCK.now_ms() + 3_600_000)
        await until(lambda: office.denials.revision() == 3)
        await until(lambda: CLOCK.now_ms() > first + 300)
        assert refusal(known, car) is None

    office.run(act)


def test_what_is_renewed_from_a_credential_goes_with_its_revocation_to_come(office: Office) -> None:
    """The new one is refused at the same time, also by an edge that passed over the renewal as history."""
    first = office.enrol("car-1")
    office.revoke(first, CLOCK.now_ms() + 1500)
    second = office.renew(first)

    async def act(registry: Registry) -> None:
        known = await registry.lookup(second)
        assert refusal(known, second) is None
        await until(lambda: refusal(known, second) is Reason.REVOKED)
        assert refusal(known, first) is Reason.REVOKED

    office.run(act)


def test_a_device_that_is_looked_up_often_is_awaited_once(office: Office) -> None:
    """A revocation may be a year away, and its device come and go every few minutes."""
    car = office.enrol("car-1")
    office.revoke(car, CLOCK.now_ms() + 3_600_000)

    async def act(registry: Registry) -> None:
        for _ in range(3):
            await registry.lookup(car)
            office.fleet._known.clear()
        assert len(registry._to_come) == 1

    office.run(act)


def test_a_device_is_told_of_when_it_comes_into_memory(office: Office) -> None:
    """With what is denied to it; not again while it is there."""
    car, taken = office.enrol("car-1"), list[tuple[str, Reason | None]]()
    office.suspend(car)

    async def act(registry: Registry) -> None:
        registry.on_taken = lambda known: taken.append((known.key[1], refusal(known, car)))
        await registry.lookup(car)
        await registry.lookup(msgspec.structs.replace(car, key_digest=b"another credential"))
        assert taken == [(car.device_id, Reason.SUSPENDED)]
        office.fleet._known.clear()
        await registry.lookup(car)
        assert len(taken) == 2

    office.run(act)


def test_what_load_suspects_is_heard_though_control_falters_over_it(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change has been read, and then the suspect's records cannot be: both are read again."""
    away, heard, asked = office.enrol("car-1"), list[Suspicion](), list[Sequence[tuple[str, str]]]()
    look_up = Store.devices

    def falter(store: Store, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], DeviceRecord]:
        asked.append(names)
        if len(asked) == 1:
            raise ControlAway("a test")
        return look_up(store, names)

    async def act(registry: Registry) -> None:
        office.follower.on_suspicion = lambda known, suspicion: heard.append(suspicion)
        await until(lambda: office.follower.revision == 1)
        monkeypatch.setattr(Store, "devices", falter)
        office.suspect(1, suspicion(away))
        await until(lambda: office.follower.revision == 2)

    office.run(act)
    assert (len(asked), heard) == (2, [suspicion(away)])


def test_what_load_suspects_is_heard_once_and_of_devices_that_are_away_too(office: Office, tmp_path: Path) -> None:
    """Its own edge takes a device into memory for it; another edge's is not its business, nor one that it heard before,
    even where it reads all changes again because control was restored. Records and denials are as they were."""
    here, away, other = (office.enrol(name) for name in ("car-1", "car-2", "car-3"))
    shutil.copy(tmp_path / "control.db", tmp_path / "yesterday.db")
    heard: list[tuple[str, Suspicion]] = []

    async def act(registry: Registry) -> None:
        office.follower.on_suspicion = lambda known, suspicion: heard.append((known.key[1], suspicion))
        await registry.lookup(here)
        await until(lambda: office.follower.revision == 3)
        office.suspect(1, suspicion(here), suspicion(away), suspicion(other, "edge-2"))
        await until(lambda: office.follower.revision == 4)
        await until(lambda: len(heard) == 2)
        assert refusal(office.fleet.get((away.tenant, away.device_id)), away) is None

    async def restored(registry: Registry) -> None:
        office.follower.on_suspicion = lambda known, suspicion: heard.append((known.key[1], suspicion))
        await until(lambda: office.follower.restores == 1)
        await until(lambda: office.follower.revision == 5)

    office.run(act)
    shutil.move(tmp_path / "yesterday.db", tmp_path / "control.db")
    office.suspend(other)  # the numbers of the suspicions come again, and mean something else
    office.suspect(1, suspicion(here))
    office.run(restored)
    assert heard == [(here.device_id, suspicion(here)), (away.device_id, suspicion(away))]
    assert office.fleet.get((other.tenant, other.device_id)) is None
