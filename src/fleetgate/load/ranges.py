"""Which sequence numbers a segment brought: what the gap ledger is made of.

Decides how numbers become ranges: runs without a hole, of one device, vehicle, epoch and outcome, computed from the
segment alone. Numbers that were refused behind step 3 of the judge are ranges too: the device used them, and what they
carried is not lost but refused. What was never received follows from all segments together, in the view `gaps`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetgate.spool.reader import Segment

OUTCOMES = ("accepted", "held", "refused")
REFUSED = OUTCOMES.index("refused")


class Received(NamedTuple):
    """The messages of a segment that could be opened, in arrays beside one another; `peer` is a ref of its peers."""

    peer: NDArray[np.int64]
    held: NDArray[np.bool_]
    epoch: NDArray[np.uint32]
    seq: NDArray[np.uint64]
    received_at: NDArray[np.int64]
    offset: NDArray[np.int64]


class Ranges(NamedTuple):
    """One entry for each range. `peer` is one of the device's in the segment, `outcome` an index into OUTCOMES;
    `offset` is that of the range's first record, and times are of its first and last receipt, in Unix ms."""

    peer: NDArray[np.int64]
    epoch: NDArray[np.uint32]
    first_seq: NDArray[np.uint64]
    last_seq: NDArray[np.uint64]
    outcome: NDArray[np.int64]
    reason: list[str]
    first_received_at: NDArray[np.int64]
    received_at: NDArray[np.int64]
    offset: NDArray[np.int64]


def ranges_of(segment: Segment, received: Received) -> Ranges:
    """Those of the messages, then those of the refusals as the edge recorded them."""
    runs, refused = _runs(segment, received), _refused(segment)
    return Ranges(
        np.concatenate([runs.peer, refused.peer]),
        np.concatenate([runs.epoch, refused.epoch]),
        np.concatenate([runs.first_seq, refused.first_seq]),
        np.concatenate([runs.last_seq, refused.last_seq]),
        np.concatenate([runs.outcome, refused.outcome]),
        [*runs.reason, *refused.reason],
        np.concatenate([runs.first_received_at, refused.first_received_at]),
        np.concatenate([runs.received_at, refused.received_at]),
        np.concatenate([runs.offset, refused.offset]),
    )


def _runs(segment: Segment, received: Received) -> Ranges:
    device = _device_of_peer(segment)[received.peer]
    # A key that holds all but the number: two keys are sorted by instead of four.
    key = (device << 33) | (received.held.astype(np.int64) << 32) | received.epoch
    seq = received.seq.astype(np.int64)  # below 2^63 (schemas/envelope.md)
    order = np.lexsort((seq, key))
    key, seq = key[order], seq[order]
    start = np.flatnonzero(np.append(True, (key[1:] != key[:-1]) | (seq[1:] > seq[:-1] + 1))[: len(seq)])
    last = np.append(start[1:], len(seq))[: len(start)] - 1
    received_at, first = received.received_at[order], order[start]
    return Ranges(
        received.peer[first],
        received.epoch[first],
        seq[start].astype(np.uint64),
        seq[last].astype(np.uint64),
        received.held[first].astype(np.int64),
        [""] * len(start),
        np.minimum.reduceat(received_at, start) if len(start) else received_at,
        np.maximum.reduceat(received_at, start) if len(start) else received_at,
        np.minimum.reduceat(received.offset[order], start) if len(start) else received.offset,
    )


def _device_of_peer(segment: Segment) -> NDArray[np.int64]:
    """For each peer ref the same number for the same device in the same vehicle: a device comes by many connections."""
    devices: dict[tuple[str, str, str], int] = {}
    numbers = np.zeros(max(segment.peers, default=0) + 1, np.int64)
    for ref, peer in segment.peers.items():
        numbers[ref] = devices.setdefault((peer.tenant, peer.device_id, peer.vehicle_id), len(devices))
    return numbers


def _refused(segment: Segment) -> Ranges:
    found = [
        (offset, record, numbers)
        for offset, record in segment.rejections
        if record.peer in segment.peers
        for numbers in record.ranges
    ]
    numbers = np.array([numbers for _, _, numbers in found], np.uint64).reshape(-1, 3)
    return Ranges(
        np.array([record.peer for _, record, _ in found], np.int64),
        numbers[:, 0].astype(np.uint32),
        numbers[:, 1],
        numbers[:, 2],
        np.full(len(found), REFUSED, np.int64),
        [record.reason for _, record, _ in found],
        np.array([record.first_at for _, record, _ in found], np.int64),
        np.array([record.last_at for _, record, _ in found], np.int64),
        np.array([offset for offset, _, _ in found], np.int64),
    )
