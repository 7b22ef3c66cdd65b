"""How a person asks load, another process, to try a parked segment again: an empty file `parked/<n>.retry` beside it.

The person's command writes it; load takes it away when it has tried. So a request survives whoever is not running.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from fleetgate.durable import replace_durably

_SUFFIX = ".retry"


def ask(parked: Path) -> None:
    """Asks for the segment whose file is at `parked`. Raises OSError."""
    replace_durably(parked.with_suffix(_SUFFIX), b"")


def asked(directory: Path) -> list[Path]:
    """The files in `directory` that are asked for, in the order of their numbers."""
    return sorted(path.with_suffix(".seg") for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdigit())


def withdraw(parked: Path) -> None:
    """The request has been answered, one way or the other."""
    with contextlib.suppress(FileNotFoundError):
        parked.with_suffix(_SUFFIX).unlink()
