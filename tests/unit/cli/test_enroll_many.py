"""`fleetgate device enroll-many`: killed at any moment it goes on, and no device is without its bundle."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from sqlalchemy import func, select

from fleetgate.clock import SystemClock
from fleetgate.configfile import load
from fleetgate.control import bulk, directories
from fleetgate.control.audit import list_audit
from fleetgate.control.directories import STAGING, Directories
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.roster import show_device
from fleetgate.control.schema import audit
from fleetgate.control.store import Store

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Shell

COUNT = 10

KILLED = """
import os, signal, sys
from fleetgate.cli.main import main
from fleetgate.control import archive, bulk, directories, store
archive.BATCH = directories.BATCH = 4
owners = {"Archive": archive.Archive, "Directories": directories.Directories, "Write": store.Write}
owner, name = {**owners, "bulk": bulk, "directories": directories}[sys.argv[1]], sys.argv[2]
passes, real = int(sys.argv[3]), getattr(owner, name)

def killed(*arguments):
    global passes
    passes -= 1
    if not passes:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

setattr(owner, name, killed)
sys.argv[1:] = ["device", "enroll-many", "cars.csv", *sys.argv[4:]]
main()
"""
"""The command, in batches of 4, ended by kill -9 when it gets to a step for the n-th time."""

MOMENTS = {
    "before anything of a second batch": "bulk enrol_newcomers 2",
    "half of the bundles of a batch are written": "directories stage_bundle 3",
    "they are written, and not synced": "directories sync_bundles 1",
    "they are durable, and the records not written": "Write flush 1",
    "the records are committed, and no bundle is at its place": "Directories _move 1",
    "some are": "Directories _move 3",
    "all of a batch are": "directories sync_directory 1",
    "in the second batch, committed": "Directories _move 6",
}


@pytest.fixture
def shop(shell: Shell) -> Shell:
    """A gate without devices, and a list of ten."""
    shell.must("ca", "init")
    write_list(shell.directory, [f"acme,car-{number}," for number in range(COUNT)])
    return shell


def write_list(directory: Path, rows: list[str], columns: str = "tenant,vehicle,device") -> None:
    (directory / "cars.csv").write_text("\n".join([columns, *rows]) + "\n")


def killed(directory: Path, moment: str, *place: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *moment.split(), *place],
        cwd=directory,
        capture_output=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("FLEETGATE_")},
    )
    assert done.returncode == -9, done.stderr.decode()


def bundles(directory: Path) -> dict[str, Path]:
    """The bundles at their place, each of which is whole."""
    found = {path.name: path for path in sorted(directory.glob("out/acme/*"))}
    for path in found.values():
        leaf = x509.load_pem_x509_certificates((path / "certificate.pem").read_bytes())[0]
        assert load_pem_private_key((path / "private.pem").read_bytes(), None).public_key() == leaf.public_key()
        assert json.loads((path / "device.json").read_bytes())["device_id"] == path.name
    return found


def fingerprint(bundle: Path) -> str:
    leaf = x509.load_pem_x509_certificates((bundle / "certificate.pem").read_bytes())[0]
    return leaf.fingerprint(SHA256()).hex()


def archived(directory: Path) -> dict[str, str]:
    """The fingerprint of each device in the archive, whether it waits or not."""
    with closing(sqlite3.connect(directory / "cars.db")) as db:
        rows = db.execute("SELECT number, device_id, certificate FROM device ORDER BY number").fetchall()
    assert [number for number, _, _ in rows] == list(range(1, len(rows) + 1))
    return {name: x509.load_pem_x509_certificate(leaf).fingerprint(SHA256()).hex() for _, name, leaf in rows}


def waiting_from(directory: Path) -> int | None:
    with closing(sqlite3.connect(directory / "cars.db")) as db:
        [first] = db.execute("SELECT max(first) FROM waiting").fetchone()
    return None if first is None else int(first)


def on_record(shop: Shell) -> dict[str, str]:
    """The fingerprint of each enrolled device's active credential."""
    with Store.open(load(None, {}), SystemClock()) as store:
        names = [line["device_id"] for line in shop.json("device", "list")]
        return {name: show_device(store, "acme", name).credentials[0].fingerprint for name in names}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_killed_at_any_moment_no_device_is_without_its_bundle_or_the_other_way_round(shop: Shell, moment: str) -> None:
    """Whoever is on record has a bundle, placed or staged; what is placed is on record; and a second run ends it."""
    killed(shop.directory, moment, "--out", "out")
    recorded, placed = on_record(shop), bundles(shop.directory)
    staged = {path.name: path for path in shop.directory.glob(f"out/{STAGING}/acme/*")}
    assert {name: fingerprint(path) for name, path in placed.items()}.items() <= recorded.items()
    assert {name: fingerprint((staged | placed)[name]) for name in recorded} == recorded
    shop.must("device", "enroll-many", "cars.csv", "--out", "out")
    recorded = on_record(shop)
    assert {name: fingerprint(path) for name, path in bundles(shop.directory).items()} == recorded
    assert len(recorded) == COUNT
    assert [path.name for path in (shop.directory / "out").iterdir()] == ["acme"]
    with Store.open(load(None, {}), SystemClock()) as store:
        assert store.rows(select(func.count()).select_from(audit))[0][0] == COUNT


ARCHIVE_MOMENTS = {
    "they are durable, and the records not written": "Write flush 2",
    "the records are committed, and nothing handed over": "Archive hand_over 2",
}


@pytest.mark.parametrize("moment", ARCHIVE_MOMENTS.values(), ids=ARCHIVE_MOMENTS.keys())
def test_killed_at_any_moment_an_archive_has_the_bundles_of_all_on_record_and_of_nobody_else(
    shop: Shell, moment: str
) -> None:
    """Those of the second batch wait, and a reader does not count them; the next run settles them."""
    killed(shop.directory, moment, "--archive", "cars.db")
    assert on_record(shop).items() <= archived(shop.directory).items()
    assert waiting_from(shop.directory) == 5
    shop.must("device", "enroll-many", "cars.csv", "--archive", "cars.db")
    assert archived(shop.directory) == on_record(shop)
    assert (waiting_from(shop.directory), len(on_record(shop))) == (None, COUNT)
    assert (shop.directory / "cars.db").stat().st_mode & 0o777 == 0o600


def test_an_archive_of_another_gate_is_left_as_it_is(shop: Shell) -> None:
    """Its keys are somebody's; each row says what is to be moved away."""
    shop.must("device", "enroll-many", "cars.csv", "--archive", "cars.db")
    before = archived(shop.directory)
    for file in shop.directory.glob("control.db*"):
        file.unlink()
    Store.open(load(None, {}), SystemClock(), create=True).close()
    assert shop.run("device", "enroll-many", "cars.csv", "--archive", "cars.db") == 1
    assert "line 2: the bundle of acme/car-0-tcu in cars.db exists already: move it away" in shop.err
    assert (archived(shop.directory), on_record(shop)) == (before, {})


def test_two_runs_do_not_work_on_one_archive(shop: Shell) -> None:
    """The second would take what waits for what a killed one left."""
    with closing(sqlite3.connect(shop.directory / "cars.db")) as db:
        db.execute("BEGIN EXCLUSIVE")
        assert shop.run("device", "enroll-many", "cars.csv", "--archive", "cars.db") == 4
    (shop.directory / "cars.db").write_bytes(b"no database, but longer than the hundred bytes of a header" * 3)
    assert shop.run("device", "enroll-many", "cars.csv", "--archive", "cars.db") == 2
    assert "cannot write into cars.db: file is not a database" in shop.err
    assert shop.run("device", "enroll-many", "cars.csv", "--archive", "cars.db", "--out", "out") == 2


def test_one_of_many_has_the_records_of_one_enrolled_alone(shop: Shell) -> None:
    """Whichever way it came to the records, nobody can tell."""
    shop.must("device", "enroll-many", "cars.csv", "--out", "out")
    shop.must("device", "enroll", "--tenant", "acme", "--vehicle", "alone")
    shown = [shop.json("device", "show", "--tenant", "acme", "--device", f"{name}-tcu") for name in ("car-3", "alone")]
    with Store.open(load(None, {}), SystemClock()) as store:
        entries = [list_audit(store, "acme", f"{name}-tcu", 1)[0] for name in ("car-3", "alone")]
    for each in shown:
        [credential] = each["credentials"]
        assert each.pop("device_id") == f"{each.pop('vehicle_id')}-tcu"
        for told in (each, credential, each["bindings"][0], each["decisions"][0]):
            for name in [name for name in told if name in ("fingerprint", "serial", "vehicle_id") or "_ms" in name]:
                assert told.pop(name) is not None or name.startswith(("ended", "revoked", "invalid", "to_"))
    assert shown[0] == shown[1]
    assert [(entry.action, sorted(entry.detail)) for entry in entries] == [
        ("enrol", ["fingerprint", "kid", "vehicle"])
    ] * 2


def test_killed_again_while_it_goes_on(shop: Shell) -> None:
    """What is left of two runs is mended by the third."""
    killed(shop.directory, "Directories _move 2", "--out", "out")
    killed(shop.directory, "Directories _move 2", "--out", "out")
    shop.must("device", "enroll-many", "cars.csv", "--out", "out")
    assert {name: fingerprint(path) for name, path in bundles(shop.directory).items()} == on_record(shop)
    assert len(on_record(shop)) == COUNT


def test_a_run_that_is_through_does_nothing_when_it_is_run_again(shop: Shell) -> None:
    """No device gets other keys."""
    shop.must("device", "enroll-many", "cars.csv", "--out", "out")
    before = on_record(shop)
    told = shop.must("device", "enroll-many", "cars.csv", "--out", "out")
    assert "enrolled 0 devices" in told
    assert "10 were enrolled before\n" in told
    assert on_record(shop) == before


def test_devices_whose_files_were_taken_away_are_told_and_not_enrolled_anew(shop: Shell) -> None:
    """Their keys are with them."""
    shop.must("device", "enroll-many", "cars.csv", "--out", "out")
    assert "the files of 10 of them are not in elsewhere" in shop.must(
        "device", "enroll-many", "cars.csv", "--out", "elsewhere"
    )


def test_a_bad_row_is_told_with_its_line_and_stops_no_other(shop: Shell) -> None:
    """The command ends with 1, and all the others are enrolled."""
    bad = ["acme,Car-X,", "acme,car-0,", "acme", "acme,car-1,other-tcu", "\udcff,car-x,", ",,"]
    rows = ["acme,car-0,", *bad, "acme,car-1,", "", "acme,car-2,tcu-2"]
    (shop.directory / "cars.csv").write_bytes(
        "\n".join(["tenant,vehicle,device", *rows]).encode("utf-8", "surrogateescape")
    )
    assert shop.run("device", "enroll-many", "cars.csv", "--out", "out") == 1
    lines = [
        int(line.split(":")[0].removeprefix("line ")) for line in shop.err.splitlines() if line.startswith("line ")
    ]
    # car-1 has other-tcu in it, which came first.
    assert lines == [3, 4, 5, 7, 8, 9]
    assert sorted(bundles(shop.directory)) == ["car-0-tcu", "other-tcu", "tcu-2"]
    assert "6 of 9 rows of cars.csv were not enrolled" in shop.err


def test_devices_are_enrolled_from_their_requests(shop: Shell) -> None:
    """A path in the list is relative to the list; a request that is no good costs its row."""
    (shop.directory / "csr").mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256())
    (shop.directory / "csr" / "0.pem").write_bytes(request.public_bytes(Encoding.PEM))
    (shop.directory / "csr" / "1.pem").write_bytes(b"no request")
    rows = [f"acme,car-{number},csr/{number}.pem" for number in range(3)]
    write_list(shop.directory, rows, "tenant,vehicle,csr")
    assert shop.run("device", "enroll-many", "cars.csv", "--out", "out") == 1
    assert "line 3: the certificate request cannot be parsed" in shop.err
    assert "line 4: cannot read the certificate request 'csr/2.pem'" in shop.err
    assert sorted(path.name for path in (shop.directory / "out" / "acme" / "car-0-tcu").iterdir()) == [
        "ca.pem",
        "certificate.pem",
        "device.json",
    ]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ("", "it does not name tenant and vehicle"),
        ("tenant,device", "it does not name vehicle"),
        ("tenant,vehicle,colour", "there is no column 'colour'"),
        ("tenant,vehicle,vehicle", "it names vehicle twice"),
    ],
)
def test_a_list_without_its_columns_is_refused(shop: Shell, columns: str, why: str) -> None:
    """Before anything is made."""
    write_list(shop.directory, [], columns)
    assert shop.run("device", "enroll-many", "cars.csv", "--out", "out") == 2
    assert "the first line must name the columns" in shop.err
    assert why in shop.err
    assert not (shop.directory / "out").exists()


def test_two_runs_do_not_work_on_one_directory(shop: Shell) -> None:
    """The second would take what the first is about to place for what a killed one left."""
    (shop.directory / "out").mkdir()
    descriptor = os.open(shop.directory / "out", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert shop.run("device", "enroll-many", "cars.csv", "--out", "out") == 4
    os.close(descriptor)
    assert shop.json("device", "list") == []


def test_a_disk_that_takes_no_more_ends_the_run_and_no_row_is_blamed(
    shop: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is undone; run again, it goes on."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("fleetgate.control.directories.sync_bundles", full)
        assert shop.run("device", "enroll-many", "cars.csv", "--out", "out") == 2
    assert "No space left on device" in shop.err
    assert shop.json("device", "list") == []
    shop.must("device", "enroll-many", "cars.csv", "--out", "out")
    assert len(on_record(shop)) == COUNT


def test_a_decision_does_not_wait_until_a_long_list_is_enrolled(shop: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets its turn between two batches, however many are to come."""
    monkeypatch.setattr(directories, "BATCH", 20)
    config, clock = load(None, {}), SystemClock()
    authority, keyring = Authority.load(Path("pki"), clock), Keyring.load(Path("keyring.json"))
    rows = [bulk.Row(line, "acme", f"car-{line}", f"car-{line}-tcu") for line in range(200)]
    done: list[int] = []
    with Store.open(config, clock, write=True) as store, Store.open(config, clock, write=True) as other:
        run = bulk.Bulk(
            store, "test", lambda: (authority, keyring), Directories(Path("out")), 1, lambda *_: None, done.append
        )
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(run.run, rows)
            waited = []
            while len(done) < 6 and not running.done():
                before = len(done)
                with other.write("test") as write:
                    write.note("keyring_rotate", "", "root/1", {})
                waited.append(len(done) - before)
                sleep(0.2)
            assert running.result().enrolled == len(rows)
    assert max(waited) <= 2, waited
