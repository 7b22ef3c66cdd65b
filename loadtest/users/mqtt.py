"""Decides how a vehicle speaks MQTT 5: pipelined QoS 1, a second greenlet that reads, a PUBACK for each message."""

from __future__ import annotations

import gevent
from gevent import Greenlet
from loadtest.clock import now_s
from loadtest.mqtt_link import LinkError, MqttLink
from loadtest.users.vehicle import Vehicle

from fleetsim.outbox import Key


class MqttVehicle(Vehicle):
    """One device over MQTT; the gate's Receive Maximum bounds what is in flight."""

    protocol = "MQTT"
    kind = "telemetry"
    _link: MqttLink | None = None
    _reader: Greenlet | None = None

    @property
    def connected(self) -> bool:
        return self._link is not None

    def connect(self) -> None:
        began_s = now_s()
        try:
            link = MqttLink(self.shared.plan.gate.mqtt, self.tls, self.lease.device.device_id)
        except LinkError as error:
            self.tell_connect(began_s, error.label)
            if error.refused and error.code is not None:
                self.core.refused_connection(error.code)
            else:
                self.core.disconnected()
            return
        self.tell_connect(began_s)
        said = link.greeting
        if "now" in said.user:
            self.core.told_time(float(said.user["now"]))
        self.core.connected(int(said.user.get("epoch", "0")), said.receive_maximum)
        self._link, self._flying = link, dict[int, Key]()
        self._reader = gevent.spawn(self._read, link, self._flying)

    def send(self) -> None:
        while (link := self._link) is not None and (entry := self.core.take()):
            try:
                # The id is known before the bytes go out: the answer may come while this is still writing.
                self._flying[link.next_id] = entry.key
                link.publish(self.lease.device.topic, entry.raw)
            except LinkError as error:
                self._lost(link, error)

    def _read(self, link: MqttLink, flying: dict[int, Key]) -> None:
        try:
            for packet_id, answer in link.answers():
                if (key := flying.pop(packet_id, None)) is None:
                    raise LinkError("answer_to_nothing")
                self.core.answered(key, answer)
                if self.waiting or self.core.open_messages > self.core.in_flight or not self.core.open_messages:
                    self.wake.set()
        except LinkError as error:
            self._lost(link, error)
        except Exception:
            self._lost(link, LinkError("reader_failed"))  # or the vehicle would go on, deaf
            raise

    def _lost(self, link: MqttLink, error: LinkError) -> None:
        """The gate or the road ended it; told once, whoever of the two greenlets saw it first."""
        if self._link is link:
            self._link = None
            self.core.disconnected(error.code)
            self.tell_loss(error.label)
            link.close()
            self.wake.set()

    def drop(self) -> None:
        if (link := self._link) is not None:
            self._link = None
            link.close()
            self.core.disconnected()

    def farewell(self) -> None:
        if (link := self._link) is not None:
            self._link = None
            link.goodbye()
