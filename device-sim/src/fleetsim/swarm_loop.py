"""Decides how lanes share one epoll set: who is served in a turn, and what happens to a lane that fails.

A lane that the gate ends stays ended and is counted under what it said. Which lanes connect and when they send is the
swarm's (`swarm`); bytes are the lane's (`swarm_lane`).
"""

import select
from collections import Counter
from collections.abc import Callable

from fleetsim.swarm_lane import Lane, LaneError, Phase

MAX_EVENTS = 1024
# Handshake steps of one turn: 1 ms each, so that answers are read within 16 ms while a herd comes in.
MAX_SHAKES = 16
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class Loop:
    """`came_up` is told of each lane that went live, `answered` of each answer to what it sent: it may
    fire the lane, and raise OSError or LaneError to end it."""

    def __init__(self, came_up: Callable[[Lane], None], answered: Callable[[Lane, int], None]) -> None:
        self._came_up, self._answered = came_up, answered
        self._epoll = select.epoll()
        self._lanes: dict[int, Lane] = {}
        self.live = 0
        self.failed: Counter[str] = Counter()

    @property
    def on_their_way(self) -> int:
        """Lanes that are neither live nor ended."""
        return len(self._lanes) - self.live

    def dial(self, lane: Lane, address: tuple[str, int]) -> None:
        """Begin to connect. Raises OSError."""
        lane.dial(address)
        self._lanes[lane.fd] = lane
        self._epoll.register(lane.fd, _OUT)

    def drop(self, lane: Lane, phase: Phase) -> None:
        """Close a lane; one that is closed already stays as it is."""
        if self._lanes.pop(lane.fd, None) is None:
            return
        self.live -= lane.phase is Phase.LIVE
        lane.close(phase)  # which takes it out of the epoll set

    def close(self) -> None:
        """Nothing can be done with the loop after this."""
        self._epoll.close()

    def fire(self, lane: Lane, count: int, due_s: float) -> None:
        """Send the lane's next `count` requests; a lane that cannot is dropped."""
        try:
            lane.fire(count, due_s)
            if lane.out:
                self._epoll.modify(lane.fd, _IN | _OUT)
        except OSError as error:
            self._failed(lane, error)

    def turn(self, wait_s: float) -> None:
        """Serve what is ready, waiting so long for it."""
        shakes = 0
        lanes, answered = self._lanes, self._answered
        for fd, mask in self._epoll.poll(wait_s, MAX_EVENTS):
            lane = lanes[fd]
            try:
                if mask == _IN and lane.phase is Phase.LIVE:
                    if count := lane.take(lane.read()):
                        answered(lane, count)
                        if lane.out:
                            self._epoll.modify(fd, _IN | _OUT)
                elif lane.phase in (Phase.DIALLING, Phase.SHAKING):
                    shakes += 1
                    if shakes <= MAX_SHAKES:
                        self._shake(lane)
                else:
                    self._seldom(lane, mask)
            except BlockingIOError:
                continue
            except (OSError, ValueError, LaneError) as error:
                self._failed(lane, error)

    def _shake(self, lane: Lane) -> None:
        lane.shake()
        self._epoll.modify(lane.fd, _IN | _OUT if lane.out else _IN)
        if lane.phase is Phase.LIVE:
            self._live(lane)

    def _seldom(self, lane: Lane, mask: int) -> None:
        """CONNACK, and what a full socket buffer brings."""
        if mask & _OUT:
            lane.send(b"")
            if not lane.out:
                self._epoll.modify(lane.fd, _IN)
        if mask & ~_OUT:
            greeted = lane.phase is Phase.LIVE
            if count := lane.take(lane.read()):
                self._answered(lane, count)
                if lane.out:
                    self._epoll.modify(lane.fd, _IN | _OUT)
            if lane.phase is Phase.LIVE and not greeted:
                self._live(lane)

    def _live(self, lane: Lane) -> None:
        self.live += 1
        self._came_up(lane)

    def _failed(self, lane: Lane, error: Exception) -> None:
        self.failed[_label(error)] += 1
        self.drop(lane, Phase.ENDED)


def _label(error: Exception) -> str:
    if isinstance(error, LaneError):
        return str(error)
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or type(error).__name__)
