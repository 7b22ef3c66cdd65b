"""Which messages of a flood become samples."""

from __future__ import annotations

from fleetgate.evidence import sampling
from fleetgate.evidence.sampling import MORE, NEW, Sampling


def key(device: int, reason: str = "bad_mac") -> tuple[str, str, str]:
    return "acme", f"car-{device}-tcu", reason


def test_the_first_of_a_device_are_kept_and_then_one_a_minute() -> None:
    """However many come in between."""
    found = Sampling()
    flood = [found.wants(key(1), second / 100) for second in range(120 * 100)]
    assert flood[:4] == [True] * 4
    assert sum(flood[: 60 * 100]) == 4
    assert sum(flood) == 5


def test_another_reason_of_the_same_device_is_new() -> None:
    """What it does else is not hidden behind what it does most."""
    found = Sampling()
    while found.wants(key(1), 0.0):
        pass
    assert found.wants(key(1, "equivocation"), 0.0)


def test_a_device_is_seen_although_a_thousand_others_repeat_themselves() -> None:
    """What is new has a limit of its own."""
    found = Sampling()
    crowd = range(NEW.most)
    assert all(found.wants(key(device), 0.0) for device in crowd)
    second = [found.wants(key(device), 5.0) for device in crowd]
    assert 0 < sum(second) < len(second)  # the limit of all of them together
    assert found.wants(key(10_000), 5.0)


def test_who_came_when_there_was_no_room_is_still_new_the_next_time() -> None:
    """A device's first sample is not used up by not being taken."""
    found = Sampling()
    assert [found.wants(key(device), 0.0) for device in range(1000)].count(True) == NEW.most
    assert not found.wants(key(999), 0.0)
    assert found.wants(key(999), 1.0)


def test_a_second_has_a_bounded_number_whoever_sends() -> None:
    """Ten thousand devices with four reasons each."""
    found = Sampling()
    for device in range(10_000):
        found.wants(key(device, f"reason-{device % 4}"), 0.0)
    kept = sum(found.wants(key(device, f"reason-{device % 4}"), 10 + device / 10_000) for device in range(10_000))
    assert kept <= NEW.most + NEW.most / NEW.seconds + MORE.most + MORE.most / MORE.seconds


def test_what_is_remembered_is_bounded() -> None:
    """Certificates of ever other devices cost no memory."""
    found = Sampling()
    for device in range(sampling.MAX_REMEMBERED + 500):
        found.wants(key(device), float(device))
    assert len(found._of_device) == sampling.MAX_REMEMBERED
