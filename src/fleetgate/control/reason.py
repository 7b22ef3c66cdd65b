"""That a person's decision has a reason: it is what the next person reads."""

from __future__ import annotations

from fleetgate.errors import ConfigError


def check_reason(reason: str) -> None:
    """Raises ConfigError for one without a word in it."""
    if not reason.strip():
        raise ConfigError("it needs a reason: that is what the next person reads")
