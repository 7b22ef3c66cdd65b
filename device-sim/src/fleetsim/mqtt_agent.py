"""Decides how a device speaks MQTT 5: the reference agent, on aiomqtt.

aiomqtt keeps the connection; the answers are read from paho's callbacks below it, because aiomqtt drops the reason
code of a PUBACK and the properties of a CONNACK. For each connection there is a new client, so that paho never sends
anything again by itself: what is sent again is `core`'s to say.
"""

import asyncio
import logging
from typing import Any

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fleetsim.agent import Agent, log
from fleetsim.answers import from_puback
from fleetsim.clock import Clock
from fleetsim.commits import Committer
from fleetsim.core import DeviceCore
from fleetsim.outbox import Key
from fleetsim.renewer import Renewer

KEEP_ALIVE_S = 20
CONNECT_TIMEOUT_S = 10.0
# paho counts messages in flight too; `core` holds the gate's Receive Maximum, so paho's own count must not interfere.
_NO_LIMIT = 65_535

# paho logs every lost connection as an error; a device that loses its connection is an ordinary device.
_PAHO_LOG = logging.getLogger("fleetsim.paho")
_PAHO_LOG.setLevel(logging.CRITICAL)


def packet_overhead(topic: str) -> int:
    """Bytes of a PUBLISH around its payload: fixed header 5, topic 2 + n, packet id 2, property length 1."""
    return 10 + len(topic)


class MqttAgent(Agent):
    """A device over MQTT 5 and mutual TLS."""

    def __init__(
        self,
        core: DeviceCore,
        journal: Committer,
        clock: Clock,
        address: tuple[str, int],
        server_name: str,
        renewer: Renewer | None = None,
    ) -> None:
        super().__init__(core, journal, clock, server_name, renewer)
        self._address = address
        self._keys: dict[int, Key] = {}  # packet id -> message
        self._lost = False
        self._disconnect_code: int | None = None
        self._connack: Properties | None = None

    async def session(self) -> None:
        """Connect, send and listen until the connection ends or should end."""
        self._keys.clear()
        self._lost, self._disconnect_code, self._connack = False, None, None
        client = self._client()
        try:
            async with client:
                client._disconnected.add_done_callback(self._on_lost)
                self._greet()
                await self._serve(client)
        except MqttConnectError as error:
            code = error.rc.value if isinstance(error.rc, ReasonCode) else 0x80
            log.info("%s: refused at CONNECT with %#04x", self.core.bundle.name, code)
            self.core.refused_connection(code)
        except (aiomqtt.MqttError, OSError) as error:
            log.debug("%s: connection ended: %s", self.core.bundle.name, error)
            self.core.disconnected(self._disconnect_code)
        else:
            self.core.disconnected(self._disconnect_code)

    async def _serve(self, client: aiomqtt.Client) -> None:
        while not self._lost and not self.over:
            self.wake.clear()
            self.sign()
            while entry := self.core.take():
                info = client._client.publish(self.core.bundle.topic, entry.raw, qos=1)
                self._keys[info.mid] = entry.key
            self.sign()  # what take() had to give a new number
            if self.core.needs_clock and not self.core.in_flight:
                return  # the next CONNACK tells the time
            if self.core.pace.away_until_ms > self.clock.now_ms():
                return  # refused for good
            await self.until_woken(self.quiet_s())

    def _client(self) -> aiomqtt.Client:
        client = aiomqtt.Client(
            *self._address,
            identifier=self.core.bundle.device_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            keepalive=KEEP_ALIVE_S,
            timeout=CONNECT_TIMEOUT_S,
            max_inflight_messages=_NO_LIMIT,
            tls_context=self.context,
            logger=_PAHO_LOG,
        )
        paho = client._client
        on_connect, on_disconnect = paho.on_connect, paho.on_disconnect
        assert on_connect is not None
        assert on_disconnect is not None

        def connected(*args: Any) -> None:
            self._connack = args[4]
            on_connect(*args)

        def disconnected(*args: Any) -> None:
            flags, code = args[2], args[3]
            if flags.is_disconnect_packet_from_server:
                self._disconnect_code = code.value
            on_disconnect(*args)

        paho.on_connect, paho.on_disconnect, paho.on_publish = connected, disconnected, self._on_puback
        return client

    def _greet(self) -> None:
        said = dict(getattr(self._connack, "UserProperty", []))
        if said.get("now", "").isdecimal():
            self.core.told_time(int(said["now"]))
        epoch = said.get("epoch", "")
        self.core.connected(
            int(epoch) if epoch.isdecimal() else 0,
            getattr(self._connack, "ReceiveMaximum", None),
            getattr(self._connack, "MaximumPacketSize", None),
        )

    def _on_puback(self, _client: Any, _userdata: Any, mid: int, code: ReasonCode, properties: Properties) -> None:
        key = self._keys.pop(mid, None)
        if key is None:
            return
        reason = getattr(properties, "ReasonString", None)
        answer = from_puback(code.value, reason, getattr(properties, "UserProperty", None))
        if code.value >= 0x80:
            log.info("%s: message %s answered %s", self.core.bundle.name, key, answer.label)
        self.core.answered(key, answer)
        self.wake.set()

    def _on_lost(self, future: asyncio.Future[None]) -> None:
        if not future.cancelled():
            future.exception()  # looked at here, or asyncio complains that nobody did
        self._lost = True
        self.wake.set()
