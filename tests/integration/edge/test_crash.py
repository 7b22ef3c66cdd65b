"""A killed edge starts again as if nothing had been: what was acknowledged is in the spool once, and still known."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import mqtt5
import pytest
from tests.gate import Car, Gate, NewGate, fleetgate, until
from tests.http_peer import HttpPeer
from tests.mqtt_peer import Ended, MqttPeer, publish_bytes, told

IN_FLIGHT = 100


class Stream:
    """Messages of one car, sent with up to 100 in flight in a thread of its own until the connection ends."""

    def __init__(self, gate: Gate, car: Car) -> None:
        self.car = car
        self.sent: list[bytes] = []
        self.acked: list[bytes] = []
        self._peer = MqttPeer(gate, car).hello()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while True:
                while len(self.sent) - len(self.acked) < IN_FLIGHT:
                    raw = self.car.sign(self._peer.epoch, len(self.sent))
                    self.sent.append(raw)
                    self._peer.send(publish_bytes(self.car.topic, raw, packet_id=len(self.sent)))
                ack = self._peer.packet(mqtt5.PubAckPacket)
                assert (told(ack), ack.packet_id) == ((0, None), len(self.acked) + 1)
                self.acked.append(self.sent[len(self.acked)])
        except (Ended, OSError):
            return

    def join(self) -> None:
        self._thread.join(10)
        self._peer.close()
        assert not self._thread.is_alive()


@pytest.fixture
def killed(new_gate: NewGate) -> tuple[Gate, list[Stream]]:
    """A gate that was killed in the middle of two streams, after a checkpoint and some more, and started again."""
    gate = new_gate(limits={"device": {"messages": "1000000/s"}}, spool={"checkpoint_seconds": 0.4})
    streams = [Stream(gate, gate.home.enrol(name)) for name in ("one", "two")]
    until(lambda: all(len(stream.acked) >= 1000 for stream in streams), "1,000 messages of each are acknowledged", 20)
    gate.kill()
    for stream in streams:
        stream.join()
    gate.start()
    return gate, streams


def test_nothing_acknowledged_is_lost_or_doubled_by_kill_9(killed: tuple[Gate, list[Stream]]) -> None:
    """Every acknowledged message is in the spool, no message is there twice, retries are duplicates, epochs go on."""
    gate, streams = killed
    for stream in streams:
        stored = [message.raw for message in gate.stored(stream.car)]
        assert len(stored) == len(set(stored))
        assert set(stream.acked) <= set(stored) <= set(stream.sent)
        with MqttPeer(gate, stream.car) as peer:
            assert peer.hello().epoch == 2
            answers = {raw: told(peer.ask(raw)) for raw in stream.sent[-900:]}
        assert answers == {raw: (0, "duplicate" if raw in stored else None) for raw in answers}
        stored = [message.raw for message in gate.stored(stream.car)]
        assert sorted(stored) == sorted(stream.sent)


def test_quarantine_survives_kill_9(new_gate: NewGate) -> None:
    """A device that was quarantined before the crash, with no checkpoint in between, is held after it."""
    gate = new_gate(spool={"checkpoint_seconds": 3600})
    car = gate.home.enrol("suspect")
    with MqttPeer(gate, car) as peer:
        peer.hello()
        for seq in range(12):
            peer.ask(car.sign(1, seq, key=bytes(32)))
        peer.ask(car.sign(1, 100))
    gate.kill()
    gate.start()
    with MqttPeer(gate, car) as peer:
        peer.hello()
        assert told(peer.ask(car.sign(1, 101))) == (0, None)
    assert [message.outcome for message in gate.stored(car)] == [2, 2]


def test_a_second_edge_on_the_same_spool_ends_with_5(shared_gate: Gate) -> None:
    """One line that names the lock, and the first edge goes on."""
    second = fleetgate(shared_gate.home.directory, "edge")
    assert (second.returncode, "another edge holds" in second.stderr) == (5, True)
    assert shared_gate.admin("/livez")[0] == 200


@pytest.mark.parametrize(("spoil", "named"), [
    (lambda path: path.chmod(0o644), "0644"),
    (lambda path: path.write_text("{}"), "not a keyring"),
    (lambda path: path.unlink(), "does not exist"),
], ids=["readable by others", "no keyring", "absent"])  # fmt: skip
def test_an_edge_without_a_proper_keyring_does_not_start(
    shared_gate: Gate, tmp_path: Path, spoil: Callable[[Path], object], named: str
) -> None:
    """Exit code 2 and one line that names the file and what is wrong with it."""
    home = shared_gate.home.copy(tmp_path / "spoiled")
    home.configure()
    file = home.directory / "keyring.json"
    spoil(file)
    refused = fleetgate(home.directory, "edge")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert str(file) in refused.stderr
    assert named in refused.stderr


def test_sigterm_answers_what_was_received_and_says_goodbye(new_gate: NewGate) -> None:
    """DISCONNECT 0x8B to MQTT sessions, idle HTTPS connections end, exit code 0, every segment sealed."""
    gate = new_gate()
    car, idle_car = gate.home.enrol("one"), gate.home.enrol("two")
    with MqttPeer(gate, car) as peer, HttpPeer(gate, idle_car) as idle:
        peer.hello().ask(car.sign(1, 0))
        idle.ask(idle_car.sign(1, 0))
        assert gate.terminate() == 0
        assert peer.farewell().reason_code == 0x8B
    assert all(segment.footer is not None for segment in gate.segments())
    assert [len(gate.stored(one)) for one in (car, idle_car)] == [1, 1]
