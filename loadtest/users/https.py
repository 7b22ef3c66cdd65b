"""Decides how a vehicle speaks HTTPS: one request at a time on a connection that is kept, a result for each message.

Three kinds: `single`, a JSON envelope in each POST; `batch`, many MessagePack envelopes; `columns`, one envelope with
hundreds of rows. The schedule goes on while a request is out: what became due meanwhile follows, with its own time.
"""

from __future__ import annotations

import http.client
from email.utils import parsedate_to_datetime
from typing import ClassVar

import msgspec
from loadtest.clock import now_s
from loadtest.content import STYLES, StyleName
from loadtest.mqtt_link import LinkError, MqttLink
from loadtest.users.vehicle import Vehicle

from fleetsim import encode
from fleetsim.answers import HTTP_ITEMS, HTTP_LATER, HTTP_SPLIT
from fleetsim.https_agent import CONTENT_TYPES, DATE_MIDDLE_MS, DATE_TOLERANCE_MS, FULL_BATCH_BYTES, PATH, read_items
from fleetsim.outbox import Entry

TIMEOUT_S = 20.0
MAX_REQUEST_BYTES = 1024 * 1024


class HttpsVehicle(Vehicle):
    """One device over HTTPS; at most `most` messages in a request."""

    abstract = True
    protocol = "HTTPS"
    _road: http.client.HTTPSConnection | None = None

    @property
    def connected(self) -> bool:
        return self._road is not None

    @property
    def most(self) -> int:
        """Messages in a request."""
        return 1

    def connect(self) -> None:
        """TLS, and a HEAD: its Date sets the clock, without which nothing may be signed."""
        if not self.core.epoch and not self._ask_epoch():
            return
        began_s = now_s()
        road = http.client.HTTPSConnection(*self.shared.plan.gate.https, timeout=TIMEOUT_S, context=self.tls)
        try:
            road.request("HEAD", PATH)
            response = road.getresponse()
            response.read()
            self._hear_time(response)
        except (OSError, http.client.HTTPException) as error:
            road.close()
            self.core.disconnected()
            self.tell_connect(began_s, type(error).__name__)
            return
        self.tell_connect(began_s)
        self.core.connected(max_packet_bytes=MAX_REQUEST_BYTES)
        self._road = road

    def _ask_epoch(self) -> bool:
        """A real device keeps its epoch on disk; this one kept nothing of earlier runs, and would use numbers again
        that the gate has seen. Over HTTPS the gate does not say; over MQTT it does, to whoever connects. In the
        statistics it is the `epoch` of HTTPS, and no connection of its vehicles."""
        began_s = now_s()
        try:
            link = MqttLink(self.shared.plan.gate.mqtt, self.tls, self.lease.device.device_id)
        except LinkError as error:
            self.core.disconnected(error.code)
            self._tell("epoch", (now_s() - began_s) * 1000, error.label)
            return False
        link.goodbye()
        self._tell("epoch", (now_s() - began_s) * 1000, None)
        self.core.connected(int(link.greeting.user.get("epoch", "0")))
        return True

    def send(self) -> None:
        while self._road is not None and (batch := self._batch()):
            try:
                self._post(self._road, batch)
            except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
                self.tell_loss(type(error).__name__)
                self.drop()
            self.sign()

    def _batch(self) -> list[Entry]:
        batch: list[Entry] = []
        size, most = 0, min(self.most, self.core.batch_items)
        while len(batch) < most and size < FULL_BATCH_BYTES and (entry := self.core.take()):
            batch.append(entry)
            size += len(entry.raw) + 5
        return batch

    def _post(self, road: http.client.HTTPSConnection, batch: list[Entry]) -> None:
        form = STYLES[self.style].form
        content = encode.batch([entry.raw for entry in batch], form)
        road.request("POST", PATH, content, {"Content-Type": CONTENT_TYPES[form]})
        response = road.getresponse()
        said = response.read()
        keys = [entry.key for entry in batch]
        if response.status == HTTP_ITEMS:
            answers = read_items(said, form)
            if len(answers) != len(batch):
                raise http.client.HTTPException(f"{len(answers)} results for {len(batch)} envelopes")
            for key, answer in zip(keys, answers, strict=True):
                self.core.answered(key, answer)
        elif response.status == HTTP_SPLIT:
            self.core.too_large(keys)
        elif response.status in HTTP_LATER:
            self.book.put_off(keys)
            after = response.headers.get("Retry-After", "")
            self.core.not_now(keys, float(after) if after.isdecimal() else None)
        else:
            raise http.client.HTTPException(f"HTTP {response.status}")

    def _hear_time(self, response: http.client.HTTPResponse) -> None:
        date = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
        self.core.told_time(date * 1000 + DATE_MIDDLE_MS, DATE_TOLERANCE_MS)

    def drop(self) -> None:
        if self._road is not None:
            self._road.close()
            self._road = None
            self.core.disconnected()

    def farewell(self) -> None:
        if self._road is not None:
            self._road.close()
            self._road = None


class HttpsSingle(HttpsVehicle):
    """Each message in a request of its own, in JSON."""

    kind = "single"
    style: ClassVar[StyleName] = "json"


class HttpsBatch(HttpsVehicle):
    """`batch` messages are due at once, and go out in one request."""

    kind = "batch"

    @property
    def every(self) -> int:
        return self.shared.scenario.traffic.batch

    @property
    def shots(self) -> tuple[int, int]:
        return self.every, self.shared.scenario.traffic.events

    @property
    def most(self) -> int:
        return self.every


class HttpsColumns(HttpsVehicle):
    """As often as a batch, one message of many rows."""

    kind = "columns"
    style: ClassVar[StyleName] = "columns"

    @property
    def every(self) -> int:
        return self.shared.scenario.traffic.batch

    @property
    def shots(self) -> tuple[int, int]:
        return 1, self.shared.scenario.traffic.rows
