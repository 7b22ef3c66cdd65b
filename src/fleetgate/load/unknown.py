"""Names that the catalogue does not have: which of them are kept, so that no tenant can fill a dictionary.

Decides only that. The first 64 names of a tenant are kept for good (table `unknown_names`); what comes under others is
counted and dropped.
"""

from __future__ import annotations

MAX_NAMES = 64
"""For each tenant (schemas/envelope.md): enough to see a forgotten catalogue entry, too few to be a store."""


class UnknownNames:
    def __init__(self, kept: dict[str, set[str]]) -> None:
        """`kept` maps tenant to the names that the table has."""
        self._kept = kept
        self._new: list[tuple[str, str]] = []

    def admit(self, tenant: str, name: str) -> bool:
        """Whether values under this name are kept."""
        names = self._kept.setdefault(tenant, set())
        if name in names:
            return True
        if len(names) >= MAX_NAMES:
            return False
        names.add(name)
        self._new.append((tenant, name))
        return True

    def unsaved(self) -> list[tuple[str, str]]:
        """(tenant, name) admitted since the last `saved`, in order."""
        return list(self._new)

    def saved(self) -> None:
        self._new.clear()
