"""The six steps in their order, through `judge()`: every reason, who scores, and what a refusal leaves behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.units import BODY, KEY_DIGEST, NOW, POLICY, ROOTS, TOPIC, Unit, elements, former, hkdf, pack, sign, sign_json

from fleetgate.judge import Outcome, Policy, Reason, claim
from fleetgate.judge.verdict import STEP_OF, Flag

WEEK_MS = 7 * 24 * 3600 * 1000
MINUTE_MS = 60_000
NEWER_KEY = hkdf(bytes(range(32, 64)), "acme", "tcu-0001", KEY_DIGEST)
OTHER_KEY = hkdf(bytes(range(32)), "acme", "tcu-0002", hashlib.sha256(b"another").digest())


def with_refusal(reason: Reason) -> Callable[[Unit], None]:
    def keep_out(unit: Unit) -> None:
        unit.device.refusal = reason

    return keep_out


def with_revoked_credential(unit: Unit) -> None:
    unit.credential.refusal = Reason.REVOKED


def with_message(**given: Any) -> Callable[[Unit], None]:
    def receive(unit: Unit) -> None:
        assert unit.take(sign(**given), given.get("sent_at", NOW)).outcome is Outcome.ACCEPTED

    return receive


def nothing(_unit: Unit) -> None:
    """The unit as it came."""


REFUSED: list[tuple[str, Callable[[Unit], None], bytes, Reason]] = [
    ("nothing at all", nothing, b"", Reason.MALFORMED_ENVELOPE),
    ("an array of seven", nothing, pack(elements()[:7]), Reason.MALFORMED_ENVELOPE),
    ("an array of nine", nothing, pack([*elements(), 0]), Reason.MALFORMED_ENVELOPE),
    ("bytes behind the end", nothing, sign() + b"\x00", Reason.MALFORMED_ENVELOPE),
    ("JSON over MQTT", nothing, sign_json(), Reason.MALFORMED_ENVELOPE),
    ("version 2", nothing, sign(v=2), Reason.UNSUPPORTED_VERSION),
    ("a suspended device", with_refusal(Reason.SUSPENDED), sign(), Reason.SUSPENDED),
    ("a banned device", with_refusal(Reason.BANNED), sign(), Reason.BANNED),
    ("a device that is gone", with_refusal(Reason.UNKNOWN_DEVICE), sign(), Reason.UNKNOWN_DEVICE),
    ("a revoked credential", with_revoked_credential, sign(), Reason.REVOKED),
    ("another unit's key", nothing, sign(key=OTHER_KEY), Reason.BAD_MAC),
    ("a key id the gate lacks", nothing, sign(kid=77), Reason.UNKNOWN_KEY),
    ("a retired key id", nothing, sign(kid=9), Reason.UNKNOWN_KEY),
    ("61 seconds ahead", nothing, sign(sent_at=NOW + 61_000), Reason.CLOCK_AHEAD),
    ("eight days old", nothing, sign(sent_at=NOW - WEEK_MS - 1), Reason.TOO_OLD),
    ("1,024 behind the newest", with_message(seq=1024), sign(seq=0), Reason.BEHIND_WINDOW),
    ("a former epoch", with_message(epoch=5), sign(epoch=4), Reason.STALE_EPOCH),
    ("a number used by another message", with_message(), sign(sent_at=NOW - 1), Reason.EQUIVOCATION),
    ("a body that is none", nothing, sign(body=b"\x00"), Reason.MALFORMED_BODY),
]
JUDGED_REASONS = {reason for reason, step in STEP_OF.items() if step} - {Reason.IDENTITY_MISMATCH}


@pytest.mark.parametrize(("before", "raw", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_refusal_has_its_reason_and_claims_nothing(
    before: Callable[[Unit], None], raw: bytes, reason: Reason
) -> None:
    """Each way to be wrong gets its own reason, and leaves windows and epoch as they were."""
    unit = Unit()
    before(unit)
    seen = unit.windows()
    verdict = unit.judge(raw, NOW, TOPIC)
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, reason)
    assert unit.windows() == seen


def test_every_reason_of_the_judge_is_tried() -> None:
    """The table above leaves no reason out; identity_mismatch has a test of its own."""
    assert {reason for _, _, _, reason in REFUSED} == JUDGED_REASONS


@pytest.mark.parametrize(
    "topic",
    [b"", TOPIC + b"/", TOPIC[:-1], TOPIC.upper(), TOPIC.replace(b"acme", b"rival"), TOPIC.replace(b"0001", b"0002"),
     TOPIC.replace(b"/v1/", b"/v2/"), TOPIC + b"\x00", b"\xff\xfe"],
)  # fmt: skip
def test_another_address_than_ones_own_is_an_identity_mismatch(topic: bytes) -> None:
    """A topic is compared with the certificate's, byte for byte; nothing in it can choose a device."""
    assert Unit().judge(sign(), NOW, topic).reason is Reason.IDENTITY_MISMATCH


def test_https_has_no_address_to_mismatch() -> None:
    """Without a topic the certificate alone says who sends."""
    assert Unit().judge(sign(), NOW, None).outcome is Outcome.ACCEPTED


def wrong_from(step: int) -> tuple[Unit, bytes, bytes]:
    """A unit, a message and a topic wrong at `step` and at every later one."""
    unit = Unit()
    unit.take(sign(epoch=5, seq=9))
    raw = {
        1: pack(elements(body=b"\x00", sent_at=NOW + 90_000, epoch=1, kid=1, key=OTHER_KEY)[:7]),
        2: sign(body=b"\x00", sent_at=NOW + 90_000, key=OTHER_KEY),
        3: sign(body=b"\x00", sent_at=NOW + 90_000, key=OTHER_KEY),
        4: sign(body=b"\x00", sent_at=NOW + 90_000),
        5: sign(body=b"\x00"),
        6: sign(body=b"\x00", epoch=5, seq=10),
    }[step]
    return unit, raw, TOPIC if step > 2 else b"elsewhere"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (1, Reason.MALFORMED_ENVELOPE),
        (2, Reason.IDENTITY_MISMATCH),
        (3, Reason.BAD_MAC),
        (4, Reason.CLOCK_AHEAD),
        (5, Reason.STALE_EPOCH),
        (6, Reason.MALFORMED_BODY),
    ],
)
def test_the_earlier_step_gives_the_reason(step: int, reason: Reason) -> None:
    """What is wrong at a step and at all later ones is refused for the first; no step runs before the one above."""
    unit, raw, topic = wrong_from(step)
    verdict = unit.judge(raw, NOW, topic)
    assert (verdict.reason, STEP_OF[reason]) == (reason, step)


def test_a_mismatch_is_told_before_the_status() -> None:
    """A banned device at another's address learns of the address only: it names what it did, not what we know."""
    unit = Unit()
    unit.device.refusal = Reason.BANNED
    assert unit.judge(sign(), NOW, b"elsewhere").reason is Reason.IDENTITY_MISMATCH


def test_a_revoked_device_does_not_learn_whether_its_key_is_right() -> None:
    """Status is step 2: a revoked credential's forged bytes are `revoked`, not `bad_mac`."""
    unit = Unit()
    unit.credential.refusal = Reason.REVOKED
    assert unit.judge(sign(key=OTHER_KEY)).reason is Reason.REVOKED


def test_a_refused_number_can_be_used_again() -> None:
    """A message refused for its body never used its number up: the corrected one is accepted under the same."""
    unit = Unit()
    unit.take(sign(seq=7, body=b"\x00"))
    verdict = unit.take(sign(seq=7))
    assert (verdict.outcome, verdict.flags) == (Outcome.ACCEPTED, 0)


def test_looking_claims_nothing() -> None:
    """A verdict alone leaves the window: judged twice without a claim, a message is accepted twice."""
    unit = Unit()
    unit.judge(sign())
    assert unit.judge(sign()).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize("later_ms", [0, 1, WEEK_MS, WEEK_MS + 1, 365 * 24 * 3600 * 1000])
def test_a_message_in_its_slot_is_a_duplicate_whatever_its_age(later_ms: int) -> None:
    """A retry after a long outage is acknowledged, not refused for the time it waited."""
    unit = Unit()
    unit.take(sign())
    assert unit.judge(sign(), NOW + later_ms).outcome is Outcome.DUPLICATE


def test_a_duplicate_is_told_even_where_the_gates_clock_went_back() -> None:
    """The tag in its slot outweighs `clock_ahead` as well."""
    unit = Unit()
    unit.take(sign())
    assert unit.judge(sign(), NOW - 3_600_000).outcome is Outcome.DUPLICATE


def test_a_replay_of_an_old_message_by_another_tag_is_too_old() -> None:
    """Age is forgiven to the message in the slot only, not to its slot."""
    unit = Unit()
    unit.take(sign())
    assert unit.judge(sign(sent_at=NOW - 1), NOW + WEEK_MS + 1).reason is Reason.TOO_OLD


def test_a_quarantined_devices_message_is_held_and_claimed() -> None:
    """Held messages take their number, so that a release cannot count a retry twice."""
    unit = Unit()
    unit.device.held = True
    first = unit.take(sign()).outcome
    assert (first, unit.take(sign()).outcome) == (Outcome.HELD, Outcome.DUPLICATE)


@pytest.mark.parametrize(
    ("sent_at", "flags"),
    [
        (NOW, 0),
        (NOW + 5_000, 0),
        (NOW + 5_001, Flag.CLOCK_SKEW),
        (NOW + MINUTE_MS, Flag.CLOCK_SKEW),
        (NOW - 5 * MINUTE_MS, 0),
        (NOW - 5 * MINUTE_MS - 1, Flag.LATE),
        (NOW - WEEK_MS, Flag.LATE),
    ],
)
def test_the_flags_of_a_messages_age(sent_at: int, flags: int) -> None:
    """`late` begins above five minutes, `clock_skew` above five seconds; the bounds themselves still pass."""
    verdict = Unit().judge(sign(sent_at=sent_at))
    assert (verdict.outcome, verdict.flags) == (Outcome.ACCEPTED, flags)


@pytest.mark.parametrize("sent_at", [NOW + MINUTE_MS + 1, NOW - WEEK_MS - 1, -(2**63), 2**63 - 1])
def test_beyond_the_bounds_of_age_nothing_is_accepted(sent_at: int) -> None:
    """One millisecond beyond a bound, and at the ends of the number's range, a new message is refused."""
    assert Unit().judge(sign(sent_at=sent_at)).outcome is Outcome.REJECTED


@pytest.mark.parametrize(
    ("epoch", "flags"), [(1, 0), (1_000, 0), (1_001, Flag.EPOCH_JUMP), (2**32 - 1, Flag.EPOCH_JUMP)]
)
def test_an_epoch_jump_is_more_than_a_thousand(epoch: int, flags: int) -> None:
    """A device that skips more than 1,000 epochs is flagged, not refused."""
    assert Unit().judge(sign(epoch=epoch)).flags == flags


def test_the_gates_own_troubles_are_flagged_on_what_it_accepts() -> None:
    """The policy's standing flags are on every accepted message."""
    policy = Policy("test", POLICY.bodies, Flag.STALE_REVOCATION.value)
    assert Unit().judge(sign(), policy=policy).flags == Flag.STALE_REVOCATION


def test_a_verdict_names_how_many_events_it_stands_for() -> None:
    """The count that metrics and reconciliation use is that of the body."""
    assert Unit().judge(sign()).events == 1


@pytest.mark.parametrize(("kid", "scores"), [(77, False), (9, True)], ids=["never had", "retired"])
def test_a_key_the_gate_itself_lacks_scores_nobody(kid: int, scores: bool) -> None:
    """An edge with an old keyring must not quarantine the fleet; a key it has retired is the sender's fault."""
    assert Unit().judge(sign(kid=kid)).scores is scores


def test_the_second_root_key_verifies_beside_the_first() -> None:
    """While two roots are active, messages under either are accepted."""
    assert Unit().judge(sign(kid=2, key=NEWER_KEY)).outcome is Outcome.ACCEPTED


class TestFormerKid:
    """A device that has gone over to a newer root key may deliver what it signed before, for a week."""

    @pytest.mark.parametrize(("later_ms", "reason"), [(0, None), (WEEK_MS, None), (WEEK_MS + 1, Reason.UNKNOWN_KEY)])
    def test_it_is_accepted_for_seven_days_after_the_first_message_under_the_newer(
        self, later_ms: int, reason: Reason | None
    ) -> None:
        """Counted from the first message, not from the last; a refusal for time alone scores nobody."""
        unit = Unit()
        unit.take(sign(kid=2, key=NEWER_KEY))
        unit.take(sign(kid=2, key=NEWER_KEY, seq=1), NOW + 1)
        now = NOW + later_ms
        verdict = unit.judge(sign(seq=2, sent_at=now), now)
        assert (verdict.reason, verdict.scores) == (reason, False)

    def test_it_verifies_for_ever_while_the_device_has_no_newer(self) -> None:
        """A device that was silent for months across a rotation comes back with the key it has."""
        unit = Unit()
        unit.take(sign())
        now = NOW + 13 * WEEK_MS
        assert unit.judge(sign(seq=1, sent_at=now), now).outcome is Outcome.ACCEPTED

    def test_a_message_that_is_refused_ages_nothing(self) -> None:
        """Only what was kept shows that the device has gone over."""
        unit = Unit()
        unit.take(sign(kid=2, key=NEWER_KEY, sent_at=NOW - WEEK_MS - 1))
        now = NOW + WEEK_MS + 1
        assert unit.judge(sign(sent_at=now), now).outcome is Outcome.ACCEPTED

    def test_who_lacks_the_key_does_not_learn_that_it_is_too_old(self) -> None:
        """A forged message under the former key id is a forged message."""
        unit = Unit()
        unit.take(sign(kid=2, key=NEWER_KEY))
        now = NOW + WEEK_MS + 1
        assert unit.judge(sign(key=OTHER_KEY, sent_at=now), now).reason is Reason.BAD_MAC


class TestFormerCredentials:
    """A message signed before a renewal may be retried after it, within bounds."""

    MONTH_MS = 30 * 24 * 3600 * 1000

    def test_a_retry_survives_a_renewal(self) -> None:
        """Signed under the former key, verified after the renewal, flagged, and provenance names the former one."""
        unit, (old, key) = Unit(), former("old", NOW - 1000)
        unit.after_renewal(old)
        verdict = unit.judge(sign(key=key))
        assert (verdict.outcome, verdict.flags, verdict.credential) == (
            Outcome.ACCEPTED,
            Flag.FORMER_CREDENTIAL,
            old,
        )

    def test_the_second_latest_is_tried_too(self) -> None:
        """Two renewals in a row do not strand a message."""
        unit, (old, _), (older, key) = Unit(), former("old", NOW - 1000), former("older", NOW - 2000)
        unit.after_renewal(old, older)
        assert unit.judge(sign(key=key)).credential is older

    def test_its_numbers_are_claimed_in_its_own_windows(self) -> None:
        """A former credential's number does not use up the present one's."""
        unit, (old, key) = Unit(), former("old", NOW - 1000)
        unit.after_renewal(old)
        unit.take(sign(key=key, seq=3))
        assert unit.take(sign(seq=3)).outcome is Outcome.ACCEPTED

    def test_its_message_is_a_duplicate_the_second_time(self) -> None:
        """A replay of old traffic through the renewed connection is recognised."""
        unit, (old, key) = Unit(), former("old", NOW - 1000)
        unit.after_renewal(old)
        unit.take(sign(key=key))
        assert unit.take(sign(key=key)).outcome is Outcome.DUPLICATE

    @pytest.mark.parametrize(("ended_ms_ago", "outcome"), [(MONTH_MS, 1), (MONTH_MS + 1, 4)])
    def test_it_verifies_for_thirty_days(self, ended_ms_ago: int, outcome: int) -> None:
        """On the thirtieth day it still verifies, a millisecond later it does not."""
        unit, (old, key) = Unit(), former("old", NOW - ended_ms_ago)
        unit.after_renewal(old)
        assert unit.judge(sign(key=key)).outcome == outcome

    def test_a_revoked_one_verifies_nothing(self) -> None:
        """Revoking the former credential closes this door at once."""
        unit, (old, key) = Unit(), former("old", NOW - 1000)
        old.refusal = Reason.REVOKED
        unit.after_renewal(old)
        assert unit.judge(sign(key=key)).reason is Reason.BAD_MAC

    def test_one_that_has_not_ended_is_not_former(self) -> None:
        """Without an end there is nothing to count the thirty days from, so it does not verify."""
        unit, (old, key) = Unit(), former("old", NOW)
        old.ended_at_ms = None
        unit.after_renewal(old)
        assert unit.judge(sign(key=key)).reason is Reason.BAD_MAC

    def test_an_epoch_before_the_devices_is_stale_under_it_too(self) -> None:
        """The current epoch is the device's, whatever credential claimed it."""
        unit, (old, key) = Unit(), former("old", NOW - 1000)
        unit.after_renewal(old)
        unit.take(sign(epoch=6))
        assert unit.judge(sign(key=key, epoch=5)).reason is Reason.STALE_EPOCH


def test_only_a_verified_message_can_be_claimed() -> None:
    """Claiming a refusal is a mistake of the caller, and is told so."""
    unit = Unit()
    with pytest.raises(ValueError, match="verified message"):
        claim(unit.judge(b""), unit.device, NOW)


def test_a_message_is_accepted_in_each_encoding_of_its_envelope() -> None:
    """Over HTTPS the JSON form of the same signed content is the same message."""
    unit = Unit(json_allowed=True)
    first = unit.take(sign())
    assert (first.outcome, unit.take(sign_json()).outcome) == (Outcome.ACCEPTED, Outcome.DUPLICATE)


def test_secrets_are_not_in_the_repr_of_what_holds_them() -> None:
    """Neither a root key nor a device key is shown by the objects that carry them."""
    unit = Unit()
    unit.judge(sign())
    shown = repr(unit.credential) + repr(unit.credential.macs) + repr(unit.peer)
    assert str(ROOTS[1]) not in shown
    assert BODY  # the unit signed something, so its key had been derived


def test_behind_a_fence_only_what_is_remembered_is_a_duplicate() -> None:
    """Where the windows may have forgotten, a message from before is too_old, however young; its retry is known."""
    unit, fenced = Unit(), msgspec.structs.replace(POLICY, fence_ms=NOW)
    known = sign(seq=1, sent_at=NOW - 10)
    unit.take(known)
    outcomes = [
        unit.judge(raw, policy=fenced) for raw in (known, sign(seq=2, sent_at=NOW - 1), sign(seq=3, sent_at=NOW))
    ]
    assert [verdict.reason or verdict.outcome for verdict in outcomes] == [
        Outcome.DUPLICATE,
        Reason.TOO_OLD,
        Outcome.ACCEPTED,
    ]
