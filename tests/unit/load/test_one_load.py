"""One load to a spool: a second one waits, whatever ClickHouse the two have."""

from __future__ import annotations

import threading
from pathlib import Path

from fleetgate.load.service import _alone


def test_a_second_load_waits_for_the_first(tmp_path: Path) -> None:
    """It goes on when the first ends, and gives up when it is itself asked to stop."""
    got = threading.Event()
    stop = threading.Event()
    told = list[str]()  # what is waited for

    def second() -> None:
        with _alone(tmp_path / "spool", stop, told.append) as alone:
            assert alone
            got.set()

    with _alone(tmp_path / "spool", threading.Event(), told.append) as first:
        assert first
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not got.wait(0.7)
        asked = threading.Event()
        asked.set()
        with _alone(tmp_path / "spool", asked, told.append) as third:
            assert not third
    waiting.join(5)
    assert got.is_set()
    assert len(set(told)) == 1  # the same reason, at each look
