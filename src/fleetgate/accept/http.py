"""HTTPS for vehicles: `POST /v1/telemetry`, one envelope or a batch, a result for each item; `POST /v1/renew`.

The routes are a bare ASGI callable (Quart costs half as much again for each request); everything else is Quart's, with
RFC 9457 problems. Decides sizes and forms of a request; an item's fate is decided by the intake, a renewal by `renew`,
and how a whole request is refused by `problems`. 413, 429 and 503 answer the whole request and claim nothing.
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
from fleetgate.accept.admission import Strangers, cost
from fleetgate.accept.door import STRANGER_LOGS_PER_SECOND
from fleetgate.accept.fleet import Caller, Fleet
from fleetgate.accept.intake import Intake
from fleetgate.accept.link import Link, link_of
from fleetgate.accept.problems import Problem, Receive, Scope, Send, answer_body, answer_start, send_problem
from fleetgate.accept.registry import Registry
from fleetgate.accept.renew import Renewals
from fleetgate.accept.room import RETRY_AFTER_SECONDS, Room
from fleetgate.accept.vetting import NobodyKnows, Vetting
from fleetgate.clock import Clock
from fleetgate.control.profile import CertificateIdentity, ProfileError
from fleetgate.control.renewalform import MAX_CSR_BYTES
from fleetgate.errors import ControlAway, SpoolError
from fleetgate.judge import Outcome, Reason, Verdict
from fleetgate.judge.envelope import UNDECODABLE, open_envelope
from fleetgate.judge.verdict import Reject

MAX_REQUEST_BYTES = 1024 * 1024
MAX_ITEMS = 500
TURN_BYTES = 8 * 1024
"""After so many bytes of a batch others get their turn: at most about a millisecond, and one item more."""
BODY_SECONDS = 30.0
MSGPACK_TYPE = "application/vnd.fleetgate.v1+msgpack"
JSON_TYPE = "application/vnd.fleetgate.v1+json"
TELEMETRY_TYPES = (MSGPACK_TYPE, JSON_TYPE)
RENEWAL_TYPES = ("application/pkcs10",)  # RFC 7030, 4.2.1
_BIN_HEADS = (0xC4, 0xC5, 0xC6)

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
        self._stranger_log = log.Sparse(_log, STRANGER_LOGS_PER_SECOND, clock.monotonic)

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
                    # A copy: the state that Hypercorn gives is one object for all requests of the connection.
                    own: Scope = {**scope, "state": {"link": link}}
                    await self._others(own, receive, send)
        except Problem as problem:
            await send_problem(receive, send, problem, shared=link.through_proxy)
        except SpoolError as error:
            self._intake.fail(error)  # Hypercorn would keep it to itself, and the edge would go on
        finally:
            link.requests -= 1

    async def _take_telemetry(self, link: Link, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Problem, SpoolError."""
        form = _form(scope, TELEMETRY_TYPES)
        results = await self._telemetry(link, form, scope, receive)
        content = msgspec.json.encode(results) if form == JSON_TYPE else msgspec.msgpack.encode(results)
        # Who is kept out is told so, and that was the last answer.
        headers = [(b"connection", b"close")] if link.ending or self.kept_out(link) is not None else []
        await send(answer_start(HTTPStatus.ACCEPTED, form, content, headers))
        await send(answer_body(content))

    async def _renew(self, link: Link, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Problem."""
        _form(scope, RENEWAL_TYPES)
        identity = _identity_of(link, self._clock.now_ms())
        await self._renewals.admit(identity, self._listed(identity))
        csr = await _read_body(scope, receive, MAX_CSR_BYTES)
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
        self._admit(link, caller, [])  # an empty bucket is told before the body is read and taken apart
        try:
            items = _items(await _read_body(scope, receive, MAX_REQUEST_BYTES), form)
        except Problem as problem:
            if isinstance(caller, Caller) and problem.status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                self._intake.refuse_unseen(caller, Reason.OVERSIZED, self._clock.now_ms())
                self._intake.wake()
            raise
        if isinstance(caller, Caller):
            caller = self._listed(_identity_of(link, self._clock.now_ms())) or caller  # the body took its time
        self._admit(link, caller, items)
        if isinstance(caller, Reason):
            self._intake.counts.refused_connections[caller] += 1
            return [_refused_unjudged(item, caller) for item in items]
        started_s, now_ms = self._clock.monotonic(), self._clock.now_ms()
        results: list[dict[str, object]] = []
        turn_bytes = 0
        for item in items:
            if turn_bytes > TURN_BYTES:
                await trio.lowlevel.checkpoint()
                turn_bytes = 0
            turn_bytes += len(item)
            verdict = self._intake.receive(caller, item, None, now_ms)
            results.append(_result_of(verdict, caller.peer.device.epoch))
        caller.known.idle_since = self._clock.monotonic()
        await self._intake.committed()
        fault.point("ack.https")
        self._intake.counts.acks["https"] += len(items)
        self._intake.counts.ack_seconds.observe(self._clock.monotonic() - started_s)
        return results

    def _admit(self, link: Link, caller: Caller | Reason, items: list[bytes]) -> None:
        """Takes the items from the bucket of the device, or of the certificate that is refused. Raises Problem (429),
        counted as one refusal of the device at least."""
        count = sum(map(cost, map(len, items)))
        if isinstance(caller, Reason):
            wait_s = self._strangers.take(link.who, count, self._clock.monotonic())
        elif wait_s := caller.known.bucket.take(count, self._clock.monotonic()):
            self._intake.refuse_unseen(caller, Reason.RATE_LIMITED, self._clock.now_ms(), max(1, len(items)))
            self._intake.wake()
        if wait_s:
            raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "this device sends too fast", retry_after_s=wait_s)

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
            peer = self._fleet.peer(known, identity, self._clock.now_ms(), json_allowed=True)
            assert peer is not None  # it is admitted
            caller = link.caller = Caller(
                known, peer, link.address, "https", self._edge_id, self._intake.policy.version
            )
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


def _form(scope: Scope, types: tuple[str, ...]) -> str:
    """The content type, one of `types`. Raises Problem; Transfer-Encoding is refused: h11 lets a few pairs pass."""
    if scope["method"] != "POST":
        raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, _HELP)
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in headers and name in (b"content-length", b"content-type", b"transfer-encoding"):
            raise Problem(HTTPStatus.BAD_REQUEST, f"{name.decode('ascii', 'replace')} stands there twice")
        headers[name] = value
    if b"transfer-encoding" in headers:
        raise Problem(HTTPStatus.BAD_REQUEST, "Transfer-Encoding is not taken: send Content-Length")
    if b"content-encoding" in headers:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Encoding is not taken")
    if b"content-length" not in headers:
        raise Problem(HTTPStatus.LENGTH_REQUIRED, "send Content-Length")
    form = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if form not in types:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is {' or '.join(types)}")
    return form


async def _read_body(scope: Scope, receive: Receive, most_bytes: int) -> bytes:
    """The body, if it is announced and small enough. Raises Problem."""
    announced = next(value for name, value in scope["headers"] if name == b"content-length")
    if not announced.isdigit():
        raise Problem(HTTPStatus.BAD_REQUEST, "Content-Length is not a number")
    if len(announced) > 10 or int(announced) > most_bytes:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {most_bytes} bytes")
    parts: list[bytes] = []
    size = 0
    with trio.move_on_after(BODY_SECONDS):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise Problem(HTTPStatus.BAD_REQUEST, "the client left")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most_bytes:
                raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {most_bytes} bytes")
            if not message.get("more_body", False):
                return b"".join(parts)
    raise Problem(HTTPStatus.REQUEST_TIMEOUT, f"the body did not arrive within {BODY_SECONDS:.0f} s")


_decode_batch = msgspec.msgpack.Decoder(list[bytes]).decode
_decode_json_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _items(body: bytes, form: str) -> list[bytes]:
    """The envelopes of a request. What is no batch is one envelope, for the judge to refuse. Raises Problem (413)."""
    try:
        items = _json_items(body) if form == JSON_TYPE else _msgpack_items(body)
    except UNDECODABLE:
        return [body]
    if len(items) > MAX_ITEMS:
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_ITEMS} envelopes: split the batch")
    return items


def _json_items(body: bytes) -> list[bytes]:
    text = body.lstrip(b" \t\r\n")
    if text[:1] != b"[":
        # A MessagePack envelope is not let in under the JSON type: one request has one form.
        return [b"" if body[:1] == b"\x98" else body]
    return [bytes(item) for item in _decode_json_batch(body)]


def _msgpack_items(body: bytes) -> list[bytes]:
    """An envelope is an array too; its first element is an integer, a batch's are byte strings."""
    head = body[:1]
    skip = 1 if head[:1] and 0x90 <= head[0] <= 0x9F else {b"\xdc": 3, b"\xdd": 5}.get(head, 0)
    if not skip:
        return [b""]
    if body == b"\x90" or (len(body) > skip and body[skip] in _BIN_HEADS):
        return [item if item[:1] == b"\x98" else b"" for item in _decode_batch(body)]
    return [body]


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
    if verdict.reason is Reason.STALE_EPOCH:
        result["current_epoch"] = current_epoch
    return result


def _unavailable(why: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, f"{why}: the same bytes later", retry_after_s=RETRY_AFTER_SECONDS)


def _quart() -> QuartTrio:
    """Everything that no vehicle needs; later parts add routes here."""
    app = QuartTrio("fleetgate")
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES

    @app.errorhandler(HTTPException)
    async def problem(error: HTTPException) -> Response:
        status = HTTPStatus(error.code or 500)
        content = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": _HELP}
        return Response(msgspec.json.encode(content), status.value, content_type="application/problem+json")

    return app


_HELP = "vehicles POST to /v1/telemetry and /v1/renew"
