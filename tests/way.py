"""Somebody on the way between a car and the gate, without any credential: bytes that he cannot read, and time.

A `Way` forwards connections. What goes to the gate he may hold back and let go later, and he may cut the car's side
while the gate's stays open. Both listeners are reached through it (`tests.gate.Door`).
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Stretch:
    """One connection: the car's side, and the gate's."""

    def __init__(self, car: socket.socket, gate: socket.socket) -> None:
        self._car, self._gate = car, gate
        self._passes = threading.Event()
        self._passes.set()
        self.held = 0
        for carry in (self._to_gate, self._to_car):
            threading.Thread(target=carry, daemon=True).start()

    def _to_gate(self) -> None:
        with suppress(OSError):
            while data := self._car.recv(65_536):
                if not self._passes.is_set():
                    self.held += len(data)
                    self._passes.wait()
                self._gate.sendall(data)

    def _to_car(self) -> None:
        with suppress(OSError):
            while data := self._gate.recv(65_536):
                self._car.sendall(data)

    def hold(self) -> None:
        """From now on the gate hears nothing of the car."""
        self._passes.clear()

    def let_go(self) -> None:
        self._passes.set()

    def cut(self) -> None:
        """The car's connection breaks; the gate does not hear of it."""
        with suppress(OSError):
            self._car.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._passes.set()
        for side in (self._car, self._gate):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()


class Way:
    """To both ports of a gate; `stretches` in the order in which they began."""

    def __init__(self, mqtt_port: int, https_port: int) -> None:
        self.stretches: list[Stretch] = []
        self._listeners: list[socket.socket] = []
        self.mqtt_port = self._listen(mqtt_port)
        self.https_port = self._listen(https_port)

    def _listen(self, port: int) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, port), daemon=True).start()
        number: int = listener.getsockname()[1]
        return number

    def _accept(self, listener: socket.socket, port: int) -> None:
        with suppress(OSError):
            while True:
                car, _ = listener.accept()
                self.stretches.append(Stretch(car, socket.create_connection(("127.0.0.1", port), 10)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for stretch in self.stretches:
            stretch.close()
