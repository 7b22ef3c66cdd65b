"""One MQTT 5 connection without I/O: bytes in, bytes out, and what it asks of the loop.

Telemetry only: CONNECT, PUBLISH (QoS 0 and 1), PINGREQ, DISCONNECT; SUBSCRIBE is refused. The session's key is the
identity of the certificate; the client id must say the same or nothing. Decides the protocol; who may connect is the
registry's answer, what becomes of a message the intake's. Whatever the bytes, `feed` does not raise.
"""

from __future__ import annotations

from contextlib import suppress
from enum import Enum, auto
from typing import Protocol

import mqtt5
from mqtt5 import ConnAckReasonCode
from mqtt5 import DisconnectReasonCode as Code

from fleetgate.accept import packets
from fleetgate.accept.answers import ACCEPTED_PUBACK, connack_code, duplicate_puback, refusing_puback
from fleetgate.accept.intake import Intake
from fleetgate.accept.known import Caller
from fleetgate.accept.limits import Account, cost
from fleetgate.accept.packets import ProtocolError
from fleetgate.control.profile import CertificateIdentity
from fleetgate.judge import Outcome, Reason
from fleetgate.judge.envelope import open_envelope
from fleetgate.judge.verdict import Reject

RECEIVE_MAXIMUM = 128
QUOTA = "a limit that is shared with others is used up: come back later"
KEEP_ALIVE_FACTOR = 1.5  # 3.1.2.10
_UNACCEPTABLE_VERSION = b"\x20\x02\x00\x01"  # the CONNACK of MQTT 3.1.1, return code 1
_DUPLICATE = Outcome.DUPLICATE
_PINGRESP = mqtt5.PingRespPacket().write()


class Phase(Enum):
    """GREETING: nothing understood yet. IDENTIFYING: CONNECT is in, the registry is asked. LIVE: CONNACK is out.
    ENDED: nothing more is read; what is still to be sent says why."""

    GREETING = auto()
    IDENTIFYING = auto()
    LIVE = auto()
    ENDED = auto()


_READING = (Phase.LIVE, Phase.GREETING)


class Doorkeeper(Protocol):
    """What a session asks: who is this, and may a session begin (`door`)."""

    def identify(self, session: Session) -> None:
        """Asks the registry; calls `welcome` or `turn_away` of the session, now or later."""


class Session:
    """The protocol state of one connection.

    `out` is to be sent now, `acks` only after the next commit, and `farewell` behind both; when `phase` is ENDED the
    connection is closed once all of it is sent. `identity` is None where the certificate does not fit the profile
    (`profile_error` says why). `last_packet_s` and `keep_alive_s` are seconds. `decided_ms` is when a person decided
    what ended it, in Unix ms; 0 for any other end. `taken_over_ms` is when another session of the device took over
    (Unix ms), while it would be remarkable if more came; else 0. `newest_sent_at` is when the newest message of it was
    signed, by its own word. `handshake_s` is when its connection came and when its handshake was done, in the machine's
    monotonic seconds. While it is `slowed`, by its device's brake or by a limit that is shared with others, packets
    wait in the buffer until `feed` is called again.
    """

    __slots__ = (
        "_buffer", "_client_id", "_doorkeeper", "_intake", "_max_keep_alive_s", "_problem_info", "_profile_error",
        "acks", "address", "caller", "decided_ms", "ended_because", "farewell", "handshake_s", "identity",
        "keep_alive_s", "last_packet_s", "newest_sent_at", "out", "phase", "slowed", "taken_over_ms",
    )  # fmt: skip

    def __init__(
        self,
        identity: CertificateIdentity | None,
        profile_error: str,
        address: str,
        intake: Intake,
        doorkeeper: Doorkeeper,
        max_keep_alive_s: int,
        now_s: float,
        handshake_s: tuple[float, float],
    ) -> None:
        self.identity = identity
        self._profile_error = profile_error
        self.address = address
        self._intake = intake
        self._doorkeeper = doorkeeper
        self._max_keep_alive_s = max_keep_alive_s
        self._buffer = b""
        self._client_id = ""
        self._problem_info = True
        self.phase = Phase.GREETING
        self.caller: Caller | None = None
        self.out = bytearray()
        self.acks: list[bytes] = []
        self.keep_alive_s = max_keep_alive_s
        self.last_packet_s = now_s
        self.farewell = b""
        self.slowed = False
        self.ended_because = ""
        self.decided_ms = 0
        self.taken_over_ms = 0
        self.newest_sent_at = 0
        self.handshake_s = handshake_s

    def feed(self, data: bytes, now_ms: int, now_s: float) -> None:
        """Takes what the socket gave, and charges it to those with whom its device shares limits. Never raises for
        anything in it."""
        size, before = len(data), self._intake.sent("mqtt") if self._intake.limits.shares_sending else None
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        position = 0
        self.slowed = False
        try:
            while position < len(data) and self.phase in _READING:
                packet = packets.next_packet(data, position)
                if packet is None:
                    break
                first, start, position = packet
                self.last_packet_s = now_s
                if first >> 4 == packets.PUBLISH and self.caller is not None:
                    self._publish(self.caller, data, first & 15, start, position, now_ms, now_s)
                else:
                    self._other(data, first, start, position, now_s)
                if self.slowed or (self.caller is not None and self.caller.known.brake.until_s > now_s):
                    self.slowed = True
                    break
        except ProtocolError as error:
            self._break_off(error, now_ms)
        self._buffer = data[position:] if self.phase is not Phase.ENDED else b""
        if before is not None and self.caller is not None:
            self._intake.charge(self.caller, before, size, now_s)

    def overdue(self, now_s: float) -> bool:
        """Whether the client has been silent for one and a half keep-alives."""
        return now_s - self.last_packet_s > self.keep_alive_s * KEEP_ALIVE_FACTOR

    def give_way(self, newer: Session, now_ms: int) -> None:
        """Ends, as another session of the device takes over.

        That more comes is remarkable only where the newer connection came once this one's handshake was done. One that
        came before may be an earlier attempt of the same client, let go late by somebody on the way. What a client says
        can be held back; but it speaks only behind a handshake, which the gate must have begun by then.
        """
        if self.phase is Phase.LIVE and newer.handshake_s[0] > self.handshake_s[1]:
            self.taken_over_ms = now_ms
        self.end(Code.SESSION_TAKEN_OVER, "the device connected again")

    def feed_behind_the_end(self, data: bytes, now_ms: int, now_s: float) -> None:
        """Takes what came though another session has taken over: once it tells of another client. It takes from what
        the device may send, as before the end, and when nothing is left of that, nobody looks.

        When it came tells nothing, for anybody on the way can hold it back. When it was signed does: behind the
        takeover, and behind all that the newer session has brought, lest one clock that is ahead looks like two.
        """
        newer = self.caller.known.session if self.caller is not None else None
        if self.caller is None or newer is None or not self.taken_over_ms or not newer.newest_sent_at:
            return
        if _newest_sent_at(data, self.caller.known.account, now_s) > max(self.taken_over_ms, newer.newest_sent_at):
            self.taken_over_ms = 0
            self._intake.scores.overlapped(self.caller.known, now_ms)

    def end(self, code: Code, why: str) -> None:
        """Ends the session from our side, with a DISCONNECT if it had begun."""
        if self.phase is Phase.ENDED:
            return
        if self.phase is Phase.LIVE:
            self.farewell = mqtt5.DisconnectPacket(reason_code=code, reason_str=why).write()
        self.phase = Phase.ENDED
        self.ended_because = why
        self._buffer = b""

    # A PUBLISH: admit, judge, and keep the answer until it is true.

    def _publish(
        self, caller: Caller, data: bytes, flags: int, start: int, end: int, now_ms: int, now_s: float
    ) -> None:
        if flags & 6 and len(self.acks) >= RECEIVE_MAXIMUM:
            raise ProtocolError(Code.RECEIVE_MAX_EXCEEDED, f"more than {RECEIVE_MAXIMUM} unacknowledged messages")
        intake = self._intake
        if wait_s := caller.known.account.take(cost(end - start), end - start, now_s):
            caller.known.brake.limited(now_s, wait_s)
            packet_id = packets.packet_id_of(data, flags, start, end)
            intake.refuse_unseen(caller, Reason.RATE_LIMITED, now_ms)
            if packet_id:
                self.acks.append(refusing_puback(packet_id, Reason.RATE_LIMITED, 0, self._problem_info))
            return
        topic, qos, packet_id, payload = packets.open_publish(data, flags, start, end)
        verdict = intake.receive(caller, payload, topic, now_ms)
        if verdict.reason is None and verdict.envelope is not None and verdict.envelope.sent_at > self.newest_sent_at:
            self.newest_sent_at = verdict.envelope.sent_at
        if not qos:
            return
        if verdict.reason is not None:
            epoch = caller.peer.device.epoch
            self.acks.append(refusing_puback(packet_id, verdict.reason, epoch, self._problem_info))
        elif verdict.outcome is _DUPLICATE:
            self.acks.append(duplicate_puback(packet_id, self._problem_info))
        else:
            self.acks.append(ACCEPTED_PUBACK[packet_id])

    # Everything else.

    def _other(self, data: bytes, first: int, start: int, end: int, now_s: float) -> None:
        kind, flags = first >> 4, first & 15
        if self.phase is Phase.GREETING:
            if kind != packets.CONNECT:
                raise ProtocolError(Code.PROTOCOL_ERROR, "the first packet is not CONNECT")
            self._connect(data, flags, start, end)
        elif kind == packets.PINGREQ and not flags and start == end:
            self.out += _PINGRESP  # always: who waits for it would think that the gate is gone
            if self.caller is not None and (wait_s := self.caller.known.account.take(1, 2, now_s)):
                self.caller.known.brake.limited(now_s, wait_s)
        elif kind == packets.DISCONNECT:
            if end - start <= packets.MAX_CONNECT_BYTES:  # a larger one is dear, and ends it too
                packets.check_disconnect(data, flags, start, end)
            self.phase = Phase.ENDED
            self.ended_because = "the client disconnected"
        elif self.caller is not None and self.caller.known.account.take(cost(end - start), end - start, now_s):
            raise ProtocolError(Code.MESSAGE_RATE_TOO_HIGH, "this device sends too fast")
        elif kind == packets.SUBSCRIBE:
            packet_id, filters = packets.check_subscribe(data, flags, start, end)
            refused = [mqtt5.SubAckReasonCode.NOT_AUTHORIZED] * filters
            self.out += mqtt5.SubAckPacket(packet_id, refused).write()
        elif kind == packets.UNSUBSCRIBE:
            packet_id, filters = packets.check_unsubscribe(data, flags, start, end)
            self.out += mqtt5.UnsubAckPacket(
                packet_id, [mqtt5.UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED] * filters
            ).write()
        else:
            raise ProtocolError(Code.PROTOCOL_ERROR, f"packet type {kind} is not for this listener")

    def _connect(self, data: bytes, flags: int, start: int, end: int) -> None:
        level = packets.check_connect(data, flags, start, end)
        if level in (3, 4):
            self.out += _UNACCEPTABLE_VERSION
            self._finish("MQTT 3: this listener speaks version 5, older clients come through a broker")
            return
        if level != 5:
            self._refuse(ConnAckReasonCode.UNSUPPORTED_PROTOCOL_VERSION, "this listener speaks MQTT 5")
            return
        connect = self._decode_connect(data, start, end)
        self._client_id = connect.client_id
        self._problem_info = connect.request_problem_info
        self.keep_alive_s = min(connect.keep_alive or self._max_keep_alive_s, self._max_keep_alive_s)
        if self.identity is None:
            self.refuse_certificate(self._profile_error)
        elif connect.authentication_method is not None:
            self._refuse(ConnAckReasonCode.BAD_AUTHENTICATION_METHOD, "the certificate is the only authentication")
        elif connect.client_id not in ("", self.identity.device_id):
            self._refuse(ConnAckReasonCode.CLIENT_ID_NOT_VALID, "the client id is the device id or empty")
        elif connect.will is not None:
            self._refuse(ConnAckReasonCode.NOT_AUTHORIZED, "wills are not allowed: this listener is for telemetry only")
        else:
            self.phase = Phase.IDENTIFYING
            self._doorkeeper.identify(self)

    @staticmethod
    def _decode_connect(data: bytes, start: int, end: int) -> mqtt5.ConnectPacket:
        length = end - start
        header = b"\x10" + (bytes((length,)) if length < 128 else bytes((length & 127 | 128, length >> 7)))
        try:
            packet, _ = mqtt5.read(memoryview(header + data[start:end]))
        except (ValueError, IndexError):
            packet = None
        if not isinstance(packet, mqtt5.ConnectPacket):
            raise ProtocolError(Code.MALFORMED_PACKET, "CONNECT cannot be read")
        return packet

    def welcome(self, caller: Caller, now_ms: int, *, waits: bool = False) -> None:
        """The registry knows the device and nothing keeps it out: the session begins. `waits`: a limit that it shares
        with others is used up for now."""
        if self.phase is not Phase.IDENTIFYING:
            return
        self.caller = caller
        self.phase = Phase.LIVE
        device = caller.peer.device
        self.out += mqtt5.ConnAckPacket(
            session_expiry_interval=0,
            assigned_client_id=None if self._client_id else device.device_id,
            server_keep_alive=self.keep_alive_s,
            receive_max=RECEIVE_MAXIMUM,
            max_qos=mqtt5.QoS.AT_LEAST_ONCE,
            max_packet_size=packets.MAX_PACKET_BYTES,
            topic_alias_max=0,
            wildcard_subscription_available=False,
            subscription_id_available=False,
            shared_subscription_available=False,
            user_properties=[("now", str(now_ms)), ("epoch", str(device.epoch))],
        ).write()
        # A client need not wait for CONNACK (3.1.4): what it sent behind CONNECT has waited for the registry.
        self.slowed = waits
        if waits:
            self._intake.charge(caller, self._intake.sent("mqtt"), len(self._buffer), self.last_packet_s)
        else:
            data, self._buffer = self._buffer, b""
            self.feed(data, now_ms, self.last_packet_s)

    def turn_away(self, refusal: Reason | None) -> None:
        """The records keep the device out, or (None) nobody can say now: come back later."""
        if refusal is None:
            self._refuse(ConnAckReasonCode.SERVER_UNAVAILABLE, "come back later")
        else:
            self._refuse(connack_code(refusal), refusal.value)

    def slow_down(self) -> None:
        """The device, or those with whom it shares a limit, connect too often: later."""
        self._refuse(ConnAckReasonCode.CONNECTION_RATE_EXCEEDED, "too many connections: come back later")

    def refuse_for_quota(self) -> None:
        """What a session could send would not be read for long."""
        self._refuse(ConnAckReasonCode.QUOTA_EXCEEDED, QUOTA)

    def refuse_certificate(self, why: str) -> None:
        """The certificate names nobody; `why` is a sentence for whoever issued it."""
        self._refuse(ConnAckReasonCode.NOT_AUTHORIZED, f"certificate: {why}")

    def _refuse(self, code: ConnAckReasonCode, why: str) -> None:
        if self.phase is not Phase.ENDED:
            self.out += mqtt5.ConnAckPacket(reason_code=code, reason_str=why).write()
            self._finish(why)

    def _finish(self, why: str) -> None:
        self.phase = Phase.ENDED
        self.ended_because = why

    def _break_off(self, error: ProtocolError, now_ms: int) -> None:
        """Ends the connection for a protocol error; one that names an oversized packet is a refusal of its sender."""
        self._intake.counts.protocol_errors += 1
        if self.caller is not None and error.code is Code.PACKET_TOO_LARGE:
            self._intake.refuse_unseen(self.caller, Reason.OVERSIZED, now_ms)
        elif self.caller is not None and error.code is not Code.MESSAGE_RATE_TOO_HIGH:
            self._intake.scores.abused(self.caller.known, now_ms)
        self.end(error.code, str(error))


def _newest_sent_at(data: bytes, account: Account, now_s: float) -> int:
    """When the newest of the messages in `data` was signed (Unix ms), by the word of whoever ends TLS there; 0 where
    there is none. What is no packet, not whole, or more than `account` has left ends it."""
    newest = position = 0
    with suppress(ProtocolError, Reject):
        while (packet := packets.next_packet(data, position)) is not None:
            first, start, position = packet
            if account.take(cost(position - start), position - start, now_s):
                break
            if first >> 4 == packets.PUBLISH:
                payload = packets.open_publish(data, first & 15, start, position)[3]
                newest = max(newest, open_envelope(payload, json_allowed=False).sent_at)
    return newest
