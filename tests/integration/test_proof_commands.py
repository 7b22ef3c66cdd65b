"""From a vehicle's message to its proof, with the processes and commands of a real gate."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from tests.gate import Installation, clean_environment, fleetgate, until
from tests.http_peer import MSGPACK

from fleetgate.demo.figures import is_ready
from fleetgate.spool.cursor import read_cursor


def test_a_message_is_proved_by_the_commands(authority: Installation, tmp_path: Path) -> None:
    """`up` runs a signer; after its end everything loaded is signed, proved, verified and exported."""
    home = authority.copy(tmp_path / "gate")
    home.configure()
    car = home.enrol("proved")
    with (tmp_path / "up.log").open("wb") as log:
        command = [sys.executable, "-m", "fleetgate.cli.main", "up"]
        process = subprocess.Popen(command, cwd=home.directory, stdout=log, stderr=log, env=clean_environment())
    try:
        listeners = (home.config.edge.admin_listen, home.config.load.admin_listen)
        until(lambda: all(map(is_ready, listeners)), "edge and load are ready", 40)
        url = f"https://localhost:{home.config.edge.https_listen.rpartition(':')[2]}/v1/telemetry"
        answer = httpx.post(
            url, content=car.sign(1, 0), headers={"content-type": MSGPACK}, verify=car.context(), trust_env=False
        )
        assert answer.status_code == 202
        until(lambda: read_cursor(home.config.path(home.config.spool.directory)), "a segment is loaded", 20)
        assert home.command("db", "query", "SELECT count() FROM segments", "--format", "TSV").strip() != "0"
        verified = fleetgate(home.directory, "verify", "segments")
        assert (verified.returncode, "no head of this spool is signed" in verified.stdout) == (0, True), verified
        assert verified.stdout.endswith("intact: every row that was looked at is as it was loaded\n")
        assert (home.directory / "signer.sock").stat().st_mode & 0o777 == 0o600
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    who = ("--device", f"{car.tenant}/{car.device_id}", "--epoch", "1", "--seq", "0", "--offline")
    told = home.command("prove", *who)
    assert told.count(": holds: ") == 6, told
    proof = json.loads(home.command("prove", *who, "--json"))
    assert {step["step"]: step["holds"] for step in proof["steps"]}["head"] is True
    report = json.loads(home.command("verify", "segments", "--offline", "--json"))
    assert (report["findings"], report["unsigned"], report["heads"]) == ([], 0, 1)
    report = json.loads(home.command("verify", "audit", "--json"))
    assert (report["findings"], report["unsigned"], report["heads"]) == ([], 0, 1)
    export = home.directory / "heads.json"
    export.write_text(home.command("heads", "export", "--offline"))
    for secret in (home.config.signer.audit_key, home.config.signer.log):
        home.config.path(secret).unlink()  # the public key is enough
    assert "good signatures: 1" in home.command("heads", "verify", "heads.json", "--key", "pki/audit.pem")
    export.write_text(export.read_text().replace('"segment": 1', '"segment": 2'))
    forged = fleetgate(home.directory, "heads", "verify", "heads.json")
    assert (forged.returncode, "its signature is wrong" in forged.stdout) == (1, True)
    export.write_text('{"format": "fleetgate-heads-1", "heads": []}')
    empty = fleetgate(home.directory, "heads", "verify", "heads.json")
    assert (empty.returncode, "has no heads" in empty.stderr) == (1, True)
    nowhere = fleetgate(home.directory, "verify", "segments", "--spool", "nosuch", "--offline")
    assert (nowhere.returncode, "nothing was verified" in nowhere.stderr) == (3, True)
    assert fleetgate(home.directory, "verify", "segments", "--from", "100", "--to", "5", "--offline").returncode == 2
    other = fleetgate(home.directory, "prove", *who[:4], "--seq", "5", "--offline")
    assert (other.returncode, "nothing is stored" in other.stderr) == (3, True)
