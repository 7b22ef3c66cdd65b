"""Structured logs: one JSON object a line on standard error, or a readable line on a terminal.

Callers pass names, reasons and counts. Payloads, keys, tags and tokens are never passed; `redact` is the second
lock on that door: any value under a name that looks like a secret, and any bytes at all, are replaced.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import structlog

_SECRET_NAMES = ("key", "token", "password", "secret", "tag", "body", "payload", "authorization")
_SAFE_NAMES = frozenset({"key_digest", "key_id", "kid"})


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if name in _SAFE_NAMES:
            continue
        lowered = name.lower()
        if isinstance(value, bytes | bytearray | memoryview) or any(word in lowered for word in _SECRET_NAMES):
            event[name] = "[redacted]"
    return event


def configure(process: str, level: str = "info") -> None:
    """Called once by each process; `process` is its name in every line, whatever thread it comes from."""

    def named(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            named,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def get(name: str) -> Any:
    """A logger that carries its room's name; structlog's loggers are typed as Any."""
    return structlog.get_logger(room=name)


def unforeseen(error: BaseException) -> str:
    """What it is and where it came from. Not its message: nobody knows what stands in it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"


class Sparse:
    """A logger that warns at most `per_second` times a second, for what strangers can cause: the rest is counted."""

    def __init__(self, logger: Any, per_second: int, monotonic: Callable[[], float]) -> None:
        self._logger = logger
        self._per_second = per_second
        self._monotonic = monotonic
        self._second = 0
        self._said = 0
        self._unsaid = 0

    def warning(self, event: str, **values: object) -> None:
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._said = second, 0
        if self._said >= self._per_second:
            self._unsaid += 1
            return
        self._said += 1
        if self._unsaid:
            values["not_logged_before"], self._unsaid = self._unsaid, 0
        self._logger.warning(event, **values)
