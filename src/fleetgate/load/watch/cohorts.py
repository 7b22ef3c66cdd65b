"""Whose vehicles are compared with what they were: all of a tenant, those of a software version, those of one of its
configurations, those of a cell of the map. Decides their names, and which cohort explains a change best.

Vehicles carry no region. A cell is half a degree of latitude and longitude: what a mast's or a carrier's failure, or
somebody who spoofs positions, takes at least.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

CELL_DEGREES = 0.5
MOST = 0.6
"""A parent explains a change when so much of each partition of it, by vehicles, changed with it."""

Cell = tuple[int, int]


class Cohort(NamedTuple):
    """None: of all. What runs one software in all tenants together is a cohort too, for what is too small to be seen in
    each of them: its tenant is empty."""

    tenant: str
    software: str | None = None
    config: str | None = None
    cell: Cell | None = None

    def words(self) -> str:
        """Whose vehicles, for a person; empty for all of the tenant."""
        if self.cell is not None:
            north, east = ((part + 0.5) * CELL_DEGREES for part in self.cell)
            return f"around {north:.2f}, {east:.2f}"
        parts = [("software", self.software), ("configuration", self.config)]
        return ", ".join(f"{name} {value}" for name, value in parts if value is not None)

    @property
    def parent(self) -> Cohort | None:
        if self.config is not None:
            return self._replace(config=None)
        return self._replace(software=None, cell=None) if self != Cohort(self.tenant) else None

    def related(self, other: Cohort) -> bool:
        """Whether one is a part of the other, or their cells touch."""
        if self.cell is not None and other.cell is not None:
            return all(abs(a - b) <= 1 for a, b in zip(self.cell, other.cell, strict=True))
        if not (self.tenant and other.tenant) and self.software == other.software:
            return True
        return other in self._line() or self in other._line()

    def _line(self) -> list[Cohort]:
        return [self, *(self.parent._line() if self.parent is not None else ())]


def explaining(
    firm: Collection[Cohort], vehicles: Mapping[Cohort, int], leans: Callable[[Cohort], bool]
) -> list[Cohort]:
    """Of the cohorts that changed, those that say best whose change it is.

    `vehicles` has every cohort that was measured, `leans` says which of them changed somewhat. A cohort gives way to
    its parts when most of the vehicles in one of its partitions did not change.
    """
    changed = {cohort for cohort in firm if cohort.tenant}
    children: dict[Cohort, dict[str, list[Cohort]]] = {}
    for cohort in vehicles:
        if cohort.parent is not None:
            partition = "cells" if cohort.cell is not None else "labels"
            children.setdefault(cohort.parent, {}).setdefault(partition, []).append(cohort)

    def best(cohort: Cohort) -> list[Cohort]:
        for parts in children.get(cohort, {}).values():
            leaning = sum(vehicles[part] for part in parts if leans(part))
            inside = [part for part in parts if part in changed]
            if inside and leaning < MOST * sum(vehicles[part] for part in parts):
                return [found for part in inside for found in best(part)]
        return [cohort]

    tops = [cohort for cohort in changed if cohort.parent is None or cohort.parent not in changed]
    told = {found for top in tops for found in best(top)}
    told |= {all_of_it for all_of_it in firm if not all_of_it.tenant and not any(map(all_of_it.related, told))}
    return sorted(told, key=repr)
