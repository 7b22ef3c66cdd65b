"""One of several loads watches, whatever happens to the others; on real records of control, and a clock set by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.control.store import Store
from fleetgate.control.watchturns import Turn, take_part
from fleetgate.errors import ControlAway
from fleetgate.load.watch.turn import DEAD_SECONDS, LEAVE_SECONDS, MOST_BEHIND_MS, SAY_SECONDS, Turns

NOW_MS = 1_767_225_600_000


class Loads:
    """Loads that share control; time goes by for all of them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_s = 100.0
        self.until_ms: dict[str, int | None] = {}
        self.cut_off: set[str] = set()
        self.there: dict[str, Turns] = {}

    def start(self, name: str, until_ms: int | None = NOW_MS) -> Turns:
        def said(spool: str, until_ms: int | None, dead: dict[str, int]) -> list[Turn]:
            if name in self.cut_off:
                raise ControlAway("cut off")
            return take_part(self.store, spool, until_ms, dead)

        self.until_ms[name] = until_ms
        turns = Turns(lambda: name, lambda: self.until_ms[name], said, lambda: self.now_s)  # type: ignore[arg-type]
        self.there[name] = turns
        return turns

    def watching(self, seconds: float = 0.0) -> list[str]:
        """Who watches after so long; at no time two."""
        end_s = self.now_s + seconds
        while True:
            mine = [name for name, turns in self.there.items() if turns.mine()]
            assert len(mine) < 2, (self.now_s, mine)
            if self.now_s >= end_s:
                return mine
            self.now_s += 1.0


@pytest.fixture
def loads(tmp_path: Path) -> Iterator[Loads]:
    store = Store.open(msgspec.structs.replace(Config(), home=str(tmp_path)), SystemClock(), create=True)
    yield Loads(store)
    store.close()


def test_one_of_several_watches_and_a_restart_keeps_its_turn(loads: Loads) -> None:
    """From its first moment on: nobody waits for what it was before."""
    loads.start("a")
    assert loads.watching() == ["a"]
    loads.start("b")
    assert loads.watching(3 * DEAD_SECONDS) == ["a"]
    loads.start("a")
    assert loads.watching() == ["a"]
    assert loads.there["b"].elsewhere()


def test_the_turn_of_a_load_that_died_is_taken(loads: Loads) -> None:
    """After a minute in which it said nothing; when it comes back another watches."""
    loads.start("a")
    loads.start("b")
    loads.watching(10)
    del loads.there["a"]
    assert loads.watching(LEAVE_SECONDS) == []
    assert loads.watching(DEAD_SECONDS) == ["b"]
    loads.start("a")
    assert loads.watching(3 * DEAD_SECONDS) == ["b"]


def test_a_load_that_is_cut_off_from_control_leaves_before_another_comes(loads: Loads) -> None:
    """It cannot know who watches now; back again, it is told."""
    loads.start("a")
    loads.start("b")
    loads.watching(10)
    loads.cut_off = {"a"}
    assert loads.watching(LEAVE_SECONDS) == []
    assert loads.watching(DEAD_SECONDS) == ["b"]
    loads.cut_off = set()
    assert loads.watching(DEAD_SECONDS) == ["b"]


def test_control_that_is_away_does_not_blind_who_is_alone(loads: Loads) -> None:
    """There is nobody whose turn it could be."""
    loads.start("a")
    loads.watching()
    loads.cut_off = {"a"}
    assert loads.watching(10 * DEAD_SECONDS) == ["a"]


def test_the_backlog_of_another_load_is_no_silence(loads: Loads) -> None:
    """The watch looks until where all have loaded; a load that is dead, or far behind, is not waited for."""
    first = loads.start("a")
    assert first.until_ms() == NOW_MS
    loads.start("b", NOW_MS - 90_000)
    loads.watching(2 * SAY_SECONDS)
    assert first.until_ms() == NOW_MS - 90_000
    loads.until_ms["b"] = NOW_MS - MOST_BEHIND_MS - 1
    loads.watching(2 * SAY_SECONDS)
    assert first.until_ms() == NOW_MS - MOST_BEHIND_MS
    del loads.there["b"]
    loads.watching(2 * DEAD_SECONDS)
    assert first.until_ms() == NOW_MS
    loads.start("c", None)
    loads.watching(2 * SAY_SECONDS)
    assert first.until_ms() == NOW_MS
