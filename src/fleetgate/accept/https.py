"""Serves the vehicles' HTTPS with Hypercorn, which by itself would not tell the application the client certificate.

Decides how a connection's certificate reaches the request: in a copy of the connection state, made for each
connection (the one Hypercorn hands out is shared by all of them).
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from fleetgate import log
from fleetgate.accept.counts import Counts
from fleetgate.accept.http import Link
from fleetgate.control.profile import CertificateIdentity, ProfileError, identity_of

_log = log.get("accept.https")


def hypercorn_config(handshake_seconds: int) -> HypercornConfig:
    """Hypercorn's defaults that do not fit a vehicle listener, changed, each for its reason."""
    config = HypercornConfig()
    config.keep_alive_max_requests = 10**9  # the default of 1,000 forces new handshakes
    config.keep_alive_timeout = 120
    config.read_timeout = 60  # the default of none lets a silent peer hold its connection for ever
    config.ssl_handshake_timeout = handshake_seconds
    config.graceful_timeout = 3
    config.h11_max_incomplete_size = 16 * 1024
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None
    config.alpn_protocols = ["http/1.1"]
    return config


class HttpsServer:
    """Serves `app` on `listener`; at most `max_connections` at once, more wait in the backlog."""

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        listener: trio.SocketListener,
        context: ssl.SSLContext,
        trust_domain: str,
        handshake_seconds: int,
        max_connections: int,
        counts: Counts,
    ) -> None:
        self._config = hypercorn_config(handshake_seconds)
        self._app = wrap_app(app, self._config.wsgi_max_body_size, "asgi")
        self._listener = listener
        self._context = context
        self._trust_domain = trust_domain
        self._limit = trio.CapacityLimiter(max_connections)
        self._counts = counts
        self._worker = WorkerContext(None)

    async def run(self) -> None:
        """Serves until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._limit.acquire_on_behalf_of(token := object())
                try:
                    stream = await self._listener.accept()
                except (OSError, trio.ClosedResourceError) as error:
                    self._limit.release_on_behalf_of(token)
                    if isinstance(error, trio.ClosedResourceError):
                        return
                    await trio.sleep(0.1)  # out of descriptors: those that are open go on
                    continue
                nursery.start_soon(self._serve, stream, token)

    async def _serve(self, stream: trio.SocketStream, token: object) -> None:
        self._counts.connections["https"] += 1
        tls = trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)
        try:
            server = _IdentifiedServer(
                self._app, self._config, self._worker, ConnectionState({}), tls, self._trust_domain, self._counts
            )
            await server.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass  # the peer went away; Hypercorn has let go of the request
        except Exception as error:  # one connection's failure is not the others'
            _log.error("connection_failed", error=type(error).__name__)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await trio.aclose_forcefully(tls)
            self._counts.connections["https"] -= 1
            self._limit.release_on_behalf_of(token)

    async def drain(self) -> None:
        """Takes no new connections; idle ones end, requests in flight are answered."""
        await self._listener.aclose()
        await self._worker.terminated.set()


class _IdentifiedServer(TCPServer):
    """A Hypercorn connection whose requests carry a Link in `scope["state"]`."""

    def __init__(
        self,
        app: Any,
        config: HypercornConfig,
        context: WorkerContext,
        state: ConnectionState,
        stream: trio.SSLStream[trio.SocketStream],
        trust_domain: str,
        counts: Counts,
    ) -> None:
        super().__init__(app, config, context, state, stream)
        self._trust_domain = trust_domain
        self._counts = counts

    async def run(self) -> None:
        try:
            with trio.fail_after(self.config.ssl_handshake_timeout):
                await self.stream.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            self._counts.failed_handshakes += 1
            _log.debug("handshake_failed", error=str(error.__cause__ or error))
            return
        certificate = self.stream.getpeercert(binary_form=True)
        if certificate is None or self.stream.session_reused:
            self._counts.failed_handshakes += 1
            return
        identity: CertificateIdentity | None = None
        profile_error = ""
        try:
            identity = identity_of(certificate, self._trust_domain)
        except ProfileError as error:
            profile_error = str(error)
        host, port = self.stream.transport_stream.socket.getpeername()[:2]
        self.state = ConnectionState({**self.state, "link": Link(identity, profile_error, f"{host}:{port}")})
        await super().run()
