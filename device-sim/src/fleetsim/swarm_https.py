"""Decides how a lane of the swarm speaks HTTPS: POSTs of many envelopes with keep-alive, one at a time.

A response counts only whole, and with as many items as were sent; each item counts apart. What an item means is
`answers`'.
"""

import time
from collections import Counter

import msgspec

from fleetsim import encode
from fleetsim.answers import ACCEPTED, HTTP_ITEMS, from_item
from fleetsim.https_agent import CONTENT_TYPES, PATH
from fleetsim.swarm_lane import Lane
from fleetsim.swarm_tally import Tally
from fleetsim.swarm_tls import Tls
from fleetsim.swarm_wire import LaneError
from fleetsim.swarm_work import Work

_now_s = time.perf_counter
_decode_items = msgspec.msgpack.Decoder(list[dict[str, str | int | None]]).decode


class HttpsLane(Lane):
    """`batch` envelopes in each request."""

    __slots__ = ("_buffer", "batch")

    def __init__(self, tls: Tls, work: Work, tally: Tally, batch: int) -> None:
        super().__init__(tls, work, tally)
        self.batch = batch
        self._buffer = b""

    def greet(self) -> bytes:
        self._buffer = b""
        return b""

    def frames(self, count: int) -> list[bytes]:
        envelopes = self.work.sign(-(-count // self.batch) * self.batch)
        return [self._request(envelopes[at : at + self.batch]) for at in range(0, len(envelopes), self.batch)]

    def _request(self, envelopes: list[bytes]) -> bytes:
        content = encode.batch(envelopes, "msgpack")
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: gate\r\nContent-Type: {CONTENT_TYPES['msgpack']}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content

    def take(self, data: bytes) -> int:
        data = self._buffer + data
        end_of_head = data.find(b"\r\n\r\n") + 4
        size = _content_length(data[:end_of_head]) if end_of_head > 3 else 0
        if end_of_head <= 3 or len(data) < end_of_head + size:
            self._buffer = data
            return 0
        self._buffer = data[end_of_head + size :]
        if not self.flying:
            raise LaneError("answer_to_nothing")
        labels = self._labels(int(data[9:12]), data[end_of_head : end_of_head + size])
        self.tally.latency.add(_now_s() - self.flying.popleft())
        self.tally.accepted += labels.pop(ACCEPTED, 0)
        self.tally.others += labels
        return 1

    def _labels(self, status: int, content: bytes) -> Counter[str]:
        """Answers by label. Raises LaneError, ValueError for a response that leaves open what was answered."""
        if status != HTTP_ITEMS:
            return Counter({f"http_{status}": self.batch})
        items = _decode_items(content)
        if len(items) != self.batch:
            raise LaneError("wrong_number_of_items")
        others = Counter(from_item(item).label for item in items if item.get("status") != ACCEPTED)
        return others + Counter({ACCEPTED: len(items) - others.total()})


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            return int(value)
    raise LaneError("no_content_length")
