"""What load does once a minute beside the segments: in a thread of its own, so that a signer that hangs holds up none.

Decides when a round is made; what is done in it, and that it raises nothing, is decided by whoever makes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

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
            self._make()
        self._make()
