"""An edge whose spool's disk was replaced while it was down: what was loaded before is not taken again."""

from __future__ import annotations

import shutil

from tests.gate import Gate, NewGate, fleetgate, now_ms, until
from tests.mqtt_peer import MqttPeer, told
from tests.spools import alter_identity

from fleetgate.clock import SystemClock
from fleetgate.control.spools import begin_spool, note_loaded
from fleetgate.control.store import Store
from fleetgate.spool.identity import read_identity


def loaded(gate: Gate, segment: int) -> None:
    """As load tells control."""
    identity = read_identity(gate.spool)
    assert identity is not None
    with Store.open(gate.home.config, SystemClock(), write=True) as store:
        begin_spool(store, identity.spool, identity.former)
        note_loaded(store, identity.spool, segment, 0)


def test_an_empty_disk_begins_behind_a_fence(new_gate: NewGate) -> None:
    """Nothing is taken for a minute; then a message from before is too_old, and new ones are accepted."""
    gate = new_gate()
    car = gate.home.enrol("one")
    with MqttPeer(gate, car) as peer:
        stored = car.sign(peer.hello().epoch, 0)
        assert told(peer.ask(stored)) == (0, None)
    loaded(gate, 1)
    gate.kill()
    shutil.rmtree(gate.spool)
    gate.start()
    status, why = gate.admin("/readyz")
    assert (status, "its disk replaced" in why) == (503, True)
    gate.kill()
    was = alter_identity(gate.spool, fence_ms=now_ms() + 3_000)  # a minute is long
    assert 40_000 < was.fence_ms - now_ms() <= 60_000
    gate.start()
    until(lambda: gate.admin("/readyz")[0] == 200, "the fence is passed")
    with MqttPeer(gate, car) as peer:
        epoch = peer.hello().epoch
        assert told(peer.ask(stored)) == (0x83, "too_old")
        assert told(peer.ask(car.sign(epoch, 0))) == (0, None)


def test_an_older_copy_is_refused_until_it_is_repaired_as_restored(new_gate: NewGate) -> None:
    """The edge ends with 5 and says what to do; then it starts, behind a fence."""
    gate = new_gate()
    gate.kill()
    shutil.copytree(gate.spool, gate.home.directory / "copy")
    gate.start()
    car = gate.home.enrol("one")
    with MqttPeer(gate, car) as peer:
        assert told(peer.ask(car.sign(peer.hello().epoch, 0))) == (0, None)
    loaded(gate, 1)
    gate.kill()
    shutil.rmtree(gate.spool)
    (gate.home.directory / "copy").rename(gate.spool)
    refused = fleetgate(gate.home.directory, "edge")
    assert (refused.returncode, "spool repair --restored" in refused.stderr) == (5, True), refused.stderr
    assert fleetgate(gate.home.directory, "spool", "repair", "--restored", "--yes").returncode == 0
    gate.start()
    assert gate.admin("/readyz")[0] == 503
