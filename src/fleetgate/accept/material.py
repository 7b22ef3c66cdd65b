"""The files that an edge identifies itself and others with, and how they are replaced while it runs.

Server certificate and key, trust bundle and keyring are looked at once a second, by their place and times on the disk.
What has changed, and then stood still for a second, is loaded whole, as at a start, and takes effect from the next
handshake and the next message on. (The first half of a bundle can be a good bundle of fewer CAs: who writes into the
file instead of replacing it is given the time to finish.)
Whatever is wrong with it, the former one goes on: an edge that ended for half a file would stop the fleet, one that
went on without a check would let it down. It says so in its log and in `fleetgate_files_refused`, and looks again.

Decides what may follow upon what. Who has to connect again is said here (a CA has left the bundle), done by the
listeners.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import NamedTuple

import trio

from fleetgate import log
from fleetgate.accept.tls import ProxyTls, server_context, trust_bundle
from fleetgate.config import Config
from fleetgate.control.chain import Paths
from fleetgate.control.keyring import Keyring
from fleetgate.errors import ConfigError

LOOK_SECONDS = 1.0

_log = log.get("accept.material")


class Material(NamedTuple):
    """TLS of the two listeners, paths to the same trust bundle, and the MAC root keys. `proxies` is the TLS of HTTPS
    for proxies that end that of the vehicles."""

    mqtt: ssl.SSLContext
    https: ssl.SSLContext
    proxies: ProxyTls
    paths: Paths
    keyring: Keyring

    @classmethod
    def load(cls, config: Config) -> Material:
        """Raises ConfigError naming the file."""
        keyring = Keyring.load(config.path(config.edge.keyring))
        bundle = trust_bundle(config)
        mqtt, https = (server_context(config, bundle, [name]) for name in ("mqtt", "http/1.1"))
        return cls(mqtt, https, ProxyTls.load(config), Paths(bundle), keyring)

    def trusted(self) -> set[bytes]:
        """The CA certificates, DER."""
        return set(self.mqtt.get_ca_certs(binary_form=True))


class Replacement:
    """Watches the files. `on_replaced` gets the new material, and whether a CA is no longer trusted: then whoever is
    connected must show a certificate again. `refused` is why the files on the disk are not in force, or empty."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._seen = self._last_look = self._look()  # before they are read: what changes from now on is noticed
        self.now = Material.load(config)
        self.refused = ""
        self.replaced = 0
        self.on_replaced: Callable[[Material, bool], None] = lambda material, distrusts: None

    async def run(self) -> None:
        while True:
            await trio.sleep(LOOK_SECONDS)
            later = await trio.to_thread.run_sync(self._changed)  # a file system may be slow
            if later is not None:
                distrusts = not self.now.trusted() <= later.trusted()
                self.now = later
                self.replaced += 1
                _log.info("files_replaced", kids=sorted(later.keyring.roots), all_connect_again=distrusts)
                self.on_replaced(later, distrusts)

    def _changed(self) -> Material | None:
        """What stands in the files, if they are others than those in force, and may follow upon them."""
        before, self._last_look = self._last_look, self._look()
        seen = self._last_look
        if seen != before or (seen == self._seen and not self.refused):
            return None
        try:
            later = Material.load(self._config)
            self.now.keyring.check_successor(later.keyring)
        except ConfigError as error:
            if str(error) != self.refused:
                self.refused = str(error)
                _log.error("files_refused", error=self.refused, means="the edge goes on with those it has")
            return None
        self._seen, self.refused = seen, ""
        return later

    def _look(self) -> list[tuple[int, ...]]:
        """What tells a file from the one that stood there before; nothing of one that is absent."""
        edge, proxies = self._config.edge, self._config.proxy.client_cert_proxy_trust
        files: list[tuple[int, ...]] = []
        for setting in (edge.certificate, edge.private_key, edge.trust_bundle, edge.keyring, proxies):
            try:
                status = self._config.path(setting).stat()
                files.append((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
            except OSError:
                files.append(())
        return files
