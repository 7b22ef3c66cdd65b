"""What `make outage` needs of the bench: a gate whose ClickHouse is a server, and how far the swarm is."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from loadtest.bench.gate import _configuration
from loadtest.bench.outage import Measuring


@pytest.mark.parametrize("server", [False, True])
def test_only_an_outage_has_a_server(server: bool) -> None:
    """Load reaches it where it would otherwise serve its own; every other case measures the embedded one."""
    made = SimpleNamespace(directory=Path("/made"))
    section = tomllib.loads(_configuration(made, Path("/control.db"), server=server))["clickhouse"]  # type: ignore[arg-type]
    assert section.get("url") == (f"http://{section['listen']}" if server else None)


def test_the_drain_counts_only_while_the_swarm_sends() -> None:
    """Ingest must go on: a backlog that is loaded after the swarm's end says nothing."""
    measuring, seen = Measuring(), []
    for phase in ("connected", "measuring", "interval {}", "measured"):
        measuring.on_phase(phase)
        seen.append((measuring.begun, measuring.ended))
    assert seen == [(False, False), (True, False), (True, False), (True, True)]
