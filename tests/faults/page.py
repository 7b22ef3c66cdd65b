"""The table of faults in docs/explanation/durability.md, printed from the registry: `python -m tests.faults.page`."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.rooms import FAULTS, ROOMS


def table() -> Iterator[str]:
    """Its lines, by room."""
    yield "| fault | what happens |"
    yield "| --- | --- |"
    for room in ROOMS:
        title = (room.__doc__ or "").split("\n")[0].split(". ")[0].rstrip(".:")
        yield f"| *{title}* | |"
        for fault in FAULTS.values():
            if fault.strike.__module__ == room.__name__:
                yield f"| `{fault.name}`{' (quick)' if fault.quick else ''} | {fault.what} |"


if __name__ == "__main__":
    print("\n".join(table()))
