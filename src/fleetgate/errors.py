"""Every error a person can meet, with its exit code.

A vehicle never sees these: what is refused on the road is a `Reason` of `judge.verdict`. A message says what is wrong,
where (setting, file or field), and what to do next; it never carries key material or payload.
"""

from __future__ import annotations


class FleetgateError(Exception):
    """Base of all errors that end a command; `exit_code` is what the shell gets."""

    exit_code = 1


class CheckFailed(FleetgateError):
    """A verification ran and its answer is no (exit 1)."""


class ConfigError(FleetgateError):
    """A setting, or a file that a setting names, cannot be used (exit 2)."""

    exit_code = 2


class NotFound(FleetgateError):
    """What the command was asked about is not in the records (exit 3)."""

    exit_code = 3


class Conflict(FleetgateError):
    """The records already say otherwise (exit 4)."""

    exit_code = 4


class SpoolError(FleetgateError):
    """The spool is locked by another edge, damaged or not writable (exit 5)."""

    exit_code = 5


class ControlAway(FleetgateError):
    """The control database does not answer; never a reason to let anybody in (exit 6)."""

    exit_code = 6


class ClickHouseAway(FleetgateError):
    """ClickHouse does not answer or is busy: the same again later (exit 7)."""

    exit_code = 7


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error inside the groups that nurseries wrap around it, however many there are."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


EXIT_CODES: tuple[type[FleetgateError], ...] = (
    CheckFailed,
    ConfigError,
    NotFound,
    Conflict,
    SpoolError,
    ControlAway,
    ClickHouseAway,
)
"""The table in docs/reference/exit-codes.md is made from these; unexpected errors exit with 70."""
