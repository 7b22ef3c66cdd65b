"""The signer's second socket: who wants a renewal waits here, and nobody else.

Decides how many may ask at once, how often, and how long each may take; the answers are `control.renewal`'s. Runs in
threads of its own beside the signing of heads, and neither holds the other up: a client that says nothing costs its
place for 2 s. One renewal is decided at a time; whether these threads still work, the watchdog asks. Keyring, issuing
key and records are opened for each, so that what was replaced is in force with the next one; while one of them cannot
be used, the device is told to come back.

The socket is open to the signer's group: the edge may be another user.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from contextlib import suppress
from copy import copy

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from fleetgate import log
from fleetgate.bucket import Bucket
from fleetgate.clock import Clock
from fleetgate.config import Config
from fleetgate.control.keyring import Keyring
from fleetgate.control.localsocket import listen
from fleetgate.control.pki import Authority
from fleetgate.control.renewal import ACTOR, LATER_SECONDS, Refused, renew
from fleetgate.control.renewalform import (
    ASK_SECONDS,
    MAX_ASK_BYTES,
    Answer,
    AskRenewal,
    NotRenewed,
    Refusal,
    Renewed,
)
from fleetgate.control.store import Store
from fleetgate.errors import ConfigError, ControlAway
from fleetgate.rates import Rate

MAX_CONNECTIONS = 16
"""The edge has fewer open at once; what is beyond waits for nothing, it is told that the signer is busy."""

TURN_SECONDS = 5.0  # how long an asker stands in line for the one renewal at a time
HANGS_SECONDS = 30.0
"""Of one turn of the loop (0.2 s), or of one decision: the records are waited for 5 s, a disk seldom for as long."""

AWAY_SECONDS = 60
BUSY_SECONDS = 10

REFUSALS_LOGGED_PER_SECOND = 5
_LOOK_SECONDS = 0.2

_RETRY_AFTER = {Refusal.LATER: LATER_SECONDS, Refusal.BUSY: BUSY_SECONDS, Refusal.AWAY: AWAY_SECONDS}


class RenewalService:
    """Serves from `start` to `close`."""

    def __init__(self, config: Config, clock: Clock) -> None:
        """Raises ConfigError when the socket cannot be made."""
        self._config = config
        self._clock = clock
        self._log = log.get("renewal")
        self._sparse_log = log.Sparse(self._log, REFUSALS_LOGGED_PER_SECOND, clock.monotonic)
        self._limits = Limits(config, clock)
        self._store: Store | None = None
        self._turn = threading.Lock()
        self._turned_s = time.monotonic()
        self._deciding_since_s = math.inf
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._stopping = threading.Event()
        self._socket = listen("signer.renewal_socket", config.path(config.signer.renewal_socket), 0o660)
        self._socket.settimeout(_LOOK_SECONDS)
        self._thread = threading.Thread(target=self._run, name="renewals", daemon=True)

    def start(self) -> None:
        self._turned_s = time.monotonic()
        self._thread.start()

    def works(self) -> bool:
        """Neither its loop nor a decision stands still. By the manager's time, whatever clock the gate was given."""
        return time.monotonic() - min(self._turned_s, self._deciding_since_s) < HANGS_SECONDS

    def close(self) -> None:
        """Takes no more questions; one that is being decided is committed or undone by the database."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()
        with self._turn:
            if self._store is not None:
                self._store.close()
                self._store = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._turned_s = time.monotonic()
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError as error:  # out of descriptors: those that are open go on
                self._log.error("accept_failed", error=error.strerror)
                self._stopping.wait(_LOOK_SECONDS)
                continue
            if self._places.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(connection,), name="renewal", daemon=True).start()
            else:
                with connection:
                    _send(connection, NotRenewed(Refusal.BUSY, "too many ask at once", BUSY_SECONDS))

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                line = _read(connection, time.monotonic() + ASK_SECONDS)
                if line:
                    _send(connection, self._answer(line))
        except Exception as error:  # one question's failure is not the others'; its text may hold anything
            self._log.error("renewal_failed", error=type(error).__name__)
        finally:
            self._places.release()

    def _answer(self, line: bytes) -> Answer:
        try:
            ask: AskRenewal = _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._sparse_log.warning("not_a_question")
            return NotRenewed(Refusal.MALFORMED, "this is not a question for a renewal")
        answer = self._limits.check(ask) or self._in_turn(ask)
        facts = {"tenant": ask.tenant, "device_id": ask.device_id, "presented": ask.fingerprint}
        if isinstance(answer, Renewed):
            self._limits.pass_on(ask, answer)
            self._log.info("renewed", kid=answer.kid, **facts)
        else:
            self._sparse_log.warning("not_renewed", reason=answer.refused.value, why=answer.why, **facts)
        return answer

    def _in_turn(self, ask: AskRenewal) -> Answer:
        if not self._turn.acquire(timeout=TURN_SECONDS):
            return NotRenewed(Refusal.BUSY, "others wait for the records already", BUSY_SECONDS)
        self._deciding_since_s = time.monotonic()
        try:
            return self._decide(ask)
        except Refused as refused:
            return NotRenewed(refused.refusal, str(refused), _RETRY_AFTER.get(refused.refusal, 0))
        except (ConfigError, ControlAway) as error:
            self._sparse_log.warning("cannot_renew", error=str(error), means="devices are told to come back")
            return NotRenewed(Refusal.AWAY, "records, keyring or issuing key cannot be used", AWAY_SECONDS)
        finally:
            self._deciding_since_s = math.inf
            self._turn.release()

    def _decide(self, ask: AskRenewal) -> Answer:
        config = self._config
        authority = Authority.load(config.path(config.signer.authority), self._clock)
        if authority.trust_domain != config.trust_domain:
            raise ConfigError(f"the CA is of the trust domain {authority.trust_domain}, not of the setting's")
        if self._store is None:
            self._store = Store.open(config, self._clock, write=True)
        with self._store.write(ACTOR) as write:
            keyring = Keyring.load(
                config.path(config.edge.keyring)
            )  # in it: a root key that was ended before is not used
            return renew(write, authority, keyring, config.policy.version, ask)


class Limits:
    """One bucket over all, one for each certificate that was shown lately: as many as the first lets through in the
    time that the second needs to be full again. Not one for each device: whoever has a former key of it would use up
    what it has for its own renewal."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._clock = clock
        self._a_minute = config.signer.renewals_per_minute
        self._a_day = config.signer.device_renewals_per_day
        self._all = Bucket(Rate(self._a_minute, 60.0))
        self._of_certificate: dict[tuple[str, str, str], Bucket] = {}
        self._swept_s = clock.monotonic()
        self._lock = threading.Lock()

    def check(self, ask: AskRenewal) -> NotRenewed | None:
        """Why not now; None when it may be asked."""
        with self._lock:
            now_s = self._clock.monotonic()
            self._sweep(now_s)
            # The certificate's first: who asks too often does not use up what all have together.
            shown = (ask.tenant, ask.device_id, ask.fingerprint)
            own = self._of_certificate.get(shown) or Bucket(Rate(self._a_day, 86_400.0))
            wait_s = own.take(1, now_s)
            if wait_s:
                return NotRenewed(Refusal.TOO_OFTEN, f"more than {self._a_day} a day", math.ceil(wait_s))
            wait_s = self._all.take(1, now_s)
            if wait_s:
                why = f"more than {self._a_minute} a minute (signer.renewals_per_minute)"
                return NotRenewed(Refusal.BUSY, why, max(BUSY_SECONDS, math.ceil(wait_s)))
            self._of_certificate[shown] = own
            return None

    def pass_on(self, ask: AskRenewal, answer: Renewed) -> None:
        """What the renewed certificate had left is what the new one begins with: renewing on and on is bounded too."""
        leaf = x509.load_pem_x509_certificate(answer.certificate.encode())
        with self._lock:
            left = self._of_certificate.get((ask.tenant, ask.device_id, ask.fingerprint))
            if left is not None:
                renewed = (ask.tenant, ask.device_id, leaf.fingerprint(SHA256()).hex())
                self._of_certificate.setdefault(renewed, copy(left))

    def _sweep(self, now_s: float) -> None:
        if now_s - self._swept_s > 60:
            self._swept_s = now_s
            for key, bucket in list(self._of_certificate.items()):
                bucket.refill(now_s)
                if bucket.full:
                    del self._of_certificate[key]


_decode = msgspec.json.Decoder(AskRenewal).decode


def _read(connection: socket.socket, deadline_s: float) -> bytes:
    """The line; empty when the peer has gone, was too slow or went on too long: it is not answered."""
    data = bytearray()
    while not data.endswith(b"\n"):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or len(data) > MAX_ASK_BYTES:
            return b""
        connection.settimeout(left_s)
        try:
            more = connection.recv(MAX_ASK_BYTES)
        except OSError:
            return b""
        if not more:
            return b""
        data += more
    return bytes(data)


def _send(connection: socket.socket, answer: Answer) -> None:
    connection.settimeout(ASK_SECONDS)
    with suppress(OSError):
        connection.sendall(msgspec.json.encode(answer) + b"\n")
