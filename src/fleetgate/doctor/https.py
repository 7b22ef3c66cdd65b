"""The HTTPS port, as the device sees it: one batch without a message in it.

Decides what the gate's answer says of the device's certificate, and tells its time. The batch is empty, so that nothing
is judged, counted or stored; for the same reason the answer does not say whether the records let the device in.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple

import h11
import msgspec
import trio

from fleetgate.doctor.certificate import clip
from fleetgate.doctor.clocks import check_clock
from fleetgate.doctor.findings import Check, Finding, good, wrong
from fleetgate.doctor.reach import ANSWER_SECONDS, MAX_ANSWER_BYTES, PORT, SESSION, Checks, Target, Trouble, connect
from fleetgate.doctor.tls import (
    HTTP,
    SETTLE_SECONDS,
    Means,
    Silent,
    TlsStream,
    hear_refusal,
    refused,
    secure,
    telling_refusals,
)

_EMPTY_BATCH = b"\x90"
_TYPE = "application/vnd.fleetgate.v1+msgpack"


async def examine_https(target: Target, means: Means, now_ms: Callable[[], int]) -> list[Check]:
    """The checks of `target`, up to the first that ends the way."""
    checks = Checks("HTTPS")
    with checks.to_the_end():
        answer = await _ask(target, means, checks)
        here_ms = now_ms()
        checks.add(_session(answer, target))
        if answer.gate_ms is not None and answer.status != HTTPStatus.NOT_FOUND:
            checks.add(check_clock(here_ms, answer.gate_ms))
    return checks.done


class _Answer(NamedTuple):
    """`gate_ms` is the time of its header Date, `detail` that of an RFC 9457 problem."""

    status: int
    gate_ms: int | None
    detail: str


async def _ask(target: Target, means: Means, checks: Checks) -> _Answer:
    """Raises Trouble."""
    for settle_s in SETTLE_SECONDS:
        checks.begin()
        with suppress(Silent):
            async with await connect(target) as stream:
                checks.good(PORT, f"{target}: it is open")
                tls = await secure(stream, target, means, HTTP)
                checks.server(verified=bool(means.cas))
                if await hear_refusal(tls, means, settle_s):
                    raise Trouble(SESSION, Finding.WRONG_PORT, f"{target}: TLS, but not HTTP")
                return await _post(tls, target, means)
    raise refused(None, means)


async def _post(tls: TlsStream, target: Target, means: Means) -> _Answer:
    """Raises Trouble, Silent."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER_BYTES)
    length = str(len(_EMPTY_BATCH))
    headers = {"host": str(target), "content-type": _TYPE, "content-length": length, "connection": "close"}
    request = http.send(h11.Request(method="POST", target="/v1/telemetry", headers=list(headers.items()))) or b""
    request += http.send(h11.Data(data=_EMPTY_BATCH)) or b""
    try:
        with telling_refusals(means), trio.fail_after(ANSWER_SECONDS):
            await tls.send_all(request)
            return await _read(tls, http)
    except trio.TooSlowError:
        what = f"{target}: no answer within {ANSWER_SECONDS:.0f} s"
        raise Trouble(SESSION, Finding.NO_ANSWER, what) from None
    except h11.RemoteProtocolError:
        raise Trouble(SESSION, Finding.WRONG_PORT, f"{target}: TLS, but its answer is not HTTP") from None


async def _read(tls: TlsStream, http: h11.Connection) -> _Answer:
    """Raises RemoteProtocolError, BrokenResourceError, Silent. Of the body at most 16 KiB are looked at."""
    status, date, content = 0, "", b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await tls.receive_some(4096)))
        elif isinstance(event, h11.Response):
            status = event.status_code
            date = next((value.decode("latin-1") for name, value in event.headers if name == b"date"), "")
        elif isinstance(event, h11.Data):
            content += event.data
        if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or len(content) > MAX_ANSWER_BYTES:
            return _Answer(status, _date(date), _detail(content))


class _Problem(msgspec.Struct):
    """Of RFC 9457, what helps a person."""

    detail: str = ""


def _detail(content: bytes) -> str:
    try:
        return clip(_decode(content).detail)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _session(answer: _Answer, target: Target) -> Check:
    name, refusal = f"HTTPS {SESSION}", f"the gate refuses the device: {answer.status} {answer.detail}"
    match answer.status:
        case HTTPStatus.ACCEPTED | HTTPStatus.TOO_MANY_REQUESTS:
            return good(name, "the gate takes the certificate; whether it lets the device in, --mqtt tells")
        case HTTPStatus.FORBIDDEN if answer.detail.startswith("certificate: "):
            return wrong(name, Finding.PROFILE, refusal)
        case HTTPStatus.FORBIDDEN:
            return wrong(name, Finding.CERTIFICATE_REFUSED, refusal)
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return wrong(name, Finding.GATE_NOT_READY, f"503 {answer.detail}")
        case _:
            return wrong(name, Finding.NOT_A_GATE, f"{target}: it answers {answer.status} to POST /v1/telemetry")


def _date(text: str) -> int | None:
    """Unix ms of a header Date."""
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError):
        return None


_decode = msgspec.json.Decoder(_Problem).decode
