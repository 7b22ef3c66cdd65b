"""Decides how wires share one epoll set: who is served in a turn, and what happens to a wire that fails.

A wire that the gate ends stays ended and is counted under what it said. Which wires connect and when they send is
their owner's (`swarm`, `scenarios.world`); bytes are the wire's (`swarm_wire`).
"""

import select
from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from fleetsim.swarm_wire import LaneError, Phase, Wire

MAX_EVENTS = 1024
# Handshake steps of one turn: 1 ms each, so that answers are read within 16 ms while a herd comes in.
MAX_SHAKES = 16
W = TypeVar("W", bound=Wire)
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class Loop(Generic[W]):
    """`came_up` is told of each wire that went live, `answered` of each answer to what it sent: it may
    send on the wire, and raise OSError or LaneError to end it."""

    def __init__(self, came_up: Callable[[W], None], answered: Callable[[W, int], None]) -> None:
        self._came_up, self._answered = came_up, answered
        self._epoll = select.epoll()
        self._wires: dict[int, W] = {}
        self.live = 0
        self.failed: Counter[str] = Counter()

    @property
    def on_their_way(self) -> int:
        """Wires that are neither live nor ended."""
        return len(self._wires) - self.live

    def dial(self, wire: W, address: tuple[str, int]) -> None:
        """Begin to connect. Raises OSError."""
        wire.dial(address)
        self._wires[wire.fd] = wire
        self._epoll.register(wire.fd, _OUT)

    def drop(self, wire: W, phase: Phase) -> None:
        """Close a wire; one that is closed already stays as it is."""
        if self._wires.get(wire.fd) is not wire:
            return  # another one may have its descriptor by now
        del self._wires[wire.fd]
        self.live -= wire.phase is Phase.LIVE
        wire.close(phase)  # which takes it out of the epoll set

    def close(self) -> None:
        """Nothing can be done with the loop after this."""
        self._epoll.close()

    def attempt(self, wire: W, send: Callable[..., None], *arguments: Any) -> None:
        """Outside of a turn: have something sent on the wire; one that cannot is dropped."""
        try:
            send(*arguments)
            if wire.out:
                self._epoll.modify(wire.fd, _IN | _OUT)
        except OSError as error:
            self._failed(wire, error)

    def turn(self, wait_s: float) -> None:
        """Serve what is ready, waiting so long for it."""
        shakes = 0
        wires, answered = self._wires, self._answered
        for fd, mask in self._epoll.poll(wait_s, MAX_EVENTS):
            wire = wires[fd]
            try:
                if mask == _IN and wire.phase is Phase.LIVE:
                    if count := wire.take(wire.read()):
                        answered(wire, count)
                        if wire.out:
                            self._epoll.modify(fd, _IN | _OUT)
                elif wire.phase in (Phase.DIALLING, Phase.SHAKING):
                    shakes += 1
                    if shakes <= MAX_SHAKES:
                        self._shake(wire)
                else:
                    self._seldom(wire, mask)
            except BlockingIOError:
                continue
            except (OSError, ValueError, LaneError) as error:
                self._failed(wire, error)

    def _shake(self, wire: W) -> None:
        wire.shake()
        self._epoll.modify(wire.fd, _IN | _OUT if wire.out else _IN)
        if wire.phase is Phase.LIVE:
            self._live(wire)

    def _seldom(self, wire: W, mask: int) -> None:
        """CONNACK, and what a full socket buffer brings."""
        if mask & _OUT:
            wire.send(b"")
            if not wire.out:
                self._epoll.modify(wire.fd, _IN)
        if mask & ~_OUT:
            greeted = wire.phase is Phase.LIVE
            if count := wire.take(wire.read()):
                self._answered(wire, count)
                if wire.out:
                    self._epoll.modify(wire.fd, _IN | _OUT)
            if wire.phase is Phase.LIVE and not greeted:
                self._live(wire)

    def _live(self, wire: W) -> None:
        self.live += 1
        self._came_up(wire)

    def _failed(self, wire: W, error: Exception) -> None:
        self.failed[_label(error)] += 1
        self.drop(wire, Phase.ENDED)


def _label(error: Exception) -> str:
    if isinstance(error, LaneError):
        return str(error)
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or type(error).__name__)
