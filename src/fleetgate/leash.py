"""A command on a leash: `python -m fleetgate.leash edge` is `fleetgate edge`, but ends when its parent has ended.

`supervise` starts its children so, and holds the other end of their standard input without ever writing to it. When
the parent goes, by kill -9 too, the kernel closes it, and the child ends as by kill -9, which is how any process of
the gate may end. An orphan would hold spool and ports against the next `fleetgate up`, with nobody to start it again.

PR_SET_PDEATHSIG would not do: it is sent when the *thread* ends that started the child, and trio starts children from
threads that end when they are idle.
"""

from __future__ import annotations

import os
import signal
import threading

STANDARD_INPUT = 0


def hold() -> None:
    """Ends this process, from now on, when standard input does."""
    threading.Thread(target=_end_with_parent, name="leash", daemon=True).start()


def _end_with_parent() -> None:
    while os.read(STANDARD_INPUT, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    hold()  # before anything else is imported: that takes a second
    from fleetgate.cli.main import main

    main()
