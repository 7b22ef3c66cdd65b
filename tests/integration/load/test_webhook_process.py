"""A load that was killed between an alert and its webhook tells it when it starts again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.integration.load.test_load_process import SOURCE, Gate
from tests.receivers import OK, receiver, saying

from fleetgate import configfile
from fleetgate.clock import SystemClock
from fleetgate.control.deliveries import told
from fleetgate.control.store import Store

RAISES_AN_ALERT_AND_DIES = """
import os, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from fleetgate.catalogue import catalogue
from fleetgate.clock import SystemClock
from fleetgate.load.alerts import Alert, Alerts
from fleetgate.load.embedded import EmbeddedClickHouse
from fleetgate.load.counts import Counts
from fleetgate.load.migrations import migrate

clickhouse = EmbeddedClickHouse(Path(sys.argv[1]), "fleetgate")
migrate(clickhouse, catalogue(), 7)
alert = Alert(key="k", kind="silent_vehicles", tenant="acme", opened_at_ms=SystemClock().now_ms())
Alerts(clickhouse, Counts(CollectorRegistry()), SystemClock()).open(alert)
os._exit(9)
"""


def test_an_alert_of_a_killed_load_is_told_by_the_next(tmp_path: Path) -> None:
    """Once, by a process as an operator starts it, with the secret of its file."""
    gate = Gate(tmp_path)
    (tmp_path / "hook.secret").write_text("0123456789abcdef\n")
    (tmp_path / "hook.secret").chmod(0o600)
    with receiver(saying(OK)) as found:
        entry = f'[[webhooks]]\nurl = "{found.url()}"\nsecret_file = "hook.secret"\nallow_private = true\n'
        gate.file.write_text(gate.file.read_text() + entry)
        endpoint = hashlib.sha256(found.url().encode()).hexdigest()
        with Store.open(configfile.load(gate.file), SystemClock(), write=True) as store:
            told(store, endpoint)
        command = [sys.executable, "-c", RAISES_AN_ALERT_AND_DIES, str(tmp_path / "clickhouse")]
        assert subprocess.run(command, env=os.environ | {"PYTHONPATH": str(SOURCE)}, check=False).returncode == 9
        process = gate.start()
        try:
            gate.wait_for(lambda: len(found.requests) == 1)
        finally:
            process.terminate()
            process.wait(30)
    [(headers, body)] = found.requests
    assert (json.loads(body)["event"], headers["fleetgate-signature"][:2]) == ("alert.opened", "t=")
    with Store.open(configfile.load(gate.file), SystemClock()) as store:
        assert told(store, endpoint).deliveries == {headers["fleetgate-delivery"]}
