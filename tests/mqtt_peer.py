"""A vehicle's end of an MQTT connection, as the tests hold it: a blocking socket, no retry, no repair.

It does what a test says, also what no client should do. Reading has a deadline; a connection that ended shows in
`ended` with the packets that came before.
"""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Any, Self, TypeVar

import mqtt5

from tests.gate import Car, Door

DEADLINE_SECONDS = 10.0

T = TypeVar("T")


class Ended(Exception):
    """The gate closed the connection."""


class MqttPeer:
    """One connection of a car to the gate's MQTT listener, TLS done; `hello` makes it a session.

    `before_tls` is what a proxy would send first, and `source` the proxy's address.
    """

    def __init__(
        self,
        gate: Door,
        car: Car,
        context: ssl.SSLContext | None = None,
        buffer: int = 0,
        deadline_s: float = DEADLINE_SECONDS,
        source: str = "127.0.0.1",
        before_tls: bytes = b"",
    ) -> None:
        self.car = car
        plain = socket.socket()
        if buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plain.settimeout(deadline_s)
        try:
            plain.bind((source, 0))
            plain.connect(("127.0.0.1", gate.mqtt_port))
            plain.sendall(before_tls)
            self.sock = (context or car.context()).wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise
        self.epoch = -1
        self._buffer = b""
        self._packet_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def next(self) -> mqtt5.Packet:
        """The next packet. Raises Ended when there is none any more, TimeoutError at the deadline."""
        while True:
            try:
                packet, size = mqtt5.read(memoryview(self._buffer))
            except IndexError:
                self._receive()
                continue
            self._buffer = self._buffer[size:]
            return packet

    def _receive(self) -> None:
        try:
            data = self.sock.recv(65536)
        except (ConnectionError, ssl.SSLError) as error:
            raise Ended(str(error)) from None
        if not data:
            raise Ended("closed")
        self._buffer += data

    def packet(self, kind: type[T]) -> T:
        """The next packet, which must be of this kind."""
        packet = self.next()
        assert isinstance(packet, kind), packet
        return packet

    def rest(self) -> list[mqtt5.Packet]:
        """What still comes until the gate closes the connection."""
        packets = []
        try:
            while True:
                packets.append(self.next())
        except Ended:
            return packets

    def farewell(self) -> mqtt5.DisconnectPacket:
        """The DISCONNECT that the gate ends the session with."""
        last = self.rest()[-1]
        assert isinstance(last, mqtt5.DisconnectPacket), last
        return last

    def greet(self, client_id: str = "", **options: Any) -> mqtt5.ConnAckPacket:
        """Sends CONNECT; the CONNACK, whatever it says."""
        self.send(mqtt5.ConnectPacket(client_id, clean_start=True, **options).write())
        return self.packet(mqtt5.ConnAckPacket)

    def hello(self, keep_alive: int = 60) -> Self:
        """Begins a session; `epoch` is then one above the gate's."""
        welcome = self.greet(keep_alive=keep_alive)
        assert welcome.reason_code == 0, (welcome.reason_code, welcome.reason_str)
        self.epoch = int(dict(welcome.user_properties)["epoch"]) + 1
        return self

    def publish(self, raw: bytes, topic: str = "", qos: int = 1, packet_id: int = 0) -> int:
        """Sends one PUBLISH; its packet id (0 for QoS 0)."""
        if qos and not packet_id:
            packet_id = self._packet_id = self._packet_id % 65535 + 1
        self.send(publish_bytes(topic or self.car.topic, raw, qos, packet_id))
        return packet_id

    def ask(self, raw: bytes, topic: str = "") -> mqtt5.PubAckPacket:
        """Sends one message and waits for its acknowledgement."""
        packet_id = self.publish(raw, topic)
        ack = self.packet(mqtt5.PubAckPacket)
        assert ack.packet_id == packet_id
        return ack


def publish_bytes(topic: str, raw: bytes, qos: int = 1, packet_id: int = 1) -> bytes:
    identified = packet_id if qos else None
    return mqtt5.PublishPacket(topic, raw, qos=mqtt5.QoS(qos), packet_id=identified).write()


def told(ack: mqtt5.PubAckPacket) -> tuple[int, str | None]:
    """Code and Reason String of an acknowledgement."""
    return int(ack.reason_code), ack.reason_str
