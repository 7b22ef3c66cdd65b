"""HTTPS for vehicles: `POST /v1/telemetry`, one envelope or a batch, a result for each item; `POST /v1/renew`.

The routes are a bare ASGI callable (Quart costs half as much again for each request); everything else is Quart's, with
RFC 9457 problems. Decides whether a request may pass; its form is decided by `request`, an item's fate by the intake, a
renewal by `renew`, and how a whole request is refused by `problems`. 413, 429 and 503 answer the whole request and
claim nothing.
"""

from __future__ import annotations

import contextlib
from http import HTTPStatus

import msgspec
import trio
from quart import Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from fleetgate import fault, log
from fleetgate.accept.answers import TOLD_THE_EPOCH
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.intake import Intake
from fleetgate.accept.known import Caller
from fleetgate.accept.limits import MESSAGE_BYTES, Account, Quantity, cost
from fleetgate.accept.link import Link, link_of
from fleetgate.accept.problems import Problem, Receive, Scope, Send, answer_body, answer_start, send_problem
from fleetgate.accept.registry import Registry
from fleetgate.accept.renew import Renewals
from fleetgate.accept.request import (
    HELP,
    JSON_TYPE,
    MAX_REQUEST_BYTES,
    RENEWAL_TYPES,
    TELEMETRY_TYPES,
    form_of,
    items_of,
    read_body,
)
from fleetgate.accept.room import RETRY_AFTER_SECONDS, Room
from fleetgate.accept.strangers import Strangers, stranger_log
from fleetgate.accept.vetting import NobodyKnows, Vetting
from fleetgate.clock import Clock
from fleetgate.control.profile import CertificateIdentity, ProfileError
from fleetgate.control.renewalform import MAX_CSR_BYTES
from fleetgate.errors import ControlAway, SpoolError
from fleetgate.judge import Outcome, Reason, Verdict
from fleetgate.judge.envelope import open_envelope
from fleetgate.judge.verdict import Reject

TURN_BYTES = 8 * 1024
"""After so many bytes of a batch others get their turn: at most about a millisecond, and one item more."""

_STATUS = {
    Outcome.ACCEPTED: "accepted",
    Outcome.HELD: "accepted",  # a quarantined device is not told
    Outcome.DUPLICATE: "duplicate",
    Outcome.REJECTED: "rejected",
}


_log = log.get("accept.http")


class VehicleApp:
    """The ASGI application of the vehicles' HTTPS listener."""

    def __init__(
        self,
        intake: Intake,
        registry: Registry,
        vetting: Vetting,
        fleet: Fleet,
        room: Room,
        renewals: Renewals,
        clock: Clock,
        edge_id: str,
    ) -> None:
        self._intake = intake
        self._vetting = vetting
        self._registry = registry
        self._fleet = fleet
        self._room = room
        self._renewals = renewals
        self._clock = clock
        self._edge_id = edge_id
        self._strangers = Strangers()
        self._others = _quart()
        self._stranger_log = stranger_log(_log, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._others(scope, receive, send)
            return
        try:
            link = link_of(scope, self._vetting)
        except Problem as problem:
            address = scope["state"]["link"].address
            self._stranger_log.warning("request_refused", address=address, error=problem.detail)
            await send_problem(receive, send, problem, shared=True)
            return
        link.requests += 1
        try:
            match scope["path"]:
                case "/v1/telemetry":
                    await self._take_telemetry(link, scope, receive, send)
                case "/v1/renew":  # never through a proxy that ends TLS: `link_of` has refused it
                    await self._renew(link, scope, receive, send)
                case _:
                    if wait_s := self._strangers.take(link.who, 1, self._clock.monotonic()):
                        raise _too_fast(wait_s)
                    # A copy: the state that Hypercorn gives is one object for all requests of the connection.
                    own: Scope = {**scope, "state": {"link": link}}
                    await self._others(own, receive, send)
        except Problem as problem:
            discarded = await send_problem(receive, send, problem, shared=link.through_proxy)
            if link.caller is not None and problem.retry_after_s is None:  # who is to come again pays for it then
                self._charge(link.caller, 0, discarded)
        except SpoolError as error:
            self._intake.fail(error)  # Hypercorn would keep it to itself, and the edge would go on
        finally:
            link.requests -= 1

    async def _take_telemetry(self, link: Link, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Problem, SpoolError."""
        form = form_of(scope, TELEMETRY_TYPES)
        results = await self._telemetry(link, form, scope, receive)
        content = msgspec.json.encode(results) if form == JSON_TYPE else msgspec.msgpack.encode(results)
        # Who is kept out is told so, and that was the last answer.
        headers = [(b"connection", b"close")] if link.ending or self.kept_out(link) is not None else []
        await send(answer_start(HTTPStatus.ACCEPTED, form, content, headers))
        await send(answer_body(content))

    async def _renew(self, link: Link, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Problem."""
        form_of(scope, RENEWAL_TYPES)
        identity = _identity_of(link, self._clock.now_ms())
        await self._renewals.admit(identity, self._listed(identity))
        csr = await read_body(scope, receive, MAX_CSR_BYTES, [])
        await self._renewals.admit(identity, self._listed(identity))  # a revocation may have come while the body did
        answer = await self._renewals.ask(identity, csr)
        content = msgspec.json.encode({"certificate": answer.certificate, "kid": answer.kid, "mac_key": answer.mac_key})
        await send(answer_start(HTTPStatus.OK, "application/json", content, [(b"cache-control", b"no-store")]))
        await send(answer_body(content))

    def kept_out(self, link: Link) -> int | None:
        """None while this connection may go on; else when somebody decided that it may not (Unix ms), 0 for nobody."""
        identity = link.identity
        if identity is None:
            return None  # its first request is answered with the reason, and that ends it
        if link.through_proxy:
            return None  # the connection is not this vehicle's alone
        try:
            if self._clock.now_ms() > identity.not_after_ms or self._vetting.refusal(identity) is not None:
                return 0
        except (NobodyKnows, ProfileError):
            return 0
        known = self._fleet.get((identity.tenant, identity.device_id))
        if known is None:
            return None
        credential = known.credentials.get(identity.key_digest)
        may_send = known.device.refusal is None and credential is not None and credential.refusal is None
        return None if may_send else known.decided_ms

    async def _telemetry(self, link: Link, form: str, scope: Scope, receive: Receive) -> list[dict[str, object]]:
        """Judges each item, waits for the commit, returns a result for each. Raises Problem."""
        if not self._room.open:
            raise _unavailable(self._room.why)
        caller = await self._caller(link)
        self._admit(link, caller, 0, 0)  # an empty bucket is told before the body is read and taken apart
        if isinstance(caller, Caller):
            self._shared(caller)
        body, parts = b"", list[bytes]()
        try:
            body = await read_body(scope, receive, MAX_REQUEST_BYTES, parts)
            items = items_of(body, form)
        except Problem as problem:
            messages = cost(len(body))  # of a body that was cut nothing was taken apart: one, and its bytes
            if isinstance(caller, Reason):
                self._take(link, caller, messages, 0)
                raise
            self._charge(caller, messages, sum(map(len, parts)))
            if problem.status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                self._intake.refuse_unseen(caller, Reason.OVERSIZED, self._clock.now_ms())
                self._intake.wake()
            raise
        if isinstance(caller, Caller):
            caller = self._listed(_identity_of(link, self._clock.now_ms())) or caller  # the body took its time
        sizes = [len(item) for item in items]
        messages = sum(map(cost, sizes)) + (len(body) - sum(sizes)) // MESSAGE_BYTES  # white space is read too
        # Others may have sent while the body came: asked before its own account is charged for what does not pass.
        senders = self._shared(caller) if isinstance(caller, Caller) else []
        self._admit(link, caller, max(1, messages), len(body), len(items))
        if isinstance(caller, Reason):
            self._intake.counts.refused_connections[caller] += 1
            return [_refused_unjudged(item, caller) for item in items]
        for account in senders:
            account.charge_sent(len(items), len(body), 0, self._clock.monotonic())
        started_s, now_ms = self._clock.monotonic(), self._clock.now_ms()
        results: list[dict[str, object]] = []
        turn_bytes = events = 0
        for item in items:
            if turn_bytes > TURN_BYTES:
                await trio.lowlevel.checkpoint()
                turn_bytes = 0
            turn_bytes += len(item)
            verdict = self._intake.receive(caller, item, None, now_ms)
            results.append(_result_of(verdict, caller.peer.device.epoch))
            events += verdict.events
        for account in senders:
            account.charge(Quantity.EVENTS, events, self._clock.monotonic())
        caller.known.idle_since = self._clock.monotonic()
        await self._intake.committed()
        fault.point("ack.https")
        self._intake.counts.acks["https"] += len(items)
        self._intake.counts.ack_seconds.observe(self._clock.monotonic() - started_s)
        return results

    def _admit(self, link: Link, caller: Caller | Reason, messages: int, size: int, items: int = 0) -> None:
        """Raises Problem (429): while the device is braked, which is no further refusal; or where its own limits, or
        those of a stranger, are used up, counted as one refusal of the device at least."""
        if isinstance(caller, Caller) and (brake_s := caller.known.brake.until_s - self._clock.monotonic()) > 0:
            raise _too_fast(brake_s, "this device goes on with what is refused, or too fast")
        wait_s = self._take(link, caller, messages, size)
        if not wait_s:
            return
        if isinstance(caller, Caller):
            self._intake.refuse_unseen(caller, Reason.RATE_LIMITED, self._clock.now_ms(), max(1, items))
            self._intake.wake()
        raise _too_fast(wait_s)

    def _charge(self, caller: Caller, messages: int, size: int) -> None:
        """Charges bytes that came and hold no message to its own account and to those it shares, as if they had: else
        they would cost nobody anything. `messages` are what reading them cost."""
        now_s = self._clock.monotonic()
        caller.known.account.charge_sent(messages, size, 0, now_s)
        for account in self._intake.senders(caller):
            account.charge_sent(0, size, 0, now_s)

    def _shared(self, caller: Caller) -> list[Account]:
        """The accounts that what it sends is charged to besides its own. Raises Problem (429) while one is used up: no
        refusal of the device, others may have been too fast."""
        senders = self._intake.senders(caller)
        if wait_s := self._intake.shared_wait(senders):
            raise _too_fast(wait_s, "a limit that this device shares with others is used up")
        return senders

    def _take(self, link: Link, caller: Caller | Reason, messages: int, size: int) -> float:
        """As `Account.take`, from that of the device, or from the bucket of the certificate that is refused."""
        if isinstance(caller, Reason):
            return self._strangers.take(link.who, messages, self._clock.monotonic())
        return caller.known.account.take(messages, size, self._clock.monotonic())

    async def _caller(self, link: Link) -> Caller | Reason:
        """The device behind the certificate, or why it is none: the records do not have it, or a revocation list has
        its certificate. Raises Problem."""
        identity = _identity_of(link, self._clock.now_ms())
        try:
            known = await self._registry.lookup(identity)
        except ControlAway:
            raise _unavailable("the records of devices are away") from None
        if known is None or not self._fleet.admits(known, identity, self._clock.now_ms()):
            return Reason.UNKNOWN_DEVICE
        refusal = self._listed(identity)
        if refusal is not None:
            return refusal
        caller = link.caller
        # The fleet may have forgotten an idle device and read it again: only the device it has now has true windows.
        if (
            caller is None
            or caller.known is not known
            or caller.sender.facts.vehicle_id != known.device.vehicle_id
            or caller.policy_version != self._intake.policy.version
        ):
            begins = caller is None and not link.through_proxy
            peer = self._fleet.peer(known, identity, self._clock.now_ms(), json_allowed=True)
            assert peer is not None  # it is admitted
            caller = Caller(known, peer, link.address, "https", self._edge_id, self._intake.policy.version)
            if begins and (wait_s := self._intake.admit_connection(caller, self._clock.now_ms())):
                raise _too_fast(wait_s, "too many connections")
            link.caller = caller
        caller.peer.flags = self._vetting.flags(identity)
        return caller

    def _listed(self, identity: CertificateIdentity) -> Reason | None:
        """What issuers and revocation lists say of the certificate now. Raises Problem."""
        try:
            return self._vetting.refusal(identity)
        except NobodyKnows:
            raise _unavailable("a revocation list of the certificate's issuer is out of date") from None
        except ProfileError as error:
            raise Problem(HTTPStatus.FORBIDDEN, f"certificate: {error}") from None


def _identity_of(link: Link, now_ms: int) -> CertificateIdentity:
    """Whom the certificate speaks for, as long as it is valid. Raises Problem."""
    if link.identity is None:
        raise Problem(HTTPStatus.FORBIDDEN, f"certificate: {link.profile_error}")
    if now_ms > link.identity.not_after_ms:
        raise Problem(HTTPStatus.FORBIDDEN, "certificate: it has expired since the connection began")
    return link.identity


def _refused_unjudged(item: bytes, reason: Reason) -> dict[str, object]:
    """The result where the sender is refused before the judge: nothing is judged, but the item's numbers are told."""
    epoch = seq = None
    with contextlib.suppress(Reject):
        envelope = open_envelope(item, json_allowed=True)
        epoch, seq = envelope.epoch, envelope.seq
    return {"epoch": epoch, "seq": seq, "status": "rejected", "reason": reason.value}


def _result_of(verdict: Verdict, current_epoch: int) -> dict[str, object]:
    envelope = verdict.envelope
    result: dict[str, object] = {
        "epoch": envelope.epoch if envelope is not None else None,
        "seq": envelope.seq if envelope is not None else None,
        "status": _STATUS[verdict.outcome],
        "reason": verdict.reason.value if verdict.reason is not None else None,
    }
    if verdict.reason in TOLD_THE_EPOCH:
        result["current_epoch"] = current_epoch
    return result


def _too_fast(wait_s: float, why: str = "this device sends too fast") -> Problem:
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, why, retry_after_s=wait_s)


def _unavailable(why: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{why}: the same bytes later", retry_after_s=RETRY_AFTER_SECONDS)


def _quart() -> QuartTrio:
    """Everything that is no vehicle's route."""
    app = QuartTrio("fleetgate")
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES

    @app.errorhandler(HTTPException)
    async def problem(error: HTTPException) -> Response:
        status = HTTPStatus(error.code or 500)
        content = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": HELP}
        return Response(msgspec.json.encode(content), status.value, content_type="application/problem+json")

    return app
