"""Stands in for a ClickHouse server: load's own ClickHouse-HTTP endpoint over an embedded ClickHouse, writable and in a
process of its own, so that it can be killed and be put behind a proxy that breaks things.

    python -m tests.faults.server DIRECTORY HOST:PORT    (the writer's password stands in DIRECTORY/password)
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from fleetgate.load.embedded import EmbeddedClickHouse
from fleetgate.load.owner import Owner


def main(directory: Path, listen: str) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    engine = EmbeddedClickHouse(directory / "clickhouse", "default")
    password = (directory / "password").read_text()
    owner = Owner(engine, listen, f"reader {password}", password)
    stop.wait()
    owner.close()
    engine.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
