"""What load does once a minute beside the segments: in a thread of its own, so that a signer that hangs holds up none.

Decides when a round is made; what is done in it is decided by whoever makes it. What a round did not foresee is logged,
and the next one is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from fleetgate import log

ROUND_SECONDS = 60.0


class Rounds:
    """Made while entered; a last one at the end."""

    def __init__(self, name: str, make_round: Callable[[], None]) -> None:
        self._make = make_round
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Rounds:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(ROUND_SECONDS):
            self._round()
        self._round()

    def _round(self) -> None:
        try:
            self._make()
        except Exception as error:  # a thread that ended would not be missed
            log.get("load").error("a round failed", round=self._thread.name, error=log.unforeseen(error))
