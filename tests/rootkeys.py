"""A root key that ends at the worst moment: just before somebody's transaction begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleetgate.control.keyring import Root, RootState, encode_roots, read_roots
from fleetgate.control.secretfile import replace_secret
from fleetgate.control.store import Store


def ends_before_transaction(monkeypatch: pytest.MonkeyPatch, keyring: Path, which: int = 1) -> None:
    """Root key 1 is retired, and 2 in its place, when the transaction of writing of this number is about to begin."""
    begin, begun = Store.write, iter(range(1, 1_000_000))

    def write(store: Store, actor: str) -> Any:
        if next(begun) == which:
            retired = msgspec.structs.replace(read_roots(keyring)[1], state=RootState.RETIRED)
            replace_secret(keyring, encode_roots({1: retired, 2: Root(os.urandom(32), 0, RootState.ACTIVE)}))
        return begin(store, actor)

    monkeypatch.setattr(Store, "write", write)
