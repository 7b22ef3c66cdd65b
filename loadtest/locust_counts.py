"""What locust itself counted, in `counts.json`: requests by name, how many users there were, and which of them broke.

Decides nothing: failures are those that the users of `locustfile` called so. Locust's own CSV files are for people:
they are written once a second, and lack what happened after the last time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from loadtest.journal import RunError

if TYPE_CHECKING:  # whoever imports locust has its sockets and threads patched
    from locust.env import Environment

FILE = "counts.json"


class Requests(msgspec.Struct, frozen=True):
    """All requests of one name; response times in milliseconds, None without any."""

    kind: str
    name: str
    requests: int
    failures: int
    p50_ms: float | None
    p99_ms: float | None


class Users(msgspec.Struct, frozen=True):
    """How many there were beside how many there should have been, `at_s` seconds after the start."""

    at_s: float
    wanted: int
    there: int


class Counts(msgspec.Struct, frozen=True):
    """`broken` are the exceptions that ended users or their turns, each once."""

    requests: list[Requests]
    users: list[Users]
    broken: list[str]

    @classmethod
    def of(cls, environment: Environment, users: list[Users]) -> Counts:
        """When the last user has ended, and the last worker has reported."""
        requests = [
            Requests(
                one.method,
                one.name,
                one.num_requests,
                one.num_failures,
                one.get_response_time_percentile(0.5) if one.num_requests else None,
                one.get_response_time_percentile(0.99) if one.num_requests else None,
            )
            for one in environment.stats.entries.values()
        ]
        runner = environment.runner
        broken = [] if runner is None else sorted({str(one["msg"]) for one in runner.exceptions.values()})
        return cls(sorted(requests, key=lambda one: (one.kind, one.name)), users, broken)

    @classmethod
    def read(cls, run_directory: Path) -> Counts | None:
        """None where locust left none. Raises RunError."""
        path = run_directory / FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls) if path.exists() else None
        except (OSError, msgspec.MsgspecError) as error:
            raise RunError(f"{path}: {error}") from None

    def write(self, run_directory: Path) -> None:
        (run_directory / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(self)))
