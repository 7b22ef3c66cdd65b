"""The MQTT port, as the device sees it: a session that begins and ends at once, and no message.

Decides what the gate's CONNACK says of the device, and tells its time. A session begins, so that a session of the same
device that is live then ends, as by any second connection with its certificate; nothing else of the device is touched:
no number is used, no epoch begins, nothing is scored. Then it asks as a client of MQTT 3.1.1 would, which ends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import mqtt5
import trio

from fleetgate.doctor.certificate import clip
from fleetgate.doctor.clocks import check_clock
from fleetgate.doctor.connack import Connack, NotConnackError, read_connack
from fleetgate.doctor.findings import Check, Finding, cannot_tell, good, wrong
from fleetgate.doctor.reach import ANSWER_SECONDS, MAX_ANSWER_BYTES, PORT, SESSION, Checks, Target, Trouble, connect
from fleetgate.doctor.tls import (
    MQTT,
    SETTLE_SECONDS,
    Means,
    Silent,
    TlsStream,
    hear_refusal,
    refused,
    secure,
    telling_refusals,
)

_CONNECT_3_1_1 = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"  # clean session, 60 s, no client id
_UNACCEPTABLE_VERSION = 1
_REFUSALS = {
    "revoked": Finding.REVOKED,
    "suspended": Finding.SUSPENDED,
    "banned": Finding.BANNED,
    "unknown_device": Finding.UNKNOWN_DEVICE,
}


async def examine_mqtt(target: Target, means: Means, now_ms: Callable[[], int]) -> list[Check]:
    """The checks of `target`, up to the first that ends the way."""
    checks = Checks("MQTT")
    with checks.to_the_end():
        answer = await _ask(target, means, checks)
        here_ms = now_ms()
        if answer.code == 0 and "now" not in answer.told:
            raise Trouble(SESSION, Finding.NOT_A_GATE, f"{target}: a broker, but no fleetgate (it tells no time)")
        checks.add(_session(answer))
        if answer.told.get("now", "").isdecimal():
            checks.add(check_clock(here_ms, int(answer.told["now"][:15])))
        checks.add(await _on_3_1_1(target, means))
    return checks.done


async def _ask(target: Target, means: Means, checks: Checks) -> Connack:
    """The answer to a CONNECT of version 5. Raises Trouble."""
    hello = mqtt5.ConnectPacket("", clean_start=True).write()
    for settle_s in SETTLE_SECONDS:
        checks.begin()
        with suppress(Silent):
            answer = await _talk(target, means, hello, settle_s, checks)
            if answer.version == 5:
                return answer
            what = f"{target}: it answers MQTT 5 in the form of 3.1.1 (code {answer.code})"
            raise Trouble(SESSION, Finding.MQTT_3, what)
    if await _answers_3_1_1(target, means) is not None:
        raise Trouble(SESSION, Finding.MQTT_3, f"{target}: it closes on MQTT 5, and answers MQTT 3.1.1")
    raise refused(None, means)


async def _answers_3_1_1(target: Target, means: Means) -> int | None:
    """The return code for a client of MQTT 3.1.1; None where there is no answer of that version."""
    with suppress(Silent, Trouble):
        answer = await _talk(target, means, _CONNECT_3_1_1, 0, Checks("MQTT"))
        return answer.code if answer.version == 3 else None
    return None


async def _on_3_1_1(target: Target, means: Means) -> Check:
    """What a client is told that is not set to version 5: the usual first mistake."""
    if await _answers_3_1_1(target, means) == _UNACCEPTABLE_VERSION:
        return good("MQTT 3.1.1", "refused (code 1): set clients to version 5, as in `mosquitto_pub -V mqttv5`")
    return cannot_tell("MQTT 3.1.1", "there is no answer to it; the gate takes version 5 alone")


async def _talk(target: Target, means: Means, hello: bytes, settle_s: float, checks: Checks) -> Connack:
    """Says `hello` on a connection of its own. Raises Trouble, Silent."""
    async with await connect(target) as stream:
        checks.good(PORT, f"{target}: it is open")
        tls = await secure(stream, target, means, MQTT)
        checks.server(verified=bool(means.cas))
        answer = await _answer(tls, target, means, hello, settle_s)
        with trio.move_on_after(1), suppress(trio.BrokenResourceError):
            if answer == Connack(5, 0, answer.reason, answer.told):
                await tls.send_all(mqtt5.DisconnectPacket().write())
        return answer


async def _answer(tls: TlsStream, target: Target, means: Means, hello: bytes, settle_s: float) -> Connack:
    """Raises Trouble, Silent."""
    data = await hear_refusal(tls, means, settle_s)
    try:
        with telling_refusals(means), trio.fail_after(ANSWER_SECONDS):  # for all of it: it may come byte by byte
            await tls.send_all(hello)
            while (answer := read_connack(data)) is None:
                if len(data) > MAX_ANSWER_BYTES:
                    raise NotConnackError
                more = bytes(await tls.receive_some(4096))
                if not more:
                    raise Silent
                data += more
            return answer
    except trio.TooSlowError:
        what = f"{target}: no answer to CONNECT within {ANSWER_SECONDS:.0f} s"
        raise Trouble(SESSION, Finding.NO_ANSWER, what) from None
    except NotConnackError:
        finding = Finding.WRONG_PORT if data.startswith(b"HTTP/") else Finding.NOT_A_GATE
        what = "it speaks HTTPS, not MQTT" if finding is Finding.WRONG_PORT else "its answer to CONNECT is no CONNACK"
        raise Trouble(SESSION, finding, f"{target}: {what}") from None


def _session(answer: Connack) -> Check:
    reason = clip(answer.reason)
    match answer.code:
        case 0:
            epoch = clip(answer.told.get("epoch", "unknown"))
            return good(f"MQTT {SESSION}", f"the gate lets the device in; the highest epoch it has seen is {epoch}")
        case 0x88:
            return wrong(f"MQTT {SESSION}", Finding.GATE_NOT_READY, f"CONNACK 0x88: {reason}")
        case 0x84:
            return wrong(f"MQTT {SESSION}", Finding.NOT_A_GATE, f"CONNACK 0x84: it does not speak MQTT 5 ({reason})")
    finding = _REFUSALS.get(answer.reason, Finding.CERTIFICATE_REFUSED)
    if answer.reason.startswith("certificate: "):
        finding = Finding.ISSUER_NOT_ALLOWED if "speaks for" in answer.reason else Finding.PROFILE
    return wrong(f"MQTT {SESSION}", finding, f"the gate refuses the device: CONNACK {answer.code:#04x} {reason}")
