"""An edge with a signer beside it, for the tests of renewal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.gate import Gate, Installation, running
from tests.renewal_peer import signing


@pytest.fixture(scope="session")
def renewing_gate(authority: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """The signer is another process of the same installation; its limits are the device's, not those of all tests."""
    directory = tmp_path_factory.mktemp("renewal")
    with running(authority, directory, signer={"renewals_per_minute": 1000}) as gate, signing(gate.home):
        yield gate
        assert gate.process.poll() is None, "one of the tests ended the edge"
