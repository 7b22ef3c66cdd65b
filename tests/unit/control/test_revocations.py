"""Which credentials a revocation reaches, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.lives import CAR, HOUR_MS, actions, do, held, renewed, standing, statuses

from fleetgate.control.devices import revoke
from fleetgate.control.records import CredentialStatus
from fleetgate.errors import Conflict, NotFound

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

ACTIVE, FORMER, REVOKED = CredentialStatus


def test_every_credential_of_the_device_goes(car: Gate) -> None:
    """The former ones too, whose keys may be on the same unit."""
    renewed(car)
    assert do(car, revoke, *CAR, "stolen") == 2
    assert statuses(car) == [REVOKED, REVOKED]
    assert standing(car) == "revoked"


def test_what_was_renewed_from_a_credential_goes_with_it(car: Gate) -> None:
    """Whatever its status; what was there before stays."""
    renewed(car), renewed(car)
    middle = held(car)[1].fingerprint
    assert do(car, revoke, *CAR, "leaked", middle[:12]) == 2
    assert statuses(car) == [REVOKED, REVOKED, FORMER]


def test_a_credential_enrolled_again_is_no_descendant(car: Gate) -> None:
    """A person gave it: it has nothing from the one before."""
    first = held(car)[0].fingerprint
    renewed(car)
    do(car, revoke, *CAR, "lost", held(car)[0].fingerprint)
    car.enrol()
    do(car, revoke, *CAR, "leaked", first)
    assert statuses(car) == [ACTIVE, REVOKED, REVOKED]


@pytest.mark.parametrize("fingerprint", ["00" * 32, ""])
def test_a_fingerprint_that_names_none_or_several_is_not_found(car: Gate, fingerprint: str) -> None:
    """Nothing is revoked on a guess."""
    renewed(car)
    with pytest.raises(NotFound, match="device show"):
        do(car, revoke, *CAR, "lost", fingerprint)
    assert REVOKED not in statuses(car)


def test_of_a_time_that_is_past_it_takes_effect_now(car: Gate) -> None:
    """And the record says since when it was not to be trusted."""
    do(car, revoke, *CAR, "stolen on Friday", None, car.clock.ms - HOUR_MS)
    [credential] = held(car)
    assert (credential.status, credential.revoked_from_ms, credential.invalid_from_ms) == (
        REVOKED,
        car.clock.ms,
        car.clock.ms - HOUR_MS,
    )


def test_of_a_time_to_come_it_takes_effect_then(car: Gate) -> None:
    """Until then the device is active and has that time on record; afterwards nobody has to do anything."""
    do(car, revoke, *CAR, "sold", None, car.clock.ms + HOUR_MS)
    assert (statuses(car), held(car)[0].revoked_from_ms) == ([ACTIVE], car.clock.ms + HOUR_MS)
    car.clock.ms += HOUR_MS
    assert (statuses(car), standing(car)) == ([REVOKED], "revoked")
    record = car.store.devices([CAR])[CAR].credentials[0]
    assert record.status is REVOKED


def test_it_is_written_down_before_the_next_write_looks(car: Gate) -> None:
    """So the device can be enrolled again, and what comes later sees one active credential."""
    do(car, revoke, *CAR, "sold", None, car.clock.ms + HOUR_MS)
    with pytest.raises(Conflict, match="enrolled already"):
        car.enrol()
    car.clock.ms += HOUR_MS
    car.enrol()
    assert statuses(car) == [ACTIVE, REVOKED]


def test_what_is_renewed_before_its_time_goes_at_that_time_too(car: Gate) -> None:
    """A renewal does not outrun a decision."""
    do(car, revoke, *CAR, "sold", None, car.clock.ms + HOUR_MS)
    renewed(car)
    assert statuses(car) == [ACTIVE, FORMER]
    car.clock.ms += HOUR_MS
    assert statuses(car) == [REVOKED, REVOKED]


def test_it_can_be_hurried_and_put_off_until_then(car: Gate) -> None:
    """Each time is a decision of its own, on record."""
    for hours in (5, 9):
        do(car, revoke, *CAR, "sold", None, car.clock.ms + hours * HOUR_MS)
    assert held(car)[0].revoked_from_ms == car.clock.ms + 9 * HOUR_MS
    do(car, revoke, *CAR, "stolen")
    assert statuses(car) == [REVOKED]
    assert actions(car).count("revoke acme device/car-tcu") == 3
