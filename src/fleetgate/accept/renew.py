"""Renewal, the edge's part: who may ask the signer, and what the device is told of its answer.

Decides by what this edge knows itself (a device that it keeps out, or holds, gets no further than here), by the rate of
the certificate, and by how many may wait for the signer at once. Who shows a former certificate of a device uses up
nothing that the device needs for its own renewal. Whether there is one is decided by the signer, from the records; the
issuing key and what makes credentials are out of this process's reach. A signer that is away or hangs costs renewals
and nothing else: each waits in a task of its own, for a bounded time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec
import trio

from fleetgate import log
from fleetgate.accept.counts import Counts
from fleetgate.accept.known import Key, KnownDevice
from fleetgate.accept.problems import Problem
from fleetgate.accept.registry import Registry
from fleetgate.accept.strangers import Strangers
from fleetgate.clock import Clock
from fleetgate.control.localsocket import short_name
from fleetgate.control.profile import CertificateIdentity
from fleetgate.control.renewalform import (
    ANSWER_SECONDS,
    MAX_ANSWER_BYTES,
    Answer,
    AskRenewal,
    NotRenewed,
    Refusal,
    Renewed,
)
from fleetgate.errors import ControlAway
from fleetgate.judge import Reason

MAX_ASKING: Final = 8  # half of the connections that the signer serves at once: two edges find room
AWAY_SECONDS: Final = 60
LATER_SECONDS: Final = 3600
MAX_WAITING: Final = 10_000  # certificates that were told to wait, 2 MB; beyond it the oldest may ask the signer again

_LATER = "no renewal for this device now: ask again later"

_TOLD: Mapping[Refusal, tuple[HTTPStatus, str]] = {
    Refusal.CSR: (HTTPStatus.BAD_REQUEST, ""),  # the signer's words: the device's own request is their subject
    Refusal.UNKNOWN: (HTTPStatus.FORBIDDEN, "unknown_device: the records do not have this certificate"),
    Refusal.REVOKED: (HTTPStatus.FORBIDDEN, "revoked: this credential renews nothing"),
    Refusal.BANNED: (HTTPStatus.FORBIDDEN, "banned: this device renews nothing"),
    Refusal.EXPIRED: (HTTPStatus.FORBIDDEN, "expired: the device must be enrolled anew"),
    Refusal.SUPERSEDED: (HTTPStatus.FORBIDDEN, "superseded: the device has had newer credentials since"),
    Refusal.LATER: (HTTPStatus.SERVICE_UNAVAILABLE, _LATER),  # a quarantined device is not told
    Refusal.TOO_OFTEN: (HTTPStatus.TOO_MANY_REQUESTS, "this device renews too often"),
    Refusal.BUSY: (HTTPStatus.SERVICE_UNAVAILABLE, _LATER),
    Refusal.AWAY: (HTTPStatus.SERVICE_UNAVAILABLE, _LATER),
    Refusal.MALFORMED: (HTTPStatus.SERVICE_UNAVAILABLE, _LATER),  # edge and signer are of two versions
}

_log = log.get("accept.renew")


class Renewals:
    """The signer as the vehicles' HTTPS listener sees it."""

    def __init__(self, socket: Path, registry: Registry, counts: Counts, clock: Clock) -> None:
        self._socket = socket
        self._registry = registry
        self._counts = counts
        self._clock = clock
        self._asking: set[Key] = set()
        self._buckets = Strangers()  # by fingerprint
        self._waiting: dict[bytes, float] = {}  # fingerprints, until when, in monotonic seconds
        self._trouble = ""

    async def admit(self, identity: CertificateIdentity, refusal: Reason | None) -> None:
        """Whether the request may be read at all; `refusal` is what others say of the certificate. Raises Problem."""
        try:
            known = await self._registry.lookup(identity)
        except ControlAway:
            raise self._refused(Refusal.AWAY, AWAY_SECONDS) from None
        if known is None:
            raise self._refused(Refusal.UNKNOWN)
        self._check_standing(known, identity, refusal)
        now_s = self._clock.monotonic()
        shown = identity.fingerprint
        wait_s = max(self._buckets.take(shown.hex(), 1, now_s), self._waiting.get(shown, 0.0) - now_s)
        if wait_s > 0:
            raise self._refused(Refusal.TOO_OFTEN, wait_s)

    def _check_standing(self, known: KnownDevice, identity: CertificateIdentity, refusal: Reason | None) -> None:
        """What this edge remembers holds, even against records that have forgotten it. Raises Problem."""
        credential = known.credentials.get(identity.key_digest)
        refusal = refusal or known.device.refusal or (credential.refusal if credential is not None else None)
        if refusal is Reason.SUSPENDED or (refusal is None and known.device.held):
            raise self._refused(Refusal.LATER, LATER_SECONDS)
        if refusal is not None:
            raise self._refused(Refusal(refusal.value))

    async def ask(self, identity: CertificateIdentity, csr: bytes) -> Renewed:
        """Raises Problem."""
        with self._place(identity):
            answer = await self._answer(identity, csr)
        if isinstance(answer, NotRenewed):
            if answer.refused is Refusal.TOO_OFTEN:
                self._remember(identity.fingerprint, answer.retry_after_s)
            raise self._refused(answer.refused, answer.retry_after_s, answer.why)
        self._counts.renewals["renewed"] += 1
        return answer

    @contextlib.contextmanager
    def _place(self, identity: CertificateIdentity) -> Iterator[None]:
        """One renewal of a device at a time, and a few of all. Raises Problem."""
        key = (identity.tenant, identity.device_id)
        if key in self._asking or len(self._asking) >= MAX_ASKING:
            raise self._refused(Refusal.BUSY, ANSWER_SECONDS)
        self._asking.add(key)
        try:
            yield
        finally:
            self._asking.discard(key)

    async def _answer(self, identity: CertificateIdentity, csr: bytes) -> Answer:
        question = AskRenewal(identity.tenant, identity.device_id, identity.fingerprint.hex(), csr)
        answer: Answer | None = None
        trouble = f"no answer within {ANSWER_SECONDS:.0f} s"
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                answer = _decode(await _ask(self._socket, msgspec.json.encode(question) + b"\n"))
            except OSError as error:
                trouble = error.strerror or str(error)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                trouble = "what answers is no signer"
        if answer is not None:
            if self._trouble:
                _log.info("signer_is_back")
                self._trouble = ""
            return answer
        if trouble != self._trouble:
            self._trouble = trouble
            _log.error("signer_is_away", error=trouble, means="no renewals; telemetry goes on")
        return NotRenewed(Refusal.AWAY, trouble, AWAY_SECONDS)

    def _remember(self, shown: bytes, wait_s: float) -> None:
        if len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting.pop(shown, None)
        self._waiting[shown] = self._clock.monotonic() + wait_s

    def _refused(self, refusal: Refusal, retry_after_s: float = 0, why: str = "") -> Problem:
        self._counts.renewals[refusal.value] += 1
        status, detail = _TOLD[refusal]
        return Problem(status, detail or why, retry_after_s=retry_after_s or None)


_decode = msgspec.json.Decoder(Answer).decode


async def _ask(path: Path, question: bytes) -> bytes:
    """The line that the signer answers with. Raises OSError."""
    with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as sock:
        with short_name(path) as name:
            await sock.connect(name)
        stream = trio.SocketStream(sock)
        try:
            await stream.send_all(question)
            data = bytearray()
            while len(data) <= MAX_ANSWER_BYTES and (more := await stream.receive_some(MAX_ANSWER_BYTES)):
                data += more
            return bytes(data)
        except trio.BrokenResourceError:
            raise ConnectionResetError("the signer broke off") from None
