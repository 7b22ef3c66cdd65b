"""A signer with its files, in this process, and its service on a socket."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

from tests.unit.control.conftest import SetClock

from fleetgate.clock import SystemClock
from fleetgate.control.auditkey import make_audit_key, read_audit_key
from fleetgate.control.heads import Head, SignedHead
from fleetgate.control.localsocket import short_name
from fleetgate.control.signer import Service, Signer
from fleetgate.control.signing import AskSign, SignerClient
from fleetgate.control.signlog import SignLog, count_of


class Desk:
    """A signer with its files; `again` is a new process on them."""

    def __init__(self, directory: Path, log: Path | None = None) -> None:
        self.key, self.public = (directory / name for name in ("audit.key", "audit.pem"))
        self.log = directory / "signer.log" if log is None else log
        self.count = count_of(self.key)
        make_audit_key(self.key, self.public, self.log)
        self.clock = SetClock()
        self.signlog = SignLog(self.log, self.count)
        self.signer = Signer(read_audit_key(self.key, self.public), self.signlog, self.clock)

    def again(self) -> None:
        self.signlog.close()
        self.signlog = SignLog(self.log, self.count)
        self.signer = Signer(read_audit_key(self.key, self.public), self.signlog, self.clock)

    def sign(self, what: Head, steps: list[str]) -> SignedHead:
        signed = self.signer.answer(AskSign(what, steps)).signed
        assert signed is not None
        return signed


class Running:
    """The service on a socket, in a thread."""

    def __init__(self, desk: Desk, directory: Path) -> None:
        self.path = directory / "signer.sock"
        self.client = SignerClient(self.path, desk.public)
        self.others_work = True
        self.service = Service(self.path, desk.signer, SystemClock())
        self._thread = threading.Thread(target=self.service.run, args=(lambda: self.others_work,))
        self._thread.start()

    def stop(self) -> None:
        self.service.stop()
        self._thread.join()
        self.service.close()

    def send(self, data: bytes, *, end: bool = False) -> bytes:
        """What is answered to these bytes."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            with short_name(self.path) as name:
                client.connect(name)
            with suppress(BrokenPipeError):  # who is refused for what he is has his answer already
                client.sendall(data)
            if end:
                client.shutdown(socket.SHUT_WR)
            return client.recv(65_536)
