"""The devices in memory: who may be forgotten, which credentials verify, what a changed record does."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from tests.gates import IDENTITY, Gate, credential, record
from tests.units import DEVICE_ID, EVENT, KEY_DIGEST, NOW, TENANT, pack, sign

from fleetgate.accept.denials import REFUSAL_OF_STATUS
from fleetgate.accept.fleet import IDLE_SECONDS
from fleetgate.accept.standing import Part
from fleetgate.control.profile import CertificateIdentity, Issuance
from fleetgate.control.records import CredentialStatus, DeviceState, DeviceStatus
from fleetgate.judge import Outcome, Reason
from fleetgate.judge.sequence import Window

KEY = (TENANT, DEVICE_ID)
DAY_MS = 24 * 3_600_000
LONG = IDLE_SECONDS + 1


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def forget_after(gate: Gate, seconds: float) -> bool:
    """Whether the device is gone when the fleet looks for idle ones that much later."""
    gate.fleet.forget_idle(gate.clock.monotonic() + seconds)
    return gate.fleet.get(KEY) is None


class TestForgetting:
    """A device leaves the memory only when nothing is lost by it."""

    def test_an_idle_device_in_the_checkpoint_is_forgotten(self, gate: Gate) -> None:
        """After five minutes, not before."""
        gate.known()
        assert (forget_after(gate, IDLE_SECONDS), forget_after(gate, LONG)) == (False, True)

    def test_a_device_with_a_session_stays(self, gate: Gate) -> None:
        """However long it is silent."""
        gate.live()
        assert not forget_after(gate, 86_400)

    def test_a_device_that_changed_since_the_checkpoint_stays(self, gate: Gate) -> None:
        """Its windows are nowhere else; after the checkpoint it may go."""
        gate.receive(sign())
        before = forget_after(gate, LONG)
        gate.checkpoint()
        assert (before, forget_after(gate, LONG)) == (False, True)

    def test_a_scored_device_stays_until_the_checkpoint(self, gate: Gate) -> None:
        """A score is part of what would be lost."""
        gate.receive(sign(key=bytes(32)))
        assert not forget_after(gate, LONG)

    def test_a_forgotten_device_comes_back_as_it_was(self, gate: Gate) -> None:
        """Windows, epoch and score from the checkpoint: its retry is a duplicate, and its score stands."""
        gate.receive(sign(epoch=6))
        gate.receive(sign(key=bytes(32)))
        gate.checkpoint()
        forget_after(gate, LONG)
        verdict = gate.receive(sign(epoch=6))
        known = gate.known()
        assert (verdict.outcome, known.device.epoch) == (Outcome.DUPLICATE, 6)
        assert known.standing.parts == {"bad_mac": Part(35.0, NOW)}


class TestCohorts:
    """What a device is counted together with others by."""

    def test_the_software_is_that_of_the_latest_message_that_was_kept(self, gate: Gate) -> None:
        """A refused one names it, too, and proves nothing."""
        gate.receive(sign())
        newer = pack(["2026.45.0", "cfg-7f3a", [EVENT]])
        gate.receive(sign(seq=1, body=newer, key=bytes(32)))
        before = gate.known().software
        gate.receive(sign(seq=2, body=newer))
        assert (before, gate.known().software) == ("2026.44.1", "2026.45.0")

    def test_the_issuer_is_that_of_the_verified_chain(self, gate: Gate) -> None:
        """By its key; a connection whose chain nobody verified says nothing of it."""
        known = gate.known()
        issued = msgspec.structs.replace(IDENTITY, issuances=(Issuance(7, b"c" * 32, b"k" * 32, b"a" * 32),))
        gate.fleet.peer(known, issued, NOW, json_allowed=False)
        gate.fleet.peer(known, IDENTITY, NOW, json_allowed=False)
        assert known.issuer == (b"k" * 32).hex()[:16]

    def test_both_come_back_from_the_checkpoint(self, gate: Gate) -> None:
        """And with them when the device was last seen."""
        gate.receive(sign())
        gate.known().issuer = "c0ffee"
        gate.checkpoint()
        forget_after(gate, LONG)
        known, saved = gate.known(), gate.spool.checkpoint.device(*KEY)
        assert saved is not None
        assert (known.software, known.issuer, saved.seen_at) == ("2026.44.1", "c0ffee", gate.clock.ms)


class TestCredentials:
    """Which keys verify on a connection."""

    def peers_former(self, gate: Gate, *ended: tuple[str, CredentialStatus, int | None]) -> list[bytes]:
        others = tuple(credential(digest(name), status, at) for name, status, at in ended)
        gate.records[0] = record(credentials=(credential(), *others))
        return [former.key_digest for former in gate.caller().peer.former]

    def test_the_two_latest_former_ones_of_thirty_days_verify(self, gate: Gate) -> None:
        """Newest first, whatever the order of the records; revoked, older and running ones do not."""
        former, revoked, active = CredentialStatus.FORMER, CredentialStatus.REVOKED, CredentialStatus.ACTIVE
        found = self.peers_former(
            gate,
            ("third", former, NOW - 3 * DAY_MS),
            ("first", former, NOW - DAY_MS),
            ("revoked", revoked, NOW - 1),
            ("second", former, NOW - 2 * DAY_MS),
            ("running", active, None),
            ("too old", former, NOW - 30 * DAY_MS - 1),
        )
        assert found == [digest("first"), digest("second")]

    def test_a_certificate_the_records_do_not_have_is_nobody(self, gate: Gate) -> None:
        """A name alone, under another key, gets no peer."""
        stranger = CertificateIdentity(TENANT, DEVICE_ID, digest("f"), digest("another key"), NOW)
        assert gate.fleet.peer(gate.known(), stranger, NOW, json_allowed=False) is None

    def test_a_former_credential_that_is_presented_is_not_tried_twice(self, gate: Gate) -> None:
        """A unit that still uses its former certificate verifies with it, and with other former ones only."""
        gate.records[0] = record(
            credentials=(credential(), credential(digest("old"), CredentialStatus.FORMER, NOW - 1))
        )
        peer = gate.caller(digest=digest("old")).peer
        assert (peer.credential.key_digest, peer.former) == (digest("old"), ())


class TestSessionsOfAFormerCredential:
    """Who may begin one after a renewal: the device whose answer got lost, for a while."""

    def admitted(self, gate: Gate, name: str, now_ms: int = NOW) -> bool:
        identity = CertificateIdentity(TENANT, DEVICE_ID, digest("f"), digest(name), NOW)
        return gate.fleet.peer(gate.known(), identity, now_ms, json_allowed=False) is not None

    @pytest.fixture
    def renewed(self, gate: Gate) -> Gate:
        """`old` was renewed now, to the credential that `sign` and `caller` use."""
        gate.records[0] = record(credentials=(credential(), credential(digest("old"), CredentialStatus.FORMER, NOW)))
        return gate

    def test_a_week_after_the_renewal_it_is_over(self, renewed: Gate) -> None:
        """As long as a message may be old; then the certificate is good for asking again, and for nothing else."""
        admitted = [self.admitted(renewed, "old", NOW + after) for after in (0, 7 * DAY_MS, 7 * DAY_MS + 1)]
        assert admitted == [True, True, False]

    def test_the_first_message_under_the_new_credential_ends_it(self, renewed: Gate) -> None:
        """Whoever still has the former one is not the device any more; after a restart of the edge neither."""
        assert renewed.receive(sign()).outcome is Outcome.ACCEPTED
        assert not self.admitted(renewed, "old")
        renewed.intake.commit()
        renewed.kill_and_recover()
        assert not self.admitted(renewed, "old")

    def test_a_message_under_the_former_one_does_not_end_the_new_one(self, renewed: Gate) -> None:
        """A thief who is first keeps nobody out."""
        identity = CertificateIdentity(TENANT, DEVICE_ID, digest("f"), KEY_DIGEST, NOW)
        old = renewed.caller(digest=digest("old"))
        old.peer.credential.windows.by_epoch[1] = Window()
        assert renewed.fleet.peer(renewed.known(), identity, NOW, json_allowed=False) is not None


class TestRecords:
    """A newer record takes effect on the next message."""

    @pytest.mark.parametrize("status", DeviceStatus)
    def test_a_status_refuses_as_its_table_says(self, gate: Gate, status: DeviceStatus) -> None:
        """On a live connection too."""
        caller = gate.caller()
        gate.fleet.update(caller.known, record(status=status))
        assert gate.receive(sign(), caller).reason == REFUSAL_OF_STATUS[status]

    def test_a_revoked_credential_is_refused_on_its_live_connection(self, gate: Gate) -> None:
        """The peer of the connection reads the credential's state, not a copy."""
        caller = gate.caller()
        gate.fleet.update(caller.known, record(credentials=(credential(status=CredentialStatus.REVOKED),)))
        assert gate.receive(sign(), caller).reason is Reason.REVOKED

    def test_a_quarantine_by_a_person_holds_the_next_message(self, gate: Gate) -> None:
        """And a later release lets it through again."""
        caller = gate.caller()
        gate.fleet.update(caller.known, record(state=DeviceState.QUARANTINED, state_at_ms=10))
        held = gate.receive(sign(), caller).outcome
        gate.fleet.update(caller.known, record(state=DeviceState.RELEASED, state_at_ms=11))
        assert (held, gate.receive(sign(seq=1), caller).outcome) == (Outcome.HELD, Outcome.ACCEPTED)

    def test_an_older_record_does_not_undo_what_the_edge_decided(self, gate: Gate) -> None:
        """Of two views of a device the newer stands."""
        caller = gate.caller()
        gate.scores.move(caller.known, DeviceState.QUARANTINED, NOW, "bad_mac")
        gate.fleet.update(caller.known, record(state=DeviceState.TRUSTED, state_at_ms=NOW - 1))
        assert caller.known.device.held

    def test_a_ban_outweighs_the_status(self, gate: Gate) -> None:
        """A banned state refuses, whatever the status says."""
        caller = gate.caller()
        gate.fleet.update(caller.known, record(state=DeviceState.BANNED, state_at_ms=10))
        assert gate.receive(sign(), caller).reason is Reason.BANNED

    def test_a_remembered_denial_outweighs_an_active_record(self, gate: Gate) -> None:
        """A control database restored from yesterday lets nobody in."""
        caller = gate.caller()
        caller.known.denied = Reason.SUSPENDED
        gate.fleet.update(caller.known, record())
        assert gate.receive(sign(), caller).reason is Reason.SUSPENDED

    def test_adding_a_device_again_keeps_its_windows(self, gate: Gate) -> None:
        """Two look-ups of one device meet the same object."""
        gate.receive(sign())
        assert (gate.known() is gate.known(), gate.receive(sign()).outcome) == (True, Outcome.DUPLICATE)


def test_the_checkpoint_leaves_out_windows_of_no_use(gate: Gate) -> None:
    """A former epoch in which everything is too old is dropped; the current one never is."""
    gate.receive(sign(epoch=1))
    gate.receive(sign(epoch=2))
    gate.clock.ms += 8 * DAY_MS
    (state,) = gate.fleet.take(gate.fleet.changed(), gate.clock.ms)
    assert [window.epoch for window in state.windows] == [2]


def test_a_change_is_taken_once(gate: Gate) -> None:
    """The next checkpoint holds only what changed after it."""
    gate.receive(sign())
    taken = [len(gate.fleet.take(gate.fleet.changed(), NOW)) for _ in range(2)]
    assert taken == [1, 0]


def test_the_spool_names_the_credential_that_verified(gate: Gate) -> None:
    """Provenance of a former credential's message is that credential, once for each connection."""
    gate.records[0] = record(credentials=(credential(), credential(digest("old"), CredentialStatus.FORMER, NOW - 1)))
    caller = gate.caller()
    (former,) = caller.peer.former
    senders = [caller.sender_of(caller.peer.credential), caller.sender_of(former), caller.sender_of(former)]
    assert [sender.facts.key_digest for sender in senders] == [KEY_DIGEST, digest("old"), digest("old")]
    assert senders[1] is senders[2]
    assert IDENTITY.fingerprint == senders[0].facts.fingerprint
