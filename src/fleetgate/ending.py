"""When a process with a trio loop was asked to end: at the first SIGTERM or SIGINT. Any further one changes nothing.

Decides only that. Not `trio.open_signal_receiver`, which raises again, as it closes, what came after the first: whoever
presses Ctrl-C twice would end the process in the middle of its draining.
"""

from __future__ import annotations

import signal
from contextlib import suppress

import trio


def asked_to_end() -> trio.Event:
    """Set at the first signal from now on; the handlers stay until the process ends. For the main thread."""
    asked, token = trio.Event(), trio.lowlevel.current_trio_token()

    def note(*_: object) -> None:
        with suppress(trio.RunFinishedError):  # ending already
            token.run_sync_soon(asked.set, idempotent=True)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return asked
