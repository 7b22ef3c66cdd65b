"""An authority for all of these tests, and what the doctor finds in files of it on a machine that is no gate's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.papers import Workshop, look

from fleetgate.doctor.files import Paths
from fleetgate.doctor.findings import Finding, Says


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def good(workshop: Workshop, tmp_path: Path) -> Paths:
    """Files without a mistake."""
    return workshop.bundle(tmp_path / "good")


@pytest.fixture
def says(tmp_path: Path) -> Callable[..., list[Finding]]:
    """The findings about some files, in their order."""

    def found(paths: Paths, now_ms: int | None = None) -> list[Finding]:
        checks = look(paths, elsewhere=tmp_path, now_ms=now_ms)
        return [check.finding for check in checks if check.says is Says.WRONG and check.finding is not None]

    return found
