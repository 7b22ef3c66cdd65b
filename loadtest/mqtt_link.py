"""Decides how one MQTT 5 session over mutual TLS moves: QoS 1 PUBLISH out, answers in, packet ids between.

Blocking calls on a plain socket; in locust's process they are gevent's, and one greenlet may read while another writes.
What an answer means is `fleetsim.answers`'; what to send, the core's.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

from fleetsim.answers import Answer, from_puback
from fleetsim.attackers.wire import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    Properties,
    connect_packet,
    publish_packet,
    read_properties,
)
from fleetsim.swarm_mqtt import extent

KEEP_ALIVE_S = 0xFFFF  # the gate's own maximum decides; a vehicle of a load test always has something to say before
TIMEOUT_S = 20.0
READ_BYTES = 16_384
_REFUSES = 0x80
_LAST_ID = 65_535


class LinkError(Exception):
    """The session ended or did not begin. `code` is the gate's, of CONNACK (`refused`) or DISCONNECT; None without."""

    def __init__(self, label: str, code: int | None = None, *, refused: bool = False) -> None:
        super().__init__(label)
        self.label, self.code, self.refused = label, code, refused


class MqttLink:
    """A session from its CONNACK to its end."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, client_id: str) -> None:
        """Connects; returns once the gate has said yes. Raises LinkError."""
        self._buffer = b""
        self._last_id = 0
        try:
            plain = socket.create_connection(address, TIMEOUT_S)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self._socket = context.wrap_socket(plain)
            except BaseException:
                plain.close()
                raise
        except OSError as error:
            raise LinkError(_reason(error)) from None
        try:
            self.greeting = self._greet(client_id)
        except BaseException:
            self.close()
            raise

    def _greet(self, client_id: str) -> Properties:
        self._write(connect_packet(client_id, KEEP_ALIVE_S))
        for kind, body in self._packets():
            if kind != CONNACK or len(body) < 2:
                raise LinkError("not_a_connack")
            if body[1] >= _REFUSES:
                raise LinkError(f"connack_{body[1]:#04x}", body[1], refused=True)
            self._socket.settimeout(None)  # silence is no fault from now on: a vehicle may have nothing to say
            return read_properties(body[2:])
        raise LinkError("closed")

    @property
    def next_id(self) -> int:
        """The packet id of the next PUBLISH. At most 128 are in flight: none of them has it."""
        return self._last_id % _LAST_ID + 1

    def publish(self, topic: str, payload: bytes) -> None:
        """Sends a PUBLISH. Raises LinkError."""
        self._last_id = self.next_id
        self._write(publish_packet(topic, payload, self._last_id))

    def answers(self) -> Iterator[tuple[int, Answer]]:
        """(packet id, answer) of PUBACKs as they come, until the session ends. Raises LinkError."""
        for kind, body in self._packets():
            if kind == PUBACK and len(body) >= 2:
                said = read_properties(body[3:])
                code = body[2] if len(body) > 2 else 0
                yield int.from_bytes(body[:2], "big"), from_puback(code, said.reason, said.user.items())
            elif kind == DISCONNECT:
                code = body[0] if body else 0
                raise LinkError(f"disconnect_{code:#04x}", code)
            else:
                raise LinkError("answer_to_nothing")
        raise LinkError("closed")

    def close(self) -> None:
        """Drops the connection without a goodbye, as a vehicle does in a tunnel."""
        self._socket.close()

    def goodbye(self) -> None:
        """DISCONNECT, and the end."""
        with contextlib.suppress(LinkError):  # it may have ended already
            self._write(b"\xe0\x00")
        self.close()

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (OSError, ValueError) as error:
            raise LinkError(_reason(error)) from None

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        """(type, what follows the fixed header) of each packet, until the other side closes."""
        while True:
            data, at = self._buffer, 0
            while at < len(data):
                start, end = extent(data, at)
                if end > len(data):
                    break
                kind, body = data[at] >> 4, data[start:end]
                at = end
                self._buffer = data[at:]
                yield kind, body
            try:
                more = self._socket.recv(READ_BYTES)
            except (OSError, ValueError) as error:
                raise LinkError(_reason(error)) from None
            if not more:
                return
            self._buffer += more


def _reason(error: Exception) -> str:
    """A label for counting: few different ones, and nothing of a vehicle in it."""
    if isinstance(error, ssl.SSLError):
        return f"tls_{(error.reason or 'error').lower()}"
    return type(error).__name__
