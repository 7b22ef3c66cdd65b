"""How a person names a time."""

from __future__ import annotations

from datetime import datetime

import typer


def moment(text: str) -> datetime:
    """Says which zone is missing rather than guessing one."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a time such as 2026-12-01T08:00Z") from None
    if found.tzinfo is None:
        raise typer.BadParameter(f"{text!r} names no time zone: write 2026-12-01T08:00Z or 2026-12-01T09:00+01:00")
    return found
