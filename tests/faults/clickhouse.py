"""The ClickHouse that is broken: a stand-in server of the suite's own, or a real one where CLICKHOUSE_URL names it.

Each fault has a database of its own in it, and reaches it through a proxy of its own. Decides how the server is
started, found and asked; what goes wrong is the proxy's and the faults' business.
"""

from __future__ import annotations

import os
import secrets
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from fleetgate.catalogue import catalogue
from fleetgate.demo.prepare import free_ports
from fleetgate.load.clickhouse import ServerClickHouse
from fleetgate.load.migrations import migrate
from tests.faults.processes import ROOT, Process, restart

RAW_DAYS = 7


class Server:
    """`process` is None for a server that is not ours to kill."""

    def __init__(self, directory: Path) -> None:
        self.process: Process | None = None
        self._clients: dict[str, ServerClickHouse] = {}
        url = os.environ.get("CLICKHOUSE_URL")
        if url is not None:
            self.url, self.password = url, os.environ.get("CLICKHOUSE_PASSWORD", "")
            return
        self.password = secrets.token_hex(16)
        (directory / "password").write_text(self.password)
        listen = f"127.0.0.1:{free_ports(1)[0]}"
        self.url = f"http://{listen}"
        arguments = ["tests.faults.server", str(directory), listen]
        self.process = Process(arguments, ROOT, directory / "server.log", self._answers)
        restart(self.process)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ping", timeout=1) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.scheme == "http", "the proxy speaks plain HTTP: give CLICKHOUSE_URL so"
        assert parts.hostname is not None
        return parts.hostname, parts.port or 8123

    def client(self, database: str) -> ServerClickHouse:
        """A client past the proxy, with all rights."""
        if database not in self._clients:
            self._clients[database] = ServerClickHouse(self.url, database, "default", self.password)
        return self._clients[database]

    def create(self, database: str) -> ServerClickHouse:
        """A database with all tables, as `fleetgate db migrate` makes them."""
        client = self.client(database)
        migrate(client, catalogue(), RAW_DAYS)
        return client

    def drop(self, database: str) -> None:
        client = self._clients.pop(database, None)
        if client is None:
            return  # the trial ended before it was made
        client.command(f"DROP DATABASE IF EXISTS {database}")
        client.close()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        if self.process is not None:
            self.process.close()
