"""A ClickHouse server for measurements that need one to go away: the embedded one behind its HTTP interface, alone.

Load owns an embedded ClickHouse and dies with it; a server dies alone. Runs as load does (SCHED_IDLE), so that its
share of the machine is that of the ClickHouse inside load. Ended by a kill, as an outage is.
"""

from __future__ import annotations

import argparse
import os
import threading
from pathlib import Path

from fleetgate.catalogue import catalogue
from fleetgate.load.embedded import EmbeddedClickHouse
from fleetgate.load.migrations import migrate
from fleetgate.load.owner import Owner


def main() -> None:
    parser = argparse.ArgumentParser(description="Serves an embedded ClickHouse by HTTP until it is killed.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("listen")
    parser.add_argument("database")
    parser.add_argument("token_file", type=Path, help="of the one who may write")
    arguments = parser.parse_args()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    engine = EmbeddedClickHouse(arguments.directory, arguments.database)
    migrate(engine, catalogue(), 7)
    token = arguments.token_file.read_text().strip()
    Owner(engine, arguments.listen, f"reader-{token}", token)
    threading.Event().wait()


if __name__ == "__main__":
    main()
