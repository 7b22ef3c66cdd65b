"""Decides what a lane of the swarm has in flight: requests prepared before the clock starts, and never sent again.

How bytes travel is `swarm_wire`'s. What is said and how answers are read is the protocol's (`swarm_mqtt`,
`swarm_https`); when a lane connects and when it may send, the loop's (`swarm`).
"""

from abc import abstractmethod
from collections import deque

from fleetsim.swarm_tally import Tally
from fleetsim.swarm_tls import Tls
from fleetsim.swarm_wire import Phase, Wire
from fleetsim.swarm_work import Work


class Lane(Wire):
    """One connection. `ready` are encrypted requests in their order, `flying` when each one in flight was due, in
    seconds: of a lane that ended, those that are never answered."""

    __slots__ = ("flying", "ready", "tally", "work")

    def __init__(self, tls: Tls, work: Work, tally: Tally) -> None:
        super().__init__(tls)
        self.work, self.tally = work, tally
        self.ready: deque[bytes] = deque()
        self.flying: deque[float] = deque()

    @abstractmethod
    def frames(self, count: int) -> list[bytes]:
        """Sign `count` more messages and frame them as requests."""

    def prepare(self, count: int) -> int:
        """Sign, frame and encrypt `count` more messages; how many bytes that made."""
        records = [self.seal(frame) for frame in self.frames(count)]
        self.ready.extend(records)
        return sum(map(len, records))

    def fire(self, count: int, due_s: float) -> None:
        """Send the next `count` prepared requests in one write; signs them now when they run out. Raises OSError."""
        ready = self.ready
        while len(ready) < count:
            self.prepare(count - len(ready))
        if count == 1:
            data = ready.popleft()
            self.flying.append(due_s)
        else:
            data = b"".join([ready.popleft() for _ in range(count)])
            self.flying.extend([due_s] * count)
        self.send(data)

    def close(self, phase: Phase) -> None:
        """Records of this session end with it."""
        super().close(phase)
        self.ready.clear()
        if phase is Phase.DOWN:
            self.flying.clear()
