"""Places where a test ends this process as kill -9 would: between steps that leave something on a disk.

Between those of edge, load and signer that acknowledged messages, the chain or a signature rest on. There are none
inside the replacement of a file but the cursor's, which is one step by the rules of the file system (a new file, its
sync, a rename), none between the pieces of an insert that was cut (`load.isolation`), and none in the commands of
people.

A production start has none of them. FLEETGATE_TEST_FAULT="commit.synced,3" (the third time it gets there) is refused
unless the configuration says `testing = true`. Called once for each commit, segment or insert, never for a message: a
comparison of two short strings, 0.03 us, where a commit takes 100 and more. tests/faults kills at each of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from fleetgate.errors import ConfigError

VARIABLE = "FLEETGATE_TEST_FAULT"

EDGE_POINTS: Mapping[str, str] = {
    "append.claimed": "messages are judged and their numbers claimed in memory; nothing of them is written",
    "commit.written": "the batch is written, and not synced",
    "commit.synced": "the batch is on disk, and nobody was told",
    "ack.sent": "the answers of a turn are handed to their sockets",
    "ack.https": "the items of a request are on disk, and its answer is not sent",
    "open.created": "a new segment's file is there, without its header",
    "seal.begun": "a segment is about to get its footer",
    "seal.footer": "the footer is on disk, under the name of a live segment",
    "seal.renamed": "the segment has its sealed name, and the directory is not synced",
    "checkpoint.begun": "a position is chosen, and no device is saved",
    "checkpoint.saved": "some devices are saved, and not synced; the position is the old one",
    "checkpoint.advanced": "the position is durable",
    "delete.begun": "segments behind cursor and checkpoint are about to go",
    "delete.one": "the first of them is gone",
    "recover.footer": "at a start: what was left open is cut and has its footer",
    "recover.sealed": "at a start: it has its sealed name",
    "recover.replayed": "at a start: the windows are rebuilt, and no door is open",
}
LOAD_POINTS: Mapping[str, str] = {
    "load.read": "a segment is read, and nothing is done with it",
    "load.transitions": "its transitions are known to control",
    "park.kept": "a damaged one is kept in `parked/`, the reason is not beside it, and nothing of it is inserted",
    "insert.events": "its rows are in `events` and the rollups, and nowhere else",
    "insert.held_events": "and in `held_events`",
    "insert.rejections": "and in `rejections`",
    "insert.raw_messages": "and in `raw_messages`",
    "insert.received_ranges": "and in `received_ranges`",
    "insert.pulses": "and in `pulses`",
    "chain.remembered": "its place in the chain is in chain.json, and its row is not inserted",
    "insert.segments": "its row in `segments` says that it is loaded",
    "cursor.synced": "the new cursor is on disk, under another name",
    "cursor.written": "the cursor stands on the segment",
    "release.begun": "held events of some segments are found that a decision released, and none of them is moved",
    "release.copied": "those of one segment are in `events` and the rollups, and `releases` does not say so",
    "release.noted": "`releases` says how far it is",
}
SIGNER_POINTS: Mapping[str, str] = {
    "sign.logged": "a signature is in its log, and not counted",
    "sign.counted": "and counted, and nobody was told",
}
"""By name, in the order of the road: what is so when the process ends there."""

_armed = ""
_passes_left = 0


def arm(testing: bool) -> None:
    """Takes the point from the environment. Raises ConfigError for one in production, or one that is not known."""
    global _armed, _passes_left
    setting = os.environ.get(VARIABLE)
    if setting is None:
        return
    if not testing:
        raise ConfigError(f"{VARIABLE} is set, but the configuration does not say `testing = true`: unset the variable")
    name, _, times = setting.partition(",")
    if not any(name in points for points in (EDGE_POINTS, LOAD_POINTS, SIGNER_POINTS)):
        raise ConfigError(f"{VARIABLE}: there is no point {name!r}; see fleetgate.fault")
    if times and (not times.isdigit() or int(times) < 1):
        raise ConfigError(f'{VARIABLE} must be "<point>,<how many times it gets there, from 1>"')
    _armed, _passes_left = name, int(times or "1") - 1


def point(name: str) -> None:
    """Ends the process here, where a test asked for it."""
    if name == _armed:
        _strike()


def _strike() -> None:
    global _passes_left
    if _passes_left:
        _passes_left -= 1
    else:
        os.kill(os.getpid(), signal.SIGKILL)
