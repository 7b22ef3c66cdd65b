"""The files that an edge identifies itself and others with, and how they are replaced while it runs.

Server certificate and key, trust bundle, keyring, the CA files of `[issuers]` and the configuration file are looked at
once a second, by their place and times on the disk. What has changed, and then stood still for a second, is loaded
whole, as at a start, and takes effect from the next handshake and the next message on. (The first half of a bundle can
be a good bundle of fewer CAs: who writes into the file instead of replacing it is given the time to finish.) Of the
configuration that is policy, limits, issuers and revocation lists; what else has changed in it needs a restart, and the
log says what.
Whatever is wrong with it, the former one goes on: an edge that ended for half a file would stop the fleet, one that
went on without a check would let it down. It says so in its log and in `fleetgate_files_refused`, and looks again.
A keyring fits whatever the other files are and may withdraw a root key that others have: it waits for none of them.

Decides what may follow upon what. Who has to connect again is said here (a CA has left the bundle), done by the
listeners. New revocation lists of the same sources come by `lists`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate import log
from fleetgate.accept.lists import Source
from fleetgate.accept.standing import check_scores
from fleetgate.accept.tls import ProxyTls, server_context, trust_bundle
from fleetgate.config import Config, settings
from fleetgate.configfile import load
from fleetgate.control.chain import Paths
from fleetgate.control.issuers import Issuers
from fleetgate.control.keyring import Keyring
from fleetgate.errors import ConfigError

LOOK_SECONDS = 1.0

_Files = dict[Path, tuple[int, ...]]

_log = log.get("accept.material")


class Material(NamedTuple):
    """TLS of the two listeners and the trust bundle behind it, TLS of HTTPS for proxies that end the vehicles', who
    speaks for whom, the MAC root keys; and the configuration that named the files."""

    config: Config
    mqtt: ssl.SSLContext
    https: ssl.SSLContext
    proxies: ProxyTls
    bundle: list[x509.Certificate]
    paths: Paths
    issuers: Issuers
    keyring: Keyring

    @classmethod
    def load(cls, config: Config) -> Material:
        """Raises ConfigError naming the file."""
        check_scores(config.policy)
        keyring = Keyring.load(config.path(config.edge.keyring))
        bundle = trust_bundle(config)
        mqtt, https = (server_context(config, bundle, [name]) for name in ("mqtt", "http/1.1"))
        proxies = ProxyTls.load(config)
        return cls(config, mqtt, https, proxies, bundle, Paths(bundle), Issuers.load(config, bundle), keyring)

    def trusted(self) -> set[bytes]:
        """The CA certificates, DER."""
        return {ca.public_bytes(Encoding.DER) for ca in self.bundle}


class Replacement:
    """Watches the files. `on_replaced` gets the new material, and whether a CA is no longer trusted: then whoever is
    connected must show a certificate again. `refused` is why the files on the disk are not in force, or empty.

    `file` is that of the configuration; without one there is none to watch. `prepare_lists` is asked for the sources of
    revocation lists that another configuration names; it may refuse them with ConfigError.
    """

    def __init__(self, config: Config, file: Path | None) -> None:
        self._file = file
        self._restart_needed: tuple[str, ...] = ()
        self._seen = self._last_look = self._look(config)  # before they are read: what changes from now on is noticed
        self.now = Material.load(config)
        self.refused = ""
        self.replaced = 0
        self.on_replaced: Callable[[Material, bool, list[Source]], None] = lambda material, distrusts, sources: None
        self.prepare_lists: Callable[[Config, list[x509.Certificate]], list[Source]] = lambda config, bundle: []

    async def run(self) -> None:
        while True:
            await trio.sleep(LOOK_SECONDS)
            later = await trio.to_thread.run_sync(self._changed)  # a file system may be slow
            if later is not None:
                material, sources = later
                distrusts = not self.now.trusted() <= material.trusted()
                before, after = (msgspec.structs.asdict(each.config) for each in (self.now, material))
                self.now = material
                self.replaced += 1
                _log.info(
                    "files_replaced",
                    kids=sorted(material.keyring.roots),
                    policy=material.config.policy.version,
                    all_connect_again=distrusts,
                    sections=[name for name in after if after[name] != before[name]],
                )
                self.on_replaced(material, distrusts, sources)

    def _changed(self) -> tuple[Material, list[Source]] | None:
        """What stands in the files, if they are others than those in force, and may follow upon them."""
        before, self._last_look = self._last_look, self._look(self.now.config)
        seen = self._last_look
        keyring = self._later_keyring(before, seen)
        if keyring is not None:
            return self.now._replace(keyring=keyring), self.prepare_lists(self.now.config, self.now.bundle)
        if seen != before:
            return None
        if seen == self._seen:  # all are in force: what was refused is gone, or was a keyring, which is taken by itself
            self.refused = ""
            return None
        try:
            config = self._configured()
            looked = self._look(config)
            later = Material.load(config)
            self.now.keyring.check_successor(later.keyring)
            sources = self.prepare_lists(config, later.bundle)
        except ConfigError as error:
            if str(error) != self.refused:
                self.refused = str(error)
                _log.error("files_refused", error=self.refused, means="the edge goes on with those it has")
            return None
        # Another configuration may name other files; of those that were there, the look that began this counts.
        self._seen = self._last_look = {path: seen.get(path, found) for path, found in looked.items()}
        self.refused = ""
        return later, sources

    def _later_keyring(self, before: _Files, seen: _Files) -> Keyring | None:
        """Another one, which may follow upon that in force. Why one may not is said when all files are looked at."""
        path = self.now.config.path(self.now.config.edge.keyring)
        if seen[path] != before[path] or seen[path] == self._seen[path]:
            return None
        try:
            later = Keyring.load(path)
            self.now.keyring.check_successor(later)
        except ConfigError:
            return None
        self._seen = {**self._seen, path: seen[path]}
        return later if later != self.now.keyring else None

    def _configured(self) -> Config:
        """The configuration in force with what may be replaced in it as it stands in the file. Raises ConfigError."""
        now = self.now.config
        if self._file is None:
            return now
        found = load(self._file)
        edge = msgspec.structs.replace(now.edge, crl_grace_seconds=found.edge.crl_grace_seconds)
        taken = msgspec.structs.replace(
            now, policy=found.policy, limits=found.limits, issuers=found.issuers, crls=found.crls, edge=edge
        )
        in_force = {name: value for name, value, _ in settings(taken)}
        others = tuple(name for name, value, _ in settings(found) if value != in_force[name])
        if others != self._restart_needed:
            self._restart_needed = others
            if others:
                _log.warning("restart_needed", settings=list(others), means="the file says otherwise than what runs")
        return taken

    def _look(self, config: Config) -> _Files:
        """What tells each file from the one that stood there before; nothing of one that is absent."""
        edge, proxies = config.edge, config.proxy.client_cert_proxy_trust
        names = (edge.certificate, edge.private_key, edge.trust_bundle, edge.keyring, proxies)
        paths = [config.path(name) for name in names]
        paths += Issuers.files(config) + ([self._file] if self._file is not None else [])
        files: _Files = {}
        for path in paths:
            try:
                status = path.stat()
                files[path] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            except OSError:
                files[path] = ()
        return files
