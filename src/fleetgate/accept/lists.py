"""The revocation lists of an edge: fetched, kept on the spool's disk, put in force, and watched as they grow old.

A file is looked at once a second, a URL is fetched every `refresh_seconds` and before the list's nextUpdate. The last
good list of each source lies in the spool's directory, so that a start neither depends on somebody else's web server
nor takes an older list than was in force before. Whatever is wrong with a newer one, the former stays, and the log and
`fleetgate_crls_refused` say so. A source that never had a good list is an error of the start: nobody could say which
devices it is about. What a list must be is decided by `control.revocation`, how it is fetched by
`accept.fetching`, whom it ends by the listeners.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import trio
from cryptography import x509

from fleetgate import log
from fleetgate.accept.fetching import fetch
from fleetgate.clock import Clock
from fleetgate.config import Config, Crl
from fleetgate.control.profile import authority_of
from fleetgate.control.revocation import MAX_LIST_BYTES, ListError, RevocationList, RevocationLists, read_list
from fleetgate.durable import replace_durably
from fleetgate.errors import ConfigError

LOOK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 60.0  # after a fetch that failed
EARLY: Final = 0.9  # of a list's remaining life: then the next one is fetched

_NO_ISSUER: Final = "its issuer is not in the trust bundle any more: take the entry out"

_log = log.get("accept.lists")


class Source:
    """One entry of `[[crls]]`. `in_force` is its list; `refused` why what stands at the source now is not in force."""

    def __init__(self, entry: Crl, config: Config, copies: Path | None) -> None:
        """`copies` is where the last good list is kept; None: nowhere."""
        self.entry = entry
        self.name = entry.url or str(config.path(entry.file))
        self.in_force: RevocationList | None = None
        self.refused = ""
        self.busy = False
        self.due_s = 0.0
        self._seen: tuple[int, ...] = ()
        digest = hashlib.sha256(self.name.encode()).hexdigest()
        self._copy = copies / f"{digest[:32]}.crl" if copies is not None else None

    def begin(self, bundle: Sequence[x509.Certificate], now_ms: int) -> None:
        """Takes the copy, and what stands in the file or, without a copy, at the URL. Raises ConfigError."""
        if self._copy is not None:
            with contextlib.suppress(OSError, ListError):  # as if there were none
                self.in_force = self._read(self._copy.read_bytes(), bundle, now_ms)
        if self.entry.url and self.in_force is not None:
            return  # the first look fetches
        try:
            self.in_force = self.look(bundle, now_ms) or self.in_force
        except ListError as error:
            if self.in_force is None:
                raise ConfigError(f"crls: {self.name}: {error}") from None
            self.refused = str(error)
            _log.error("crl_refused", source=self.name, error=self.refused, means="the last good one is used")

    def look(self, bundle: Sequence[x509.Certificate], now_ms: int) -> RevocationList | None:
        """In a worker thread: the list that stands there now, kept; None where it is the one in force. Raises
        ListError."""
        content = fetch(self.entry.url) if self.entry.url else self._changed_file()
        if content is None:
            return None
        found = self._read(content, bundle, now_ms)
        if self.in_force is not None:
            if found.digest == self.in_force.digest:
                self.refused = ""
                return None
            self.in_force.check_successor(found)
        self._keep(content)
        return found

    def _read(self, content: bytes, bundle: Sequence[x509.Certificate], now_ms: int) -> RevocationList:
        return read_list(content, bundle, now_ms, only_cas=self.entry.only_cas)

    def look_again(self) -> None:
        """What was refused may be good under another bundle."""
        if self.refused:
            self._seen, self.due_s = (), 0.0

    def _changed_file(self) -> bytes | None:
        path = Path(self.name)
        try:
            status = path.stat()
            seen = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if seen == self._seen:
                return None
            with path.open("rb") as file:
                content = file.read(MAX_LIST_BYTES + 1)
        except OSError as error:
            self._seen = ()
            raise ListError(f"it cannot be read: {error.strerror}") from None
        self._seen = seen
        return content

    def _keep(self, content: bytes) -> None:
        if self._copy is None:
            return
        try:
            self._copy.parent.mkdir(exist_ok=True)
            replace_durably(self._copy, content)
        except OSError as error:
            _log.error("crl_not_kept", source=self.name, error=error.strerror, means="a start has to fetch it again")

    def wait_s(self, now_ms: int, *, failed: bool) -> float:
        """Until the next look."""
        if self.entry.file:
            return 0.0
        wait_s = min(RETRY_SECONDS, self.entry.refresh_seconds) if failed else self.entry.refresh_seconds
        if self.in_force is not None and (left_s := (self.in_force.next_update_ms - now_ms) / 1000) > 0:
            wait_s = min(wait_s, max(LOOK_SECONDS, left_s * EARLY))
        elif not failed:
            wait_s = min(wait_s, RETRY_SECONDS)
        return wait_s


class Lists:
    """All sources of an edge. `on_change` is called when what the lists say may be other than before; `ages` has the
    age of each list in force (as `RevocationLists.ages`) at the last look."""

    def __init__(self, config: Config, bundle: Sequence[x509.Certificate], copies: Path, clock: Clock) -> None:
        """Raises ConfigError naming the source."""
        self._copies = copies
        self._clock = clock
        self._sources: list[Source] = []
        self.ages: list[str] = []
        self.in_force = RevocationLists()
        self.on_change: Callable[[], None] = lambda: None
        self.replace(config, bundle, self.prepare(config, bundle))

    def prepare(self, config: Config, bundle: Sequence[x509.Certificate]) -> list[Source]:
        """The sources of another configuration: those that are there already, and new ones that have a good list. In a
        worker thread where there is a loop. Raises ConfigError."""
        present = {source.entry: source for source in self._sources}
        sources = []
        for entry in config.crls:
            source = present.get(entry)
            if source is None:
                source = Source(entry, config, self._copies)
                source.begin(bundle, self._clock.now_ms())
            sources.append(source)
        return sources

    def replace(self, config: Config, bundle: Sequence[x509.Certificate], sources: list[Source]) -> None:
        """Puts prepared sources in force, and what follows from another bundle."""
        self._sources = sources
        self._bundle = bundle
        for source in sources:
            source.look_again()
        self._grace_ms = config.edge.crl_grace_seconds * 1000
        self._put_in_force()

    def _put_in_force(self) -> None:
        """A list whose issuer has left the bundle says nothing any more: no chain under it is trusted."""
        trusted = {authority_of(ca) for ca in self._bundle}
        lists = []
        for source in self._sources:
            if source.in_force is not None and source.in_force.authority in trusted:
                lists.append(source.in_force)
                if source.refused == _NO_ISSUER:
                    source.refused = ""
            else:
                source.refused = _NO_ISSUER
                _log.warning("crl_without_issuer", source=source.name, error=source.refused)
        self.in_force = RevocationLists(lists, self._grace_ms)
        self.ages = self.in_force.ages(self._clock.now_ms())
        self.on_change()

    async def run(self) -> None:
        """Looks at the sources until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                now_s = self._clock.monotonic()
                for source in self._sources:
                    if not source.busy and now_s >= source.due_s:
                        source.busy = True
                        nursery.start_soon(self._look, source)
                self._note_ages()
                await trio.sleep(LOOK_SECONDS)

    async def _look(self, source: Source) -> None:
        failed = False
        bundle, now_ms = self._bundle, self._clock.now_ms()
        try:
            found = await trio.to_thread.run_sync(source.look, bundle, now_ms, abandon_on_cancel=True)
        except ListError as error:
            failed = True
            if str(error) != source.refused:
                source.refused = str(error)
                _log.error("crl_refused", source=source.name, error=source.refused, means="the former one stays")
        else:
            if found is not None:
                source.in_force, source.refused = found, ""
                _log.info("crl_in_force", source=source.name, issuer=found.issuer, revoked=len(found.serials))
                self._put_in_force()
        finally:
            source.busy = False
        source.due_s = self._clock.monotonic() + source.wait_s(now_ms, failed=failed)

    def _note_ages(self) -> None:
        ages = self.in_force.ages(self._clock.now_ms())
        if ages != self.ages:
            self.ages = ages
            for one, age in zip(self.in_force.lists, ages, strict=True):
                if age == "stale":
                    _log.error("crl_is_stale", issuer=one.issuer, means="rows carry stale_revocation")
                elif age == "expired":
                    _log.error("crl_grace_is_over", issuer=one.issuer, means="its devices are told to come back later")
            self.on_change()

    @property
    def refused(self) -> int:
        """How many sources have something that is not in force."""
        return sum(bool(source.refused) for source in self._sources)
