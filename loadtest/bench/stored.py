"""Whether what was acknowledged is there: in the edge's spool, and in ClickHouse.

Decides what counts as there: an accepted message by its tenant, device, epoch and sequence number, each once. An edge
that answers and writes nothing, or writes one message twice, fails its case. Called outside the measured time.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from loadtest.bench.processes import BenchError

from fleetgate.load.clickhouse import ServerClickHouse
from fleetgate.spool.reader import read_segment, segment_paths

_ACCEPTED = 1


class _Named(msgspec.Struct, array_like=True, gc=False):
    """The first half of an envelope; the rest is skipped."""

    v: int
    kid: int
    epoch: int
    seq: int


_decode_named = msgspec.msgpack.Decoder(_Named).decode


class Spooled:
    """What stands in the sealed segments of a spool, `check` by `check`."""

    def __init__(self, spool: Path) -> None:
        self.segments = spool / "segments"
        self._after = 0

    def check(self, acknowledged: int) -> None:
        """Raises BenchError unless so many accepted messages have come since the last check, all different."""
        written = 0
        seen: dict[tuple[str, str], set[tuple[int, int]]] = {}
        for number, path in segment_paths(self.segments):
            if number > self._after:
                written += _read(path, seen)
                self._after = number
        different = sum(map(len, seen.values()))
        if not written == different == acknowledged:
            raise BenchError(
                f"{acknowledged} messages were acknowledged; in the spool are {written}, {different} of them different"
            )


def _read(path: Path, seen: dict[tuple[str, str], set[tuple[int, int]]]) -> int:
    """Adds (epoch, seq) of each accepted message to its device's in `seen`; how many messages there were."""
    segment = read_segment(path)
    if segment.damaged:
        raise BenchError(f"{path.name} is damaged: {segment.damaged[0]}")
    of_peer = {ref: seen.setdefault((peer.tenant, peer.device_id), set()) for ref, peer in segment.peers.items()}
    written = 0
    for message in segment.messages:
        if message.outcome == _ACCEPTED:
            named = _decode_named(message.raw)
            of_peer[message.peer].add((named.epoch, named.seq))
            written += 1
    return written


_COUNTED = "SELECT count(), uniqExact(tenant, device_id, epoch, seq) FROM"


def check_clickhouse(client: ServerClickHouse, messages: int, events: int) -> None:
    """Raises BenchError unless ClickHouse has so many messages, all different, and so many events of as many. Closes
    the client."""
    try:
        [raw] = client.rows(f"{_COUNTED} raw_messages WHERE outcome = 'accepted'")
        [rows] = client.rows(f"{_COUNTED} events")
    finally:
        client.close()
    found, different, stored, messages_of_events = (int(value) for value in (*raw, *rows))
    if (found, different, stored, messages_of_events) != (messages, messages, events, messages):
        raise BenchError(
            f"{messages} messages with {events} events were acknowledged; ClickHouse has {found} messages, {different} "
            f"of them different, and {stored} events of {messages_of_events} messages"
        )
