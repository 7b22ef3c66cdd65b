"""The signer process: signs heads of the spools' chains and of the audit with the audit key, which nobody else reads.

Decides what is signed. A head gets a signature when it is the newest signed one of its chain, or when the rows between
(`steps`) lead from that to it. Everything else is refused: `rollback` for a head behind it, `fork` for one beside it.
A new chain of the audit has to say which one it follows: the one that was signed last, which then has its end. So
whoever holds ClickHouse, and load, can add to a chain and never change what was signed. But whoever can ask can sign
for the next place what was never loaded: only the signer's own user may, and of its processes those that see the
socket's directory, which is not the edge's. One connection is served at a time, for one request, within a deadline.

The issuing key is this process's too: renewals have a socket, threads and limits of their own (`renewalservice`).
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleetgate import log
from fleetgate.bucket import Bucket
from fleetgate.clock import Clock
from fleetgate.config import Config
from fleetgate.control.auditkey import make_audit_key, read_audit_key
from fleetgate.control.heads import NO_LINK, AnyHead, Signed, SignedAuditHead, key_id, links
from fleetgate.control.localsocket import listen
from fleetgate.control.renewalservice import RenewalService
from fleetgate.control.signing import (
    MAX_REQUEST_BYTES,
    REQUEST_SECONDS,
    Answer,
    AskNewest,
    AskNewestAudit,
    AskSign,
    AskSignAudit,
    Refusal,
    Request,
)
from fleetgate.control.signlog import SignLog, count_of
from fleetgate.rates import Rate
from fleetgate.sdnotify import ServiceManager

REQUESTS_PER_SECOND = 5.0
BURST_REQUESTS = 50
"""A loader asks twice a minute for each of two chains; 50 requests of 500 rows make up for hours of absence at once."""

_PEER = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED of unix(7)
_LOOK_SECONDS = 0.2  # how soon a SIGTERM is noticed while nobody asks


class Refused(Exception):
    def __init__(self, reason: Refusal, why: str) -> None:
        super().__init__(why)
        self.reason: Refusal = reason


class Signer:
    """The rules, without a socket."""

    def __init__(self, key: Ed25519PrivateKey, signlog: SignLog, clock: Clock) -> None:
        self._key = key
        self._key_id = key_id(key.public_key())
        self._log = signlog
        self._clock = clock

    def answer(self, request: Request) -> Answer:
        """Raises Refused, and OSError when the log cannot be written."""
        match request:
            case AskNewest(spool):
                return Answer(self._log.newest(spool))
            case AskNewestAudit(chain):
                return Answer(audit=self._log.newest_audit(chain))
            case AskSign(head, steps):
                newest = self._log.newest(head.spool)
                signed = self._sign(newest, head, steps)
                if signed is not newest:
                    self._log.append(signed)
                return Answer(signed)
            case AskSignAudit(audit_head, steps, former):
                newest_audit = self._log.newest_audit(audit_head.chain)
                self._check_turn(newest_audit, former)
                signed_audit = self._sign(newest_audit, audit_head, steps)
                if signed_audit is not newest_audit:
                    self._log.append_audit(signed_audit)
                return Answer(audit=signed_audit)

    def _check_turn(self, newest: SignedAuditHead | None, former: str | None) -> None:
        """There is one audit: a chain of which `newest` was signed goes on while it is the one that was signed last,
        and a new one says that it follows that one. Raises Refused."""
        last = self._log.newest_audit(None)
        if last is None or last is newest:
            return
        if newest is not None:
            raise Refused("rollback", f"since this chain was signed another one began, {last.head.chain[:12]}...")
        if last.head.chain != former:
            why = f"the audit is not the one that was signed, and does not say that it follows {last.head.name}"
            raise Refused("fork", why)

    def _sign(self, newest: Signed[AnyHead] | None, head: AnyHead, steps: list[str]) -> Signed[AnyHead]:
        """The head signed, or `newest` itself where it is the same. Raises Refused."""
        place, link = (newest.head.place, newest.head.link) if newest else (0, NO_LINK)
        if newest is not None and newest.head == head:
            return newest  # its answer got lost
        if head.place < place:
            raise Refused("rollback", f"place {place} of this chain is signed, and {head.place} is behind it")
        if head.place == place:
            raise Refused("fork", f"place {place} of this chain is signed with another head")
        if head.place != place + len(steps):
            raise Refused("malformed", f"from place {place} to {head.place} there are not {len(steps)} steps")
        if links(link, map(bytes.fromhex, steps), head.LINKS) != head.link:
            raise Refused("fork", f"the rows behind place {place}, which is signed, do not lead to this head")
        signed_at = self._clock.now_ms()
        signature = self._key.sign(head.signed_bytes(signed_at)).hex()
        return Signed(head, signed_at, self._key_id, signature)


class Service:
    """The socket in front of the rules."""

    def __init__(self, path: Path, signer: Signer, clock: Clock) -> None:
        """Raises ConfigError when the socket cannot be made."""
        self._signer = signer
        self._clock = clock
        self._log = log.get("signer")
        self._bucket = Bucket(Rate(BURST_REQUESTS, BURST_REQUESTS / REQUESTS_PER_SECOND))
        self._stopping = False
        self._socket = listen("signer.socket", path, 0o600)
        self._socket.settimeout(_LOOK_SECONDS)
        self._manager = ServiceManager()

    def run(self, others_work: Callable[[], bool]) -> None:
        """Until `stop`. The service manager is told that the process works while `others_work`, too."""
        self._manager.ready()
        while not self._stopping:
            if others_work():
                self._manager.working()
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            with connection:
                self._serve(connection)

    def stop(self, *_: object) -> None:
        self._stopping = True
        self._manager.stopping()

    def close(self) -> None:
        self._socket.close()

    def _serve(self, connection: socket.socket) -> None:
        """Answers one request, so that nobody holds up others, or the watchdog, for longer than two deadlines.

        No error of the operating system is caught here: it may be that of the log's write, which ends the process."""
        try:
            self._check_peer(connection)
            line = self._read(connection)
            if line:
                self._spend()
                self._send(connection, self._signer.answer(_parsed(line)))
        except Refused as refusal:
            self._log.warning("refused", reason=refusal.reason, why=str(refusal))
            self._send(connection, Answer(refused=refusal.reason, why=str(refusal)))

    def _check_peer(self, connection: socket.socket) -> None:
        """The socket's mode keeps others off already; its directory may have been opened to them."""
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        _, uid, _ = _PEER.unpack(found)
        if uid != os.geteuid():
            raise Refused("other_user", "only the user of the signer may ask it")

    def _read(self, connection: socket.socket) -> bytes:
        """The line; empty when the peer has gone."""
        deadline_s = time.monotonic() + REQUEST_SECONDS
        data = bytearray()
        while not data.endswith(b"\n"):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise Refused("too_slow", f"a request must be there within {REQUEST_SECONDS:.0f} s")
            connection.settimeout(left_s)
            try:
                more = connection.recv(MAX_REQUEST_BYTES)
            except TimeoutError:
                continue
            except ConnectionError:
                return b""
            if not more:
                return b""
            data += more
            if len(data) > MAX_REQUEST_BYTES:
                raise Refused("too_long", f"a request has at most {MAX_REQUEST_BYTES} bytes")
        return bytes(data)

    def _spend(self) -> None:
        if self._bucket.take(1, self._clock.monotonic()):
            raise Refused("too_often", f"more than {REQUESTS_PER_SECOND:.0f} requests a second")

    def _send(self, connection: socket.socket, answer: Answer) -> None:
        connection.settimeout(REQUEST_SECONDS)
        with suppress(OSError):
            connection.sendall(msgspec.json.encode(answer) + b"\n")


_decode = msgspec.json.Decoder(Request).decode


def _parsed(line: bytes) -> Request:
    try:
        request: Request = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("malformed", f"not a request: {error}") from None
    return request


def serve(config: Config, clock: Clock) -> None:
    """Signs until SIGTERM or SIGINT. Raises ConfigError, Conflict; OSError when the log cannot be written."""
    settings = config.signer
    key_file, public_file, log_file = map(config.path, (settings.audit_key, settings.audit_public_key, settings.log))
    make_audit_key(key_file, public_file, log_file)
    with ExitStack() as opened:
        key = read_audit_key(key_file, public_file)
        signlog = SignLog(log_file, count_of(key_file))
        opened.callback(signlog.close)
        service = Service(config.path(settings.socket), Signer(key, signlog, clock), clock)
        opened.callback(service.close)
        renewals = RenewalService(config, clock)  # the log's lock says that no other signer runs
        opened.callback(renewals.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, service.stop)
        log.get("signer").info("signing", socket=str(config.path(settings.socket)), key_id=key_id(key.public_key()))
        renewals.start()
        service.run(renewals.works)
