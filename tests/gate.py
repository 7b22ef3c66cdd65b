"""A gate as it runs: an edge process started from the command line, with its own directory, ports, keys and records.

`Installation` is what `fleetgate ca init` made, with devices enrolled through control; `Gate` is one process on it,
which can be stopped, killed and started again on the same ports and spool. Nothing here is a double. `Gate.leaks` looks
through everything the process wrote to standard error for what must never stand in a log.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleetgate import configfile
from fleetgate.clock import Clock, SystemClock
from fleetgate.config import Config
from fleetgate.control.bundle import write_bundle
from fleetgate.control.devices import Enrolment, enrol, revoke
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.profile import CertificateIdentity, identity_of
from fleetgate.control.quarantine import Origin, apply_transition, decide
from fleetgate.control.retirement import suspend
from fleetgate.control.states import Classification, Decision
from fleetgate.control.store import Store, Write
from fleetgate.demo.prepare import free_ports
from fleetgate.load.records import transition_of
from fleetgate.spool.format import TransitionRecord
from fleetgate.spool.identity import read_identity
from fleetgate.spool.reader import Message, Segment, read_segment, segment_paths
from tests.renewing import request
from tests.units import BODY, elements, pack, sign_json

START_SECONDS = 20.0
STOP_SECONDS = 15.0
TENANT = "acme"

T = TypeVar("T")
NewGate = Callable[..., "Gate"]
"""Starts an edge of a test's own, with the given tables of its configuration."""


def now_ms() -> int:
    return SystemClock().now_ms()


def until(found: Callable[[], T], what: str, seconds: float = 10.0) -> T:
    """Asks again until the answer is true; fails when the deadline has passed."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.02)
    return answer


def until_stuck(found: Callable[[], bool], at: Callable[[], int], what: str, seconds: float) -> None:
    """Asks again while `at` changes, however slowly: load gives way to everything else, and that is no fault. Fails
    when it has been the same for so long."""
    place, since_s = at(), time.monotonic()
    while not found():
        if (now_at := at()) != place:
            place, since_s = now_at, time.monotonic()
        assert time.monotonic() - since_s < seconds, f"{what}: not yet, and it stands at {place} for {seconds:.0f} s"
        time.sleep(0.05)


def fleetgate(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as a person would, in `directory`."""
    return subprocess.run(
        [sys.executable, "-m", "fleetgate.cli.main", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=clean_environment(),
    )


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FLEETGATE_")}


class Car:
    """An enrolled device: its bundle directory, and what it signs with."""

    def __init__(self, directory: Path) -> None:
        facts = json.loads((directory / "device.json").read_text())
        self.directory = directory
        self.tenant: str = facts["tenant"]
        self.device_id: str = facts["device_id"]
        self.vehicle_id: str = facts["vehicle_id"]
        self.kid: int = facts["kid"]
        self.key = base64.b64decode(facts["mac_key"])
        self.topic = f"fleet/v1/{self.tenant}/{self.device_id}/telemetry"

    @property
    def identity(self) -> CertificateIdentity:
        return identity_of(
            x509.load_pem_x509_certificates((self.directory / "certificate.pem").read_bytes())[0], "fleet.example"
        )

    def _given(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"kid": self.kid, "key": self.key, "sent_at": now_ms()} | given

    def sign(self, epoch: int, seq: int, **given: Any) -> bytes:
        """A MessagePack envelope; `given` as `tests.units.elements` takes it."""
        return pack(elements(**self._given({"epoch": epoch, "seq": seq} | given)))

    def sign_json(self, epoch: int, seq: int, **given: Any) -> bytes:
        return sign_json(**self._given({"epoch": epoch, "seq": seq} | given))

    def context(self, certificate: Path | None = None, private: Path | None = None) -> ssl.SSLContext:
        """TLS as this car, or with another certificate and key."""
        context = ssl.create_default_context(cafile=self.directory / "ca.pem")
        context.load_cert_chain(certificate or self.directory / "certificate.pem", private or self.key_file)
        return context

    @property
    def key_file(self) -> Path:
        return self.directory / "private.pem"


class Installation:
    """A directory with PKI, keyring and control records. `cars` are those enrolled here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = msgspec.structs.replace(Config(), home=str(directory))
        self.cars: list[Car] = []

    @classmethod
    def create(cls, directory: Path) -> Installation:
        made = fleetgate(directory, "ca", "init")
        assert made.returncode == 0, made.stderr
        return cls(directory)

    def copy(self, directory: Path) -> Installation:
        """The same authority and keys with records of its own."""
        shutil.copytree(self.directory, directory, dirs_exist_ok=True)
        return Installation(directory)

    def configure(self, crls: Sequence[dict[str, Any]] = (), **tables: dict[str, Any]) -> None:
        """Writes fleetgate.toml: free ports, the given keys of the given tables, a table [[crls]] for each entry."""
        mqtt, https, admin, load, clickhouse = free_ports(5)
        edge = {
            "mqtt_listen": f"127.0.0.1:{mqtt}",
            "https_listen": f"127.0.0.1:{https}",
            "admin_listen": f"127.0.0.1:{admin}",
        }
        written = {
            "edge": edge | tables.get("edge", {}),
            "spool": {"min_free_bytes": 0} | tables.get("spool", {}),
            "policy": tables.get("policy", {}),
            "load": {"admin_listen": f"127.0.0.1:{load}"},
            "clickhouse": {"listen": f"127.0.0.1:{clickhouse}"},
        }
        written |= {table: tables[table] for table in ("evidence", "issuers", "proxy", "signer") if table in tables}
        written |= {f"limits.{level}": limit for level, limit in tables.get("limits", {}).items()}
        lines = [
            line
            for table, keys in written.items()
            for line in (f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()))
        ]
        for entry in crls:
            lines += ["[[crls]]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
        file = self.directory / "fleetgate.toml"
        file.write_text("\n".join(lines) + "\n")
        self.config = configfile.load(file, {})

    @contextmanager
    def control(self) -> Iterator[Store]:
        with Store.open(self.config, SystemClock(), write=True) as store:
            yield store

    @contextmanager
    def write(self) -> Iterator[Write]:
        """One transaction of the control records."""
        with self.control() as store, store.write("test") as write:
            yield write

    def enrol(
        self, vehicle: str, tenant: str = TENANT, clock: Clock | None = None, private: Ed25519PrivateKey | None = None
    ) -> Car:
        """Enrols through control, into a bundle directory as the command writes it; at another time by its `clock`,
        with the key that the device made itself if it is given."""
        if private is None:
            return self.given(enrol, tenant, vehicle, clock=clock)
        car = self.given(partial(enrol, csr=request(private)), tenant, vehicle, clock=clock)
        car.key_file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return car

    def given(self, act: Callable[..., Enrolment], *names: str, clock: Clock | None = None) -> Car:
        """A car with the bundle that `act` issues: `enrol`, `renew`, `replace` or `transfer`, with these names."""
        authority = Authority.load(self.directory / "pki", clock or SystemClock())
        keyring = Keyring.load(self.config.path(self.config.edge.keyring))
        out = self.directory / "devices" / f"{names[0]}-{names[1]}-{len(self.cars)}"
        with self.write() as write:
            write_bundle(out, act(write, authority, keyring, *names))
        car = Car(out)
        self.cars.append(car)
        return car

    def stranger(self, directory: Path, vehicle: str) -> Car:
        """A car with a good certificate of this authority that these records never heard of."""
        return self.copy(directory).enrol(vehicle)

    def revoke(self, car: Car) -> None:
        with self.write() as write:
            revoke(write, car.tenant, car.device_id, "a test")

    def suspend(self, car: Car) -> None:
        with self.write() as write:
            suspend(write, car.tenant, car.device_id, "a test")

    def quarantine(self, car: Car) -> None:
        """What load writes when another edge has put the device into quarantine."""
        with self.control() as store:
            at_ms = now_ms()
            record = TransitionRecord(car.tenant, car.device_id, "trusted", "quarantined", at_ms, "bad_mac", 100.0, "1")
            apply_transition(store, Origin("00" * 16, 1, 0), transition_of(record))

    def ban(self, car: Car) -> None:
        with self.control() as store:
            decide(store, car.tenant, car.device_id, Decision.BAN, Classification.CONFIRMED, "test", "a test")

    def release(self, car: Car) -> None:
        with self.control() as store:
            decide(store, car.tenant, car.device_id, Decision.RELEASE, Classification.BENIGN, "test", "a test")

    def command(self, *arguments: str) -> str:
        """Runs a command that must succeed; its output."""
        done = fleetgate(self.directory, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


class Door(Protocol):
    """Where vehicles connect: a gate itself, or a proxy in front of it."""

    @property
    def mqtt_port(self) -> int: ...

    @property
    def https_port(self) -> int: ...


class Gate:
    """An edge process of an installation. Not running until `start`."""

    def __init__(self, home: Installation) -> None:
        self.home = home
        self.log_file = home.directory / "edge.log"
        self.secrets: list[bytes] = [BODY]
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begin = 0

    # The process.

    def start(self) -> None:
        """Starts the edge and waits until it is ready to serve."""
        self.launch()
        self.await_ready()

    def launch(self, **environment: str) -> None:
        """Starts the edge, with these variables, and does not wait for it."""
        self._log_begin = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fleetgate.cli.main", "edge"],
                cwd=self.home.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment() | environment,
            )

    def await_ready(self) -> None:
        """Waits until the edge that was launched last is ready to serve; fails when it has ended."""
        process = self.process

        def ready() -> bool:
            text = self.log_file.read_bytes()[self._log_begin :]
            assert process.poll() is None, f"the edge ended with {process.returncode}: {text.decode()}"
            return b'"event": "ready"' in text

        until(ready, "the edge is ready", START_SECONDS)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the gate was never started"
        return self._process

    def kill(self) -> None:
        """What a crash does."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def terminate(self) -> int:
        """Asks it to drain; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    # Where it listens and what it says.

    @property
    def mqtt_port(self) -> int:
        return _port(self.home.config.edge.mqtt_listen)

    @property
    def https_port(self) -> int:
        return _port(self.home.config.edge.https_listen)

    def admin(self, path: str) -> tuple[int, str]:
        """Status and text of a path of the admin listener."""
        url = f"http://127.0.0.1:{_port(self.home.config.edge.admin_listen)}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, sample: str) -> float:
        """The value of one sample of /metrics, such as `fleetgate_ready` or `x_total{reason="bad_mac"}`."""
        for line in self.admin("/metrics")[1].splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        raise AssertionError(f"/metrics has no sample {sample}")

    def log(self) -> str:
        return self.log_file.read_text()

    def leaks(self) -> list[str]:
        """Key material and payloads found in the log, in any usual spelling."""
        log = self.log_file.read_bytes()
        root_keys = [root for root in Keyring.load(self.home.config.path("keyring.json")).roots.values() if root]
        secrets = [*self.secrets, *root_keys, *(car.key for car in self.home.cars)]
        spellings = (bytes, lambda s: s.hex().encode(), base64.b64encode, lambda s: repr(s)[2:-1].encode())
        found = [secret.hex()[:16] for secret in secrets for spell in spellings if spell(secret) in log]
        return found + [word for word in ("PRIVATE KEY", "Traceback") if word.encode() in log]

    # What it stored.

    @property
    def spool(self) -> Path:
        return self.home.config.path(self.home.config.spool.directory)

    def segments(self) -> list[Segment]:
        """Every segment in the order of numbers, the live one too; again when one was sealed meanwhile."""
        while True:
            try:
                directory = self.spool / "segments"
                paths = sorted([*segment_paths(directory), *segment_paths(directory, ".open")])
                return [read_segment(path) for _, path in paths]
            except FileNotFoundError:
                continue

    def stored(self, car: Car) -> list[Message]:
        """The messages of a device in the spool, in their order."""
        return [
            message
            for segment in self.segments()
            for message in segment.messages
            if segment.peers[message.peer].device_id == car.device_id
            and segment.peers[message.peer].tenant == car.tenant
        ]

    def moved(self, car: Car) -> list[str]:
        """The states that the edge gave the device, those in the live segment too."""
        found = [record for segment in self.segments() for _, record in segment.transitions]
        return [each.after for each in found if (each.tenant, each.device_id) == (car.tenant, car.device_id)]

    def transitions(self, car: Car) -> list[tuple[int, int, TransitionRecord]]:
        """(segment, offset, record) of the changes of a device's state that are in sealed segments."""
        return [
            (segment.header.segment, offset, record)
            for segment in self.segments()
            if segment.footer is not None
            for offset, record in segment.transitions
            if record.device_id == car.device_id
        ]

    def carry_transitions(self, car: Car) -> None:
        """Waits for the device's transitions to be sealed and applies them to control, as load does."""
        records = until(lambda: self.transitions(car), "the transition is in a sealed segment")
        identity = read_identity(self.spool)
        assert identity is not None
        with self.home.control() as store:
            for segment, offset, record in records:
                apply_transition(store, Origin(identity.spool, segment, offset), transition_of(record))

    def refused(self, car: Car, reason: str) -> int:
        """How often the spool says that this device was refused for this reason."""
        return sum(
            record.count
            for segment in self.segments()
            for _, record in segment.rejections
            if segment.peers[record.peer].device_id == car.device_id and record.reason == reason
        )


def replace(path: Path, content: bytes) -> None:
    """As one should: another file, of the same mode, takes the name."""
    new = path.with_name(path.name + ".new")
    new.touch(path.stat().st_mode & 0o777 if path.exists() else 0o644)
    new.write_bytes(content)
    new.replace(path)


@contextmanager
def running(authority: Installation, directory: Path, **tables: Any) -> Iterator[Gate]:
    """An edge on a copy of `authority`, configured by the given tables. When it goes, its log is searched."""
    home = authority.copy(directory)
    home.configure(**tables)
    with started(home) as gate:
        yield gate


@contextmanager
def started(home: Installation) -> Iterator[Gate]:
    """An edge on an installation that is configured already."""
    gate = Gate(home)
    try:
        gate.start()
        yield gate
        assert gate.leaks() == []
    finally:
        gate.close()


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
