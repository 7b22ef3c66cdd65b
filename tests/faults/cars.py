"""One car of the fault suite: it sends what it signed until it has an answer, whatever happens to the gate.

A car keeps its unanswered messages as a real unit does: the same bytes go out again on the next connection, in the
order of their numbers, before anything new. Besides it does what the protocol allows and a gate must stand: numbers
out of order within a burst, the same bytes twice, bytes again that were acknowledged long ago, an epoch more after a
reconnect. Decides what is sent and when; whether the answers were right is the oracle's to say.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

import httpx
import mqtt5
import msgspec

from tests.faults import speech
from tests.faults.journal import HONEST, Answer, Journal, Message, Send
from tests.gate import Car, Gate, now_ms
from tests.http_peer import JSON, MSGPACK, HttpPeer
from tests.http_peer import told as told_item
from tests.mqtt_peer import Ended, MqttPeer, publish_bytes, told

DEADLINE_SECONDS = 3.0  # of one read; then the car takes the connection for dead
RETRY_SECONDS = 0.1
MOST_UNANSWERED = 64
MOST_AT_ONCE = 16  # of older messages, when they go out again
REMEMBERED = 60  # acknowledged messages that may be sent once more
STORED = ("accepted", "duplicate")
COME_BACK = (0x88, 0x89)  # CONNACK: not now

Shot = tuple[Message, str]
"""A message and the topic it goes to; the topic is empty for the car's own, and over HTTPS."""


class Driver(ABC):
    """Drives `car` from a thread of its own until `finish`, and then on until nothing is unanswered."""

    transport: str

    def __init__(self, gate: Gate, car: Car, journal: Journal, rng: random.Random) -> None:
        self.car = car
        self.name = f"{car.tenant}/{car.device_id}"
        self.trouble: deque[str] = deque(maxlen=3)
        self.unanswered: dict[tuple[int, int], Message] = {}
        self.acknowledged = 0
        self.fresh = 0  # acknowledged, of those signed after `mark`
        self.duplicates = self.refused = 0
        self.plain = False
        self._mark = 0
        self._gate = gate
        self._journal = journal
        self._rng = rng
        self._epoch = 1
        self._next_seq = 0
        self._remembered: deque[Message] = deque(maxlen=REMEMBERED)
        self._finishing = threading.Event()
        self._given_up = threading.Event()
        self._paused = threading.Event()
        self._renewal: tuple[int, bytes] | None = None
        self._renewed_at = 0
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    # What the fleet says to it.

    def start(self) -> None:
        self._thread.start()

    def mark(self) -> None:
        """Counts `fresh` from here."""
        self._mark, self.fresh = self._journal.number(), 0

    def finish(self) -> None:
        self._finishing.set()

    def pause(self, paused: bool) -> None:
        """Sends nothing from the next burst on, until it is told to go on."""
        (self._paused.set if paused else self._paused.clear)()

    def renew(self, kid: int, key: bytes) -> None:
        """Signs with this MAC key from its next burst on."""
        self._renewal = (kid, key)

    @property
    def renewed(self) -> bool:
        """Whether it does, and nothing that it signed before is without an answer."""
        open_now = list(self.unanswered.values())
        return self._renewal is None and all(message.number > self._renewed_at for message in open_now)

    def join(self, seconds: float) -> None:
        """Waits for the end; after `seconds` the car gives up, and what is unanswered stays so."""
        if self._thread.ident is None:
            return  # it was never started
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._given_up.set()
            self._thread.join(DEADLINE_SECONDS * 3)

    # Its life.

    def _run(self) -> None:
        try:
            while not self._done:
                self._rest()
                with contextlib.suppress(Ended, OSError, EOFError, httpx.HTTPError, msgspec.MsgspecError):
                    self._session()  # the gate is away or went: the same bytes again on the next connection
                if not self._done:
                    time.sleep(RETRY_SECONDS * (0.5 + self._rng.random()))
                    self._perhaps_restart()
        except Exception:  # told at the end, by the oracle: nothing goes wrong unseen in a thread
            self.trouble.append(f"{self.name}: {traceback.format_exc()}")

    def _rest(self) -> None:
        """Waits while it is paused; what is in its sockets lies there. Then takes its new key, if it has one."""
        while self._paused.is_set() and not self._finishing.is_set() and not self._given_up.is_set():
            time.sleep(RETRY_SECONDS)
        if self._renewal is not None:
            self.car.kid, self.car.key = self._renewal
            self._remembered.clear()  # what was signed with the former key is not sent again
            self._renewed_at, self._renewal = self._journal.number(), None

    @abstractmethod
    def _session(self) -> None:
        """One connection, from its beginning to its end."""

    @property
    def _done(self) -> bool:
        return self._given_up.is_set() or (self._finishing.is_set() and not self.unanswered)

    def _perhaps_restart(self) -> None:
        """A unit that restarts opens an epoch; what it had kept goes out first, as it was."""
        if self._rng.random() < 0.15:
            self._epoch, self._next_seq = self._epoch + 1, 0

    # What it says.

    def _signed(self, kind: str = HONEST, **given: object) -> Message:
        """A message, in the journal; an honest one takes the next number. `given` as `Car.sign` takes it."""
        enc, content = speech.body(self._rng)
        epoch, seq = self._epoch, self._next_seq
        if kind == HONEST:
            self._next_seq += 1
        facts = {"epoch": epoch, "seq": seq, "enc": enc, "body": content, "sent_at": now_ms()} | given
        return self._written(kind, int(str(facts["epoch"])), int(str(facts["seq"])), self._sign(facts))

    def _sign(self, facts: dict[str, object]) -> bytes:
        return self.car.sign(**facts)  # type: ignore[arg-type]  # as `elements` takes them

    def _written(self, kind: str, epoch: int, seq: int, raw: bytes) -> Message:
        car = self.car
        message = Message(self._journal.number(), car.tenant, car.device_id, car.vehicle_id, kind, epoch, seq, raw)
        self._journal.write(message)
        return message

    def _burst(self, most: int) -> list[Shot]:
        """New messages, sometimes out of order, sometimes twice, sometimes with an old one among them."""
        rng, room = self._rng, MOST_UNANSWERED - len(self.unanswered)
        new = [self._signed() for _ in range(min(rng.randint(1, most), room))]
        self.unanswered |= {(message.epoch, message.seq): message for message in new}
        if rng.random() < 0.25:
            rng.shuffle(new)
        if new and rng.random() < 0.1:
            new.append(rng.choice(new))
        if self._remembered and rng.random() < 0.3:
            new.insert(rng.randint(0, len(new)), rng.choice(self._remembered))
        return [(message, "") for message in new]

    def early(self) -> Shot:
        """From the future: refused, and not held against anybody."""
        return self._signed("clock_ahead", sent_at=now_ms() + 600_000), ""

    def _older(self) -> list[Shot]:
        """What is unanswered from before, in the order of its numbers."""
        return [(self.unanswered[key], "") for key in sorted(self.unanswered)]

    # What it writes down.

    def _sends(self, shots: Sequence[Shot]) -> list[Send]:
        """On disk when it returns; only then may they go out."""
        at = now_ms()
        sends = [Send(self._journal.number(), message.number, self.transport, at) for message, _ in shots]
        self._journal.write(*sends)
        return sends

    def _heard(self, send: Send, message: Message, label: str) -> None:
        self._journal.write(Answer(send.number, label, now_ms()))
        self.duplicates += label == "duplicate"
        self.refused += label == message.kind
        if message.kind != HONEST or label in ("rate_limited", "http_503"):
            return
        was_open = self.unanswered.pop((message.epoch, message.seq), None) is not None
        if label in STORED and was_open:
            if message.number > self._renewed_at:
                self._remembered.append(message)
            self.acknowledged += 1
            self.fresh += message.number > self._mark


class MqttDriver(Driver):
    """MQTT 5, QoS 1, several messages in flight."""

    transport = "mqtt"
    pause_s = 0.15
    most = 6

    def _session(self) -> None:
        with MqttPeer(self._gate, self.car, deadline_s=DEADLINE_SECONDS) as peer:
            self._greet(peer)
            in_flight: dict[int, tuple[Send, Message]] = {}
            older = self._older()
            while older:
                self._send(peer, in_flight, older[:MOST_AT_ONCE])
                self._listen(peer, in_flight, 0)
                del older[:MOST_AT_ONCE]
            while not self._finishing.is_set() and not self._given_up.is_set():
                self._rest()
                self._send(peer, in_flight, self._burst(self.most))
                self._listen(peer, in_flight, self._rng.randint(0, 4))
                time.sleep(self.pause_s * (0.5 + self._rng.random()))
            self._listen(peer, in_flight, 0)

    def _greet(self, peer: MqttPeer) -> None:
        peer.send(mqtt5.ConnectPacket(self.car.device_id, clean_start=True, keep_alive=60).write())
        welcome = peer.next()
        if not isinstance(welcome, mqtt5.ConnAckPacket):
            raise Ended("no CONNACK")
        code = int(welcome.reason_code)
        if code and code not in COME_BACK:
            self.trouble.append(f"{self.name} was refused at CONNECT with {code:#04x}")
        if code:
            raise Ended("refused")

    def _send(self, peer: MqttPeer, in_flight: dict[int, tuple[Send, Message]], shots: Sequence[Shot]) -> None:
        packets = []
        for send, (message, topic) in zip(self._sends(shots), shots, strict=True):
            packet_id = send.number % 65535 + 1
            in_flight[packet_id] = (send, message)
            packets.append(publish_bytes(topic or self.car.topic, message.raw, packet_id=packet_id))
        peer.send(b"".join(packets))

    def _listen(self, peer: MqttPeer, in_flight: dict[int, tuple[Send, Message]], low: int) -> None:
        """Reads acknowledgements until at most `low` messages are in flight."""
        while len(in_flight) > low:
            packet = peer.next()
            if not isinstance(packet, mqtt5.PubAckPacket):
                raise Ended("the gate said goodbye")
            send, message = in_flight.pop(packet.packet_id)
            code, reason = told(packet)
            self._heard(send, message, reason or ("accepted" if code == 0 else f"puback_{code:#04x}"))


class HttpsDriver(Driver):
    """HTTPS in batches, the envelopes in MessagePack or in JSON."""

    transport = "https"
    pause_s = 0.3
    most = 10

    def __init__(self, gate: Gate, car: Car, journal: Journal, rng: random.Random, form: str) -> None:
        super().__init__(gate, car, journal, rng)
        self._form = form

    def _burst(self, most: int) -> list[Shot]:
        """With an item now and then that is refused, which must cost itself only."""
        shots = super()._burst(most)
        if self._rng.random() < 0.1 and not self.plain:
            shots.insert(self._rng.randint(0, len(shots)), self.early())
        return shots

    def _sign(self, facts: dict[str, object]) -> bytes:
        if self._form == MSGPACK:
            return super()._sign(facts)
        return self.car.sign_json(**facts)  # type: ignore[arg-type]  # as `elements` takes them

    def _session(self) -> None:
        socket.create_connection(("127.0.0.1", self._gate.https_port), DEADLINE_SECONDS).close()
        with HttpPeer(self._gate, self.car, deadline_s=DEADLINE_SECONDS) as peer:
            older = self._older()
            while older:
                self._post(peer, older[:MOST_AT_ONCE])
                del older[:MOST_AT_ONCE]
            while not self._finishing.is_set() and not self._given_up.is_set():
                self._rest()
                if shots := self._burst(self.most):
                    self._post(peer, shots)
                time.sleep(self.pause_s * (0.5 + self._rng.random()))

    def _post(self, peer: HttpPeer, shots: Sequence[Shot]) -> None:
        raws = [message.raw for message, _ in shots]
        content = msgspec.msgpack.encode(raws) if self._form == MSGPACK else b"[" + b",".join(raws) + b"]"
        sends = self._sends(shots)
        answer = peer.post(content, self._form)
        if answer.status == 202:
            labels = [reason or status for status, reason in map(told_item, answer.items)]
        else:
            labels = [f"http_{answer.status}"] * len(sends)
        for send, (message, _), label in zip(sends, shots, labels, strict=True):
            self._heard(send, message, label)
        if answer.status != 202:
            raise Ended(f"HTTP {answer.status}")


FORMS = (MSGPACK, JSON)
