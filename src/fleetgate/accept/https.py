"""Serves the vehicles' HTTPS with Hypercorn, which by itself would not tell the application the client certificate.

Decides how a connection's certificate reaches the request: in a connection state made for that connection alone (the
one that Hypercorn's own server hands out is shared by all of them, and would give one vehicle another's identity). The
connection of a proxy that ends TLS has no vehicle's: it is told as a `Hop`, and each request must bring its own. And
when a connection ends whose device may not send any more: at once where it is idle, with its answer where it waits for
one.
"""

from __future__ import annotations

import ssl
from email.utils import formatdate

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from fleetgate import log
from fleetgate.accept.counts import Counts
from fleetgate.accept.handshakes import Handshakes
from fleetgate.accept.http import VehicleApp
from fleetgate.accept.limits import Limits, Quantity
from fleetgate.accept.link import Hop, Link
from fleetgate.accept.proxies import Proxies
from fleetgate.accept.proxyprotocol import HeaderError, parse
from fleetgate.accept.strangers import stranger_log
from fleetgate.accept.tls import ProxyTls, verified_chain
from fleetgate.accept.vetting import Vetting
from fleetgate.clock import Clock
from fleetgate.config import Edge as EdgeSettings
from fleetgate.control.profile import ProfileError

MAX_CONNECTIONS_OF_A_CREDENTIAL = 8
"""A device has one batch in flight; the rest is room for connections that it has lost and we have not noticed yet."""

LOOK_SECONDS = 0.25  # half a microsecond for each connection
LAST_ANSWER_SECONDS = 1.0
"""For the answer of a request that was on its way when its device was refused. With the poll of control and one look it
stays within the 2 s that a revocation may take."""

SEND_SECONDS = 5.0  # the kernel takes an answer at once, unless many wait that the client did not read

_log = log.get("accept.https")


class _TooManyError(Exception):
    """A limit of handshakes is used up."""


class _Dated(HypercornConfig):
    """`Date` by the gate's clock: devices that speak HTTPS set theirs by it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.include_date_header = False
        self._clock = clock

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        date = formatdate(self._clock.now_ms() / 1000, usegmt=True)
        return [(b"date", date.encode("ascii")), *super().response_headers(protocol)]


def hypercorn_config(handshake_seconds: int, clock: Clock) -> HypercornConfig:
    """Hypercorn's defaults that do not fit a vehicle listener, changed, each for its reason."""
    config = _Dated(clock)
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
    """Serves `app` on `listener`.

    At most `settings.max_handshakes` connections are between accept and the end of the handshake (beyond it the oldest
    is closed, so that silent ones cannot keep vehicles out) and `settings.max_http_connections` behind it. `context` is
    for vehicles, `proxy_tls` for peers that end their TLS: no certificate is good for both.
    """

    def __init__(
        self,
        app: VehicleApp,
        listener: trio.SocketListener,
        context: ssl.SSLContext,
        proxy_tls: ProxyTls,
        proxies: Proxies,
        vetting: Vetting,
        settings: EdgeSettings,
        limits: Limits,
        handshakes: Handshakes,
        counts: Counts,
        clock: Clock,
    ) -> None:
        self._config = hypercorn_config(settings.handshake_seconds, clock)
        self._app = wrap_app(app, self._config.wsgi_max_body_size, "asgi")
        self._kept_out = app.kept_out
        self._listener = listener
        self._context = context
        self._proxy_tls = proxy_tls
        self._proxies = proxies
        self._vetting = vetting
        self._settings = settings
        self._limits = limits
        self._handshakes = handshakes
        self._counts = counts
        self._clock = clock
        self._worker = WorkerContext(None)
        self._handshaking: dict[trio.CancelScope, bool] = {}  # whether it is with a proxy that ends TLS
        self._conversing: dict[trio.CancelScope, Link | Hop] = {}
        self._of_credential: dict[str, int] = {}
        self._stranger_log = stranger_log(_log, clock)

    async def run(self) -> None:
        """Serves until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look)
            while True:
                try:
                    stream = await self._listener.accept()
                except trio.ClosedResourceError:
                    return  # draining
                except OSError as error:  # out of descriptors: those that are open go on
                    _log.error("accept_failed", error=error.strerror)
                    await trio.sleep(0.1)
                    continue
                if not self._limits.admit_to_gate(Quantity.CONNECTIONS, self._clock.monotonic()):
                    await trio.aclose_forcefully(stream)
                    continue
                if len(self._handshaking) >= self._settings.max_handshakes:
                    next(iter(self._handshaking)).cancel()
                nursery.start_soon(self._serve, stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            host, port = stream.socket.getpeername()[:2]
            ends_tls = self._proxies.ends_tls(host)
            context = self._proxy_tls.context if ends_tls else self._context
            assert context is not None, "where such a proxy is listed, something vouches for it"
            tls = trio.SSLStream(_Impatient(stream), context, server_side=True, https_compatible=True)
            address = await self._handshake(stream, tls, host, port)
            link = self._link(tls, address, ends_tls=ends_tls) if address else None
            if link is None:
                self._counts.failed_handshakes += 1
            elif not self._admits_handshake(link):
                raise _TooManyError
            elif self._counts.connections["https"] < self._settings.max_http_connections and self._takes_one_more(link):
                await self._converse(tls, link)
        except _TooManyError:
            pass  # without a word: it is to cost as little as it can
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass  # the peer went away; Hypercorn has let go of the request
        except Exception as error:  # one connection's failure is not the others'
            self._stranger_log.warning("connection_failed", error=type(error).__name__)
        finally:
            await trio.aclose_forcefully(stream)

    async def _handshake(self, stream: trio.SocketStream, tls: trio.SSLStream[_Impatient], host: str, port: int) -> str:
        """The client's address, as a listed proxy's header names it; empty when the connection ends here."""
        address = f"{host}:{port}"
        with trio.move_on_after(self._settings.handshake_seconds) as scope:
            self._handshaking[scope] = self._proxies.ends_tls(host)
            try:
                if self._proxies.sends_header(host):
                    address = await _named_address(stream) or address
                await trio.lowlevel.wait_readable(stream.socket)
                if not self._limits.admit_to_gate(Quantity.HANDSHAKES, self._clock.monotonic()):
                    raise _TooManyError
                await tls.do_handshake()
                return "" if tls.session_reused else address
            except (trio.BrokenResourceError, trio.ClosedResourceError, HeaderError) as error:
                self._stranger_log.warning("handshake_failed", address=address, error=str(error.__cause__ or error))
            finally:
                del self._handshaking[scope]
        return ""

    def _link(self, tls: trio.SSLStream[_Impatient], address: str, *, ends_tls: bool) -> Link | Hop | None:
        """What the verified certificate stands for; None when it may not stand for anybody here."""
        chain = verified_chain(tls._ssl_object)
        if not chain:
            return None
        try:
            if ends_tls:
                return Hop(address, self._proxies.expiry_ms(chain[0]))
            return Link(self._vetting.identity(chain[0], chain), "", address)
        except ProfileError as error:
            self._stranger_log.warning("certificate_profile", address=address, error=str(error))
            return None if ends_tls else Link(None, str(error), address)

    def _admits_handshake(self, link: Link | Hop) -> bool:
        """A proxy's is its own: it says nothing of vehicles."""
        identity = link.identity if isinstance(link, Link) else None
        return identity is None or self._handshakes.admits(identity)

    def _takes_one_more(self, link: Link | Hop) -> bool:
        """Whether this credential has fewer connections than it may: one alone must not take everybody's places. The
        connections of a proxy that ends TLS are those of all its vehicles."""
        return isinstance(link, Hop) or self._of_credential.get(link.who, 0) < MAX_CONNECTIONS_OF_A_CREDENTIAL

    async def _converse(self, tls: trio.SSLStream[_Impatient], link: Link | Hop) -> None:
        """Hands the connection to Hypercorn; its requests carry `link` in `scope["state"]`, a dict of their own."""
        self._counts.connections["https"] += 1
        self._of_credential[link.who] = self._of_credential.get(link.who, 0) + 1
        scope = trio.CancelScope()
        if isinstance(link, Hop):  # for as long as the proxy's own certificate is good
            scope.deadline = trio.current_time() + (link.until_ms - self._clock.now_ms()) / 1000
        self._conversing[scope] = link
        try:
            # The type asks for trio's own socket stream; of what lies below TLS only the attribute `socket` is used.
            server = _Server(self._app, self._config, self._worker, ConnectionState({"link": link}), tls)  # type: ignore[arg-type]
            with scope:
                await server.run()
        finally:
            del self._conversing[scope]
            if isinstance(link, Link) and link.ending and (decided_ms := self._kept_out(link)):
                self._counts.took_effect(self._clock.now_ms() - decided_ms)
            self._counts.connections["https"] -= 1
            self._of_credential[link.who] -= 1
            if not self._of_credential[link.who]:
                del self._of_credential[link.who]

    async def _look(self) -> None:
        """Ends the connections of devices that may not send any more, and those whose certificate has expired."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            for scope, link in self._conversing.items():
                if isinstance(link, Hop) or link.caller is None:
                    continue  # nobody's; or of one who is told with its first answer, which is the last one too
                if not link.ending and self._kept_out(link) is not None:
                    link.ending = True
                    scope.deadline = trio.current_time() + (LAST_ANSWER_SECONDS if link.requests else 0)

    def replace_tls(self, context: ssl.SSLContext, proxy_tls: ProxyTls, *, distrusts: bool) -> None:
        """For handshakes from now on. `distrusts`: a CA is trusted no more, so everybody is verified again; who waits
        for an answer sends the same bytes on the next connection. So are the proxies, when what vouched for one is
        trusted no more."""
        distrusts_proxies = not self._proxy_tls.trusted <= proxy_tls.trusted
        self._context, self._proxy_tls = context, proxy_tls
        for scope, with_proxy in self._handshaking.items():
            if distrusts_proxies if with_proxy else distrusts:
                scope.cancel()
        for scope, link in self._conversing.items():
            if distrusts_proxies if isinstance(link, Hop) else distrusts:
                scope.cancel()

    async def drain(self) -> None:
        """Takes no new connections; idle ones end, requests in flight are answered."""
        await self._listener.aclose()
        await self._worker.terminated.set()


async def _named_address(stream: trio.SocketStream) -> str:
    """What the PROXY header ahead of TLS names; empty where it names nobody. Raises HeaderError."""
    header = bytearray()
    while isinstance(found := parse(header), int):
        data = await stream.receive_some(found)
        if not data:
            raise HeaderError("the proxy closed")
        header += data
    return found.address


class _Server(TCPServer):
    """Hypercorn's connection, which ends when its peer has gone: by itself it would wait for its keep-alive timeout. It
    speaks HTTP/1.1 only."""

    async def _read_data(self) -> None:
        self.protocol.protocol._check_protocol = _stay_with_http_1  # type: ignore[union-attr, method-assign]
        await super()._read_data()
        await self.idle_task.stop()


async def _stay_with_http_1(_request: object) -> None:
    """In the place of what would go over to HTTP/2 with whoever sends its preface, or `Upgrade: h2c`, whatever ALPN
    said: a hundred requests at once would hold their bodies in memory. So the upgrade is not heard, and the preface is
    a request like others, for which there is no route."""


class _Impatient(trio.abc.Stream):
    """A socket whose sends have a deadline. Hypercorn sends out of reach of any cancellation, so a client that reads no
    answers would hold its connection, and an edge that is going down, for ever."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.socket = stream.socket  # where Hypercorn looks for addresses

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(SEND_SECONDS):
            return await self._stream.send_all(data)
        await trio.aclose_forcefully(self._stream)
        raise trio.BrokenResourceError("the client reads no answers")

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()
