"""The admin listener of a process: /metrics, /livez, /readyz. Never on the vehicles' network.

Runs in a thread of its own, so that a busy process still answers. Ready means: can do its work; what that is, the
process says.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest
from prometheus_client.registry import CollectorRegistry

from fleetgate.config import host_and_port
from fleetgate.errors import ConfigError

REQUEST_SECONDS = 10


class _Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    return _Server6 if ":" in host else ThreadingHTTPServer


class AdminServer:
    """Serves while entered. `setting` names the address in errors; `unready` says why not ready, or nothing."""

    def __init__(self, setting: str, listen: str, registry: CollectorRegistry, unready: Callable[[], str]) -> None:
        host, port = host_and_port(setting, listen)
        # By the machine's time, whatever clock the gate was given. A process that is started again and again is there
        # at most scrapes: only this shows it.
        Gauge(
            "fleetgate_start_time_seconds", "When the process began to answer here, in Unix time.", registry=registry
        ).set(time.time())

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_SECONDS

            def do_GET(self) -> None:
                match self.path:
                    case "/metrics":
                        self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                    case "/livez":
                        self._answer(200, b'{"live":true}', "application/json")
                    case "/readyz":
                        why = unready()
                        body = json.dumps({"ready": not why, "why": why}).encode()
                        self._answer(503 if why else 200, body, "application/json")
                    case _:
                        self._answer(404, b'{"title":"try /metrics, /livez or /readyz"}', "application/problem+json")

            def _answer(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                with contextlib.suppress(OSError):  # who asked has hung up: no news for anybody
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in http.server
                """Scrapes are not logged."""

        try:
            self._server = _server_class(host)((host, port), Handler)
        except OSError as error:
            raise ConfigError(f"{setting}: cannot listen on {listen}: {error}") from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="admin", daemon=True)

    def __enter__(self) -> AdminServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
