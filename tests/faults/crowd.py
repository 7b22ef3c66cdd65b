"""A crowd of connections that never finish the handshake: `python -m tests.faults.crowd MQTT_PORT HTTPS_PORT COUNT`.

A process of its own, for it needs more file descriptors than a test has. Half of the connections say nothing, half have
sent a real ClientHello; they come from many addresses of 127.0.0.0/8, and whichever the gate ends is opened again, but
slowly: this is a crowd, and no race for the processor. Prints a line with how many are open once all of them have been,
and ends when its standard input does.
"""

from __future__ import annotations

import resource
import select
import socket
import ssl
import sys
import time
from collections import deque

PACE = 25  # new connections in one look, of which there are 40 a second
PACE_AGAIN = 2  # once all of them were there
LOOK_SECONDS = 0.025
SPARE_DESCRIPTORS = 64


def client_hello() -> bytes:
    """As a vehicle would begin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    out = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return out.read()
    raise AssertionError("a handshake without a peer")


class Crowd:
    def __init__(self, ports: list[int], count: int) -> None:
        self._ports = ports
        self._hello = client_hello()
        self._epoll = select.epoll()
        self._missing = deque(range(count))
        self.pace = PACE
        self.open: dict[int, tuple[socket.socket, int]] = {}

    def look(self) -> None:
        """Opens what is missing, lets go of what the gate ended."""
        for _ in range(min(self.pace, len(self._missing))):
            self._begin(self._missing.popleft())
        for descriptor, mask in self._epoll.poll(LOOK_SECONDS, 1024):
            sock, number = self.open[descriptor]
            if mask & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
                self._epoll.unregister(descriptor)
                del self.open[descriptor]
                sock.close()
                self._missing.append(number)
            elif mask & select.EPOLLOUT:
                self._epoll.modify(descriptor, select.EPOLLRDHUP)
                if number % 2:
                    sock.send(self._hello)

    def _begin(self, number: int) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((f"127.{1 + number % 4}.{1 + number // 4 % 200}.{1 + number // 800}", 0))
        sock.connect_ex(("127.0.0.1", self._ports[number // 2 % len(self._ports)]))
        self.open[sock.fileno()] = (sock, number)
        self._epoll.register(sock.fileno(), select.EPOLLOUT | select.EPOLLRDHUP)


def main() -> None:
    *ports, count = map(int, sys.argv[1:])
    wanted = count + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        sys.exit(f"{wanted} file descriptors are needed, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    crowd, looks = Crowd(ports, count), 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        began_s = time.monotonic()
        crowd.look()
        looks += 1
        if looks == count // PACE:
            print(len(crowd.open), flush=True)
            crowd.pace = PACE_AGAIN
        time.sleep(max(0.0, LOOK_SECONDS - (time.monotonic() - began_s)))


if __name__ == "__main__":
    main()
