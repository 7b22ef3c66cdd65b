"""An edge on a spool that lost its windows and was repaired: what was stored before is not stored twice."""

from __future__ import annotations

from tests.gate import NewGate, fleetgate, now_ms, until
from tests.mqtt_peer import MqttPeer, told
from tests.spools import alter_identity


def test_behind_a_fence_what_was_received_before_is_not_taken_again(new_gate: NewGate) -> None:
    """The checkpoint and all segments are lost. Until the fence nothing is taken; then a retry of what was stored is
    too_old, and new messages are accepted."""
    gate = new_gate()
    car = gate.home.enrol("one")
    with MqttPeer(gate, car) as peer:
        stored = car.sign(peer.hello().epoch, 0)
        assert told(peer.ask(stored)) == (0, None)
    gate.kill()
    for path in [*gate.spool.glob("checkpoint.db*"), *gate.spool.glob("segments/*")]:
        path.unlink()
    done = fleetgate(gate.home.directory, "spool", "repair", "--yes")
    assert (done.returncode, "a fence" in done.stdout) == (0, True)
    was = alter_identity(gate.spool, fence_ms=now_ms() + 8_000)  # a minute is long
    assert 50_000 < was.fence_ms - now_ms() <= 60_000
    gate.start()
    status, why = gate.admin("/readyz")
    assert (status, "the spool was repaired" in why) == (503, True)
    until(lambda: gate.admin("/readyz")[0] == 200, "the fence is passed")
    with MqttPeer(gate, car) as peer:
        epoch = peer.hello().epoch
        assert told(peer.ask(stored)) == (0x83, "too_old")
        assert told(peer.ask(car.sign(epoch, 0))) == (0, None)
