"""The load process: who is opened in which order.

An embedded ClickHouse is opened, brought up to date and served over HTTP before the first segment is read; of a server
only the client is needed. Ready, as the service manager is told, is load when it loads, or waits for somebody else:
what it does before may take long. Holds no MAC key and no device key. How it ends is decided in ending.py.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from fleetgate import log
from fleetgate.admin import AdminServer
from fleetgate.catalogue import catalogue
from fleetgate.clock import Clock, Entropy
from fleetgate.config import Config
from fleetgate.control.secretfile import write_secret
from fleetgate.control.signing import SignerClient
from fleetgate.errors import ClickHouseAway, SpoolError
from fleetgate.load.alerts import Alerts
from fleetgate.load.auditheads import AuditHeads
from fleetgate.load.clickhouse import ClickHouse
from fleetgate.load.closings import Closings
from fleetgate.load.counts import Counts
from fleetgate.load.ending import end_when_asked
from fleetgate.load.endpoint import access_token, embedded_directory, reader
from fleetgate.load.handover import Handover
from fleetgate.load.heads import Heads
from fleetgate.load.inserts import Inserts
from fleetgate.load.lag import LagCollector
from fleetgate.load.loader import Loader, Settings
from fleetgate.load.migrations import migrate, require
from fleetgate.load.patience import Patience
from fleetgate.load.progress import TELL_SECONDS, Progress
from fleetgate.load.records import Records
from fleetgate.load.release import Releases
from fleetgate.load.steady import rounds
from fleetgate.load.suspects import Suspects
from fleetgate.load.transitions import Transitions
from fleetgate.load.watch.turn import Turns
from fleetgate.load.watch.watcher import Watcher
from fleetgate.load.webhooks import Webhooks, endpoints
from fleetgate.sdnotify import ServiceManager
from fleetgate.spool.home import take_lock
from fleetgate.spool.identity import read_identity

WAIT_SECONDS = 0.5
TOKEN_BYTES = 24


def serve(config: Config, clock: Clock, entropy: Entropy = os.urandom) -> None:
    """Loads until SIGTERM or SIGINT. Raises ConfigError, SpoolError, ClickHouseAway."""
    stop, manager = threading.Event(), ServiceManager()
    end_when_asked(stop, manager)
    registry = CollectorRegistry()
    counts = Counts(registry)
    registry.register(LagCollector(config.path(config.spool.directory), clock))
    state = _Opening()

    def waiting(why: str) -> None:
        manager.ready()
        manager.working(why)

    with ExitStack() as opened:
        opened.enter_context(AdminServer("load.admin_listen", config.load.admin_listen, registry, state.unready))
        records = opened.enter_context(Records(config, clock))
        spool = config.spool
        settings = Settings(config.path(spool.directory), spool.segment_seconds)
        if not opened.enter_context(_alone(settings.spool, stop, waiting)):
            return
        signer = SignerClient(config.path(config.signer.socket), config.path(config.signer.audit_public_key))
        audit_heads = AuditHeads(lambda on_behind: records.sign_audit(signer, on_behind), counts)
        opened.enter_context(rounds("audit", audit_heads.round))
        transitions = Transitions(settings.spool, records.apply, records.note_alert, counts, stop)

        def waiting_for_clickhouse(why: str) -> None:
            waiting(why)
            transitions.hand_on_waiting()

        clickhouse = opened.enter_context(_clickhouse(config, entropy, stop, waiting_for_clickhouse))
        if clickhouse is None:
            return
        progress = Progress(records.begin, records.note)
        opened.enter_context(rounds("progress", progress.round, TELL_SECONDS))
        inserts = Inserts(clickhouse, counts, settings.spool)
        webhooks = Webhooks(endpoints(config, records.opened, counts, clock, entropy))
        alerts = Alerts(clickhouse, counts, clock, [webhooks.deliver])
        opened.enter_context(webhooks.telling(alerts.since))
        opened.enter_context(rounds("closings", Closings(alerts, records.closings_since, clock).round))
        heads = Heads(settings.spool, signer, clickhouse, inserts.chain, counts)
        opened.enter_context(rounds("heads", heads.round))
        releases = Releases(clickhouse, records.releases_since, records.releases_of, counts, clock)
        suspects = Suspects(records.suspect, records.decided_since, config.policy.signals)
        handover = Handover(transitions, alerts, suspects, progress, releases)
        patience = Patience(config.load.retry_seconds, transitions.hand_on_waiting, counts, entropy, stop, manager)
        loader = Loader(settings, inserts, catalogue(), handover, patience, counts, clock, stop)
        state.loader = loader
        # Over HTTP, also from the embedded one: a look and an insert do not wait for each other.
        reading = reader(config)
        opened.callback(reading.close)
        turns = Turns(partial(_spool_of, settings.spool), loader.loaded_until_ms, records.take_part)
        opened.enter_context(Watcher(reading, clickhouse, alerts, catalogue(), counts, clock, turns))
        log.get("load").info("loading", spool=str(settings.spool), clickhouse=config.clickhouse.url)
        manager.ready()
        loader.run()


@contextmanager
def _alone(spool: Path, stop: threading.Event, meanwhile: Callable[[str], None]) -> Iterator[bool]:
    """Waits until no other load has this spool; False when `stop` came first. Two would double no row, but each would
    link its rows of `segments` behind the last that it wrote itself. Raises SpoolError for a disk that fails."""
    locks: list[int] = []
    try:
        spool.mkdir(mode=0o750, parents=True, exist_ok=True)
        alone = _patiently(stop, lambda: locks.append(take_lock(spool / "load.lock", "load")), meanwhile)
    except OSError as error:
        raise SpoolError(f"cannot lock {spool}: {error.strerror}") from None
    try:
        yield alone
    finally:
        for lock in locks:
            os.close(lock)


def _spool_of(spool: Path) -> str | None:
    """Its identity in hex. Raises SpoolError."""
    identity = read_identity(spool)
    return None if identity is None else identity.spool


class _Opening:
    """Readiness before there is a loader, and then the loader's own."""

    def __init__(self) -> None:
        self.loader: Loader | None = None

    def unready(self) -> str:
        return (
            "ClickHouse is not open yet, or another load has the spool"
            if self.loader is None
            else self.loader.unready()
        )


@contextmanager
def _clickhouse(
    config: Config, entropy: Entropy, stop: threading.Event, meanwhile: Callable[[str], None]
) -> Iterator[ClickHouse | None]:
    """ClickHouse with all its tables; None when `stop` came first. `meanwhile` is called while it is waited for, with
    the reason."""
    directory = embedded_directory(config)
    if directory is None:
        server = reader(config)
        yield server if _patiently(stop, lambda: require(server), meanwhile) else None
        server.close()
        return
    # chdb and what serves it: a load with a server does without.
    from fleetgate.load.embedded import EmbeddedClickHouse
    from fleetgate.load.owner import Owner

    token = _own_token(config, entropy)
    engines: list[EmbeddedClickHouse] = []

    def open_engine() -> None:
        engines.append(EmbeddedClickHouse(directory, config.clickhouse.database))

    if not _patiently(stop, open_engine, meanwhile):
        yield None
        return
    [engine] = engines
    with ExitStack() as opened:
        opened.callback(engine.close)  # chdb crashes an interpreter that ends with an open handle
        migrate(engine, catalogue(), config.load.raw_days)
        opened.callback(Owner(engine, config.clickhouse.listen, token).close)
        yield engine


def _patiently(stop: threading.Event, attempt: Callable[[], object], meanwhile: Callable[[str], None]) -> bool:
    """Tries until ClickHouse or the spool is to be had; False when `stop` comes first. `meanwhile` gets the reason."""
    said = ""
    while not stop.is_set():
        try:
            attempt()
        except (ClickHouseAway, SpoolError) as error:
            if str(error) != said:
                said = str(error)
                log.get("load").warning("waiting", error=said)
            meanwhile(said)
            stop.wait(WAIT_SECONDS)
        else:
            return True
    return False


def _own_token(config: Config, entropy: Entropy) -> str:
    """The token of the embedded ClickHouse, made at first start."""
    path = config.path(config.clickhouse.token_file)
    if not path.exists():
        write_secret(path, entropy(TOKEN_BYTES).hex().encode() + b"\n")
    return access_token(config)
