"""How a limit is written."""

from __future__ import annotations

import pytest

from fleetgate.configfile import load
from fleetgate.errors import ConfigError
from fleetgate.rates import Rate, parse_rates


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("", ()),
        (" ", ()),
        ("100/s", (Rate(100, 1),)),
        ("100/s, 2000/min", (Rate(100, 1), Rate(2000, 60))),
        ("1000/5s,9/day,  7/2h", (Rate(1000, 5), Rate(9, 86_400), Rate(7, 7_200))),
    ],
)
def test_a_limit_is_any_number_of_rates(text: str, rates: tuple[Rate, ...]) -> None:
    """COUNT/[N]UNIT, joined by commas; none is no limit."""
    assert parse_rates(text) == rates


@pytest.mark.parametrize(
    "text",
    ["100", "100/", "/s", "0/s", "1/0s", "-1/s", "1.5/s", "1/ms", "1/week", "100/s,", "100/s 2000/min", "1/s;2/min",
     "1" * 13 + "/s", "1/99999s", "\u0661/s", "1 000/s", "a" * 10_000],
)  # fmt: skip
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    """Nothing is guessed: a limit that means something else than was meant is none."""
    with pytest.raises(ValueError, match="write COUNT/UNIT, as in 100/s") as refused:
        parse_rates(text)
    assert len(str(refused.value)) < 150


def test_the_setting_is_named_where_its_limit_is_wrong() -> None:
    """By its whole name, whatever is wrong with the value, with how one is written."""
    for value, why in (
        ("1 MB/s", "'1 MB/s' is no rate"),
        ("100/s,", "'100/s,' has a comma with no rate behind or before it"),
        ("5", "Expected `str`, got `int`"),
    ):
        with pytest.raises(ConfigError) as refused:
            load(None, {"FLEETGATE_LIMITS_TENANT_BYTES": value})
        assert f"limits.tenant.bytes: {why}: write COUNT/UNIT, as in 100/s" in str(refused.value)


def test_a_limit_of_the_device_that_is_not_named_keeps_its_default() -> None:
    """Who limits connections has not lifted the limit of messages."""
    limits = load(None, {"FLEETGATE_LIMITS_DEVICE_CONNECTIONS": "5/min"}).limits
    assert (limits.device.connections, limits.device.messages) == ("5/min", "1000/5s")
