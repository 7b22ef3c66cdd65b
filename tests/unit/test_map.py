"""The map of the source, in the head of `fleetgate`, leads to files that there are."""

from __future__ import annotations

import re
from importlib.util import find_spec

import fleetgate

_PLACE = re.compile(r"\b((?:accept|cli|control|judge|load|spool)\.[a-z]+)\b")


def test_every_place_of_the_map_is_a_module() -> None:
    """A file that moves takes its place on the map along."""
    named = _PLACE.findall(fleetgate.__doc__ or "")
    assert {"accept.entrance", "load.release", "load.posting"} <= set(named)
    assert [name for name in named if find_spec(f"fleetgate.{name}") is None] == []
