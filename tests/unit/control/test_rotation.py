"""Root keys are added, retired and withdrawn as the credentials on record allow, and the audit has each step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from fleetgate.control.devices import renew, revoke
from fleetgate.control.keyring import SETTLING_MS, Keyring, read_roots
from fleetgate.control.rotation import list_roots, retire, rotate, withdraw
from fleetgate.control.schema import audit, changes
from fleetgate.errors import ConfigError, Conflict, NotFound

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

DAY_MS = 24 * 3600 * 1000


class Roots:
    """The keyring file of a gate with one device, whose credential is under root key 1."""

    def __init__(self, gate: Gate, path: Path) -> None:
        self.gate = gate
        self.path = path
        gate.enrol()

    def rotate(self) -> int:
        """And waits until it is issued under."""
        with self.gate.store.write("test") as write:
            kid = rotate(write, self.path, os.urandom)
        self.gate.clock.ms += SETTLING_MS
        self.gate.keyring = self.keyring
        return kid

    def retire(self, kid: int = 1) -> None:
        with self.gate.store.write("test") as write:
            retire(write, self.path, kid)

    def withdraw(self, kid: int = 1, reason: str = "leaked") -> int:
        with self.gate.store.write("test") as write:
            return withdraw(write, self.path, kid, reason)

    def renew(self) -> int:
        with self.gate.store.write("test") as write:
            return renew(write, self.gate.authority, self.keyring, "acme", "car-tcu").kid

    @property
    def keyring(self) -> Keyring:
        return Keyring.load(self.path)

    @property
    def states(self) -> dict[int, str]:
        return {kid: root.state.value for kid, root in read_roots(self.path).items()}

    @property
    def audit(self) -> list[str]:
        rows = self.gate.store.rows(select(audit.c.action, audit.c.object).where(audit.c.object.startswith("root/")))
        return [f"{row.action} {row.object}" for row in rows]


@pytest.fixture
def roots(gate: Gate, tmp_path: Path) -> Roots:
    return Roots(gate, tmp_path / "keyring.json")


def test_new_credentials_come_under_the_new_root_key_and_old_ones_go_on(roots: Roots) -> None:
    """A rotation ends nothing by itself."""
    old = roots.keyring.root(1)
    assert (roots.rotate(), roots.renew()) == (2, 2)
    assert (roots.keyring.root(1), roots.states) == (old, {1: "active", 2: "active"})
    assert roots.audit == ["keyring_rotate root/2"]


def test_a_root_key_with_an_active_credential_is_not_retired(roots: Roots) -> None:
    """Its devices would be refused: they renew first."""
    roots.rotate()
    with pytest.raises(Conflict, match="1 active credentials"):
        roots.retire()


def test_a_root_key_is_not_retired_while_retries_may_come(roots: Roots) -> None:
    """What was signed just before the renewal is taken for 7 days; after that nothing of it would be."""
    roots.rotate()
    roots.renew()
    with pytest.raises(Conflict, match="needed until"):
        roots.retire()
    roots.gate.clock.ms += 7 * DAY_MS + 1
    roots.retire()
    assert (roots.states, roots.keyring.roots[1]) == ({1: "retired", 2: "active"}, None)
    assert roots.audit[-1] == "keyring_retire root/1"


def test_what_is_revoked_or_expired_keeps_no_root_key(roots: Roots) -> None:
    """Nothing is accepted under it any more, so nothing waits for it."""
    roots.rotate()
    with roots.gate.store.write("test") as write:
        revoke(write, "acme", "car-tcu", "lost")
    roots.gate.enrol("bus")
    roots.retire()
    assert roots.states[1] == "retired"


@pytest.mark.parametrize("end", ["retire", "withdraw"])
def test_the_root_key_that_is_issued_under_is_not_ended(roots: Roots, end: str) -> None:
    """Another comes first."""
    with pytest.raises(Conflict, match="keyring rotate"):
        getattr(roots, end)()


@pytest.mark.parametrize("end", ["retire", "withdraw"])
def test_missing_kid(roots: Roots, end: str) -> None:
    """A typing mistake in an emergency is told, and nothing is written."""
    before = roots.path.read_bytes()
    with pytest.raises(NotFound, match="keyring list"):
        getattr(roots, end)(7)
    assert (roots.path.read_bytes(), roots.audit) == (before, [])


def test_a_withdrawn_root_key_verifies_nothing_at_once_and_still_proves(roots: Roots) -> None:
    """Also with credentials under it; the gate knows it no more, so that its devices are not blamed."""
    roots.rotate()
    old = roots.keyring.root(1)
    assert roots.withdraw() == 1
    assert 1 not in roots.keyring.roots
    assert Keyring.proving_roots(roots.path)[1] == old
    assert roots.audit[-1] == "keyring_withdraw root/1"


def test_an_edge_takes_a_keyring_in_which_a_root_key_was_withdrawn(roots: Roots) -> None:
    """It is not taken for the file of another gate."""
    roots.rotate()
    before = roots.keyring
    roots.withdraw()
    before.check_successor(roots.keyring)


def test_a_withdrawal_needs_a_reason(roots: Roots) -> None:
    """Blanks are none."""
    roots.rotate()
    with pytest.raises(ConfigError, match="reason"):
        roots.withdraw(reason=" ")


def test_ending_twice_is_a_conflict(roots: Roots) -> None:
    """Retired may become withdrawn, not the other way round."""
    roots.rotate()
    roots.withdraw()
    for end in (roots.withdraw, roots.retire):
        with pytest.raises(Conflict, match="withdrawn already"):
            end()


def test_the_file_keeps_its_mode_and_is_replaced_whole(roots: Roots) -> None:
    """Read-only stays read-only, a link stays a link, and nothing is left beside it."""
    roots.path.rename(roots.path.with_name("real.json"))
    roots.path.symlink_to("real.json")
    roots.path.chmod(0o400)
    roots.rotate()
    assert roots.path.is_symlink()
    assert roots.path.stat().st_mode & 0o777 == 0o400
    assert not list(roots.path.parent.glob("*.new"))


def test_keyring_with_wrong_mode(roots: Roots) -> None:
    """What others could read is not built upon; the records have no entry of it."""
    roots.path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        roots.rotate()
    assert roots.audit == []


def test_a_file_that_cannot_be_written_leaves_no_audit_entry(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    """What did not happen is not on record."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fleetgate.control.rotation.replace_secret", full)
    with pytest.raises(ConfigError, match="as it was"):
        roots.rotate()
    assert roots.audit == []


def test_the_list_tells_how_many_credentials_are_under_each(roots: Roots) -> None:
    """And until when a former one keeps a root key."""
    roots.rotate()
    roots.gate.enrol("bus")
    ended_ms = roots.gate.clock.ms
    roots.renew()
    told = [
        (line.kid, line.state, line.credentials, line.needed_until_ms)
        for line in list_roots(roots.gate.store, roots.path)
    ]
    assert told == [(1, "active", 0, ended_ms + 7 * DAY_MS), (2, "active", 2, None)]


def test_no_edge_has_to_learn_of_a_root_key_from_the_changes(roots: Roots) -> None:
    """It has the file; the changes are of devices."""
    roots.rotate()
    assert [row.kind for row in roots.gate.store.rows(select(changes.c.kind))] == ["enrol"]


ENDED = {"retire": "retired", "withdraw": "withdrawn"}


@pytest.mark.parametrize("end", ENDED)
def test_what_ended_without_an_entry_in_the_audit_gets_it_when_it_is_done_again(
    roots: Roots, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Killed behind the new file and before the commit."""
    roots.rotate()
    roots.renew()
    roots.gate.clock.ms += 8 * DAY_MS
    with monkeypatch.context() as killed:
        killed.setattr("fleetgate.control.store.Write.flush", interrupted)
        with pytest.raises(KeyboardInterrupt):
            getattr(roots, end)()
    assert (roots.states[1], roots.audit) == (ENDED[end], ["keyring_rotate root/2"])
    getattr(roots, end)()
    assert roots.audit[-1] == f"keyring_{end} root/1"
    with pytest.raises(Conflict, match="already"):
        getattr(roots, end)()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
