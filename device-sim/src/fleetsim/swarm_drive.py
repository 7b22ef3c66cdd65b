"""Decides what the vehicles of a swarm say while they drive: each its own readings, at the moment it is asked.

All live in the arrays of `drive`, which move on once a second: 13 ms for 10,000. Each sends at its turn whatever it
does, so that the load is the one that was asked for: who sleeps or is in a tunnel is the load test's to decide.
"""

from fleetsim.drive import Fleet
from fleetsim.encode import ROWS_MSGPACK, Body, Event, Name, encode_body
from fleetsim.signals import BY_PATH
from fleetsim.swarm_work import Content

STEP_MS = 1_000
_TROUBLE_CODES = BY_PATH["Vehicle.OBD.DTCList"].number


class DrivingFleet:
    """`vehicles` vehicles from `start_ms` (Unix milliseconds, of the gate) on."""

    enc = ROWS_MSGPACK

    def __init__(self, vehicles: int, start_ms: int, seed: int) -> None:
        self._fleet = Fleet(vehicles, start_ms, seed)
        self._software = self._fleet.software

    def content(self, index: int) -> Content:
        """What one of them says, in one event."""

        def says(seq: int, sent_at: int) -> bytes:
            self._move(sent_at)
            return self._say(index, sent_at)

        return says

    def _move(self, now_ms: int) -> None:
        if now_ms - self._fleet.now_ms >= STEP_MS:
            self._fleet.advance(now_ms)
            self._software = self._fleet.software

    def _say(self, index: int, sent_at: int) -> bytes:
        fleet = self._fleet
        # Devices' clocks differ by milliseconds, and an event is never from behind its message.
        at = min(0, int(fleet.now_ms) - sent_at)
        codes = fleet.faults(index)
        texts: dict[Name, str] = {_TROUBLE_CODES: ",".join(codes)} if codes else {}
        event = Event(at, "sample", dict[Name, float](fleet.readings(index).items()), texts)
        return encode_body(self.enc, Body(self._software[index], fleet.config[index], [event]))
