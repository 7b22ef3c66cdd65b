"""Recording: from a spool that the gate's own writer wrote, only what is authentic and nothing that names anybody."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.segments import RECEIVED_AT, SENT_AT, SpoolOnDisk, of_version_1, pack, peer, rows_body, sample
from tests.units import elements, hkdf

from fleetsim.encode import Event
from fleetsim.gate import RunError
from fleetsim.record import Recorder, read_roots
from fleetsim.replay import Play, play_of
from fleetsim.tape import Take, Tape

ROOT = bytes(range(32))
VIN = "WVWZZZ1JZXW000001"


class Scene:
    """A spool, and who sends to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.spool = SpoolOnDisk(directory / "spool")
        self.recorder = Recorder({1: ROOT})
        self.said = 0

    def say(
        self, vehicle: str, *events: list[Any], at_ms: int = 0, outcome: int = 1, noted: Any = None, **given: Any
    ) -> None:
        """A message of the vehicle; `noted` is what the spool says of its sender besides, `given` as
        `tests.units.elements` takes it."""
        who = peer(vehicle)
        key = hkdf(ROOT, who.tenant, who.device_id, who.key_digest)
        self.said += 1
        usual: dict[str, Any] = {
            "key": key,
            "seq": self.said,
            "sent_at": SENT_AT + at_ms,
            "body": rows_body(*events),
        }
        raw = pack(elements(**(usual | given)))
        sender = self.spool.sender(msgspec.structs.replace(who, **(noted or {})))
        self.spool.writer.message(sender, RECEIVED_AT + at_ms, outcome, 0, raw)

    def record(self) -> list[Take]:
        self.spool.seal()
        self.recorder.record(self.directory / "spool", 0.0, self.directory / "tape")
        return list(Tape(self.directory / "tape"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_recording_has_what_was_said_and_when(scene: Scene) -> None:
    """Two vehicles, in the order of receipt; times count from the first receipt, and events keep theirs."""
    scene.say("one", sample(-1500, s1=50.0), sample(0, s1=51.5))
    scene.say("two", [-10, "fault", {1: 7.0}, {44: "P0301"}], at_ms=4000)
    received_after_ms = RECEIVED_AT - SENT_AT
    assert [(take.at_ms, take.vehicle, take.draft.software) for take in scene.record()] == [
        (0, 0, "software-0"),
        (4000, 1, "software-0"),
    ]
    assert [take.draft.events for take in Tape(scene.directory / "tape")] == [
        (
            Event(-1500 - received_after_ms, "sample", {1: 50.0}, {}),
            Event(-received_after_ms, "sample", {1: 51.5}, {}),
        ),
        (Event(3990 - received_after_ms, "fault", {1: 7.0}, {44: "P0301"}),),
    ]
    assert scene.recorder.told() == ""


def test_nothing_in_the_file_names_anybody(scene: Scene) -> None:
    """No tenant, device, vehicle, software, configuration, key or date; an unknown signal or text could be a VIN."""
    named = {1: 50.0, "Vehicle.Body.Plate": 4.0}
    events = [0, "fault", named, {"Vehicle.VehicleIdentification.VIN": VIN, 44: VIN}], [0, "sample", {}, {}]
    scene.say("one", body=rows_body(*events, software=VIN))
    [take] = scene.record()
    assert take.draft.events == (Event(SENT_AT - RECEIVED_AT, "fault", {1: 50.0}, {}),)
    assert scene.recorder.left_out["signals and texts that could name somebody"] == 3
    content = (scene.directory / "tape").read_bytes()
    who = peer("one")
    for secret in (VIN, "Plate", "one", who.tenant, "cfg-7f3a", who.key_digest, who.fingerprint, who.address):
        assert (secret if isinstance(secret, bytes) else secret.encode()) not in content, secret
    for time in (SENT_AT, RECEIVED_AT):
        assert time.to_bytes(8, "big")[2:] not in content
    assert (scene.directory / "tape").stat().st_mode & 0o777 == 0o600


LEFT_OUT: dict[str, tuple[str, Callable[[Scene], None]]] = {
    "forged": ("1 messages not authentic", lambda scene: scene.say("one", sample(0, s1=1.0), key=bytes(32))),
    "under a root key we do not have": (
        "1 messages not authentic",
        lambda scene: scene.say("one", sample(0, s1=1.0), kid=2),
    ),
    "held": ("1 messages held in quarantine", lambda scene: scene.say("one", sample(0, s1=1.0), outcome=2)),
    "no body": ("1 messages that cannot be read", lambda scene: scene.say("one", body=b"\xc1")),
    "no kind": ("1 messages that could not be sent again", lambda scene: scene.say("one", [0, VIN, {1: 1.0}, {}])),
    "of another time": (
        "1 messages that could not be sent again",
        lambda scene: scene.say("one", sample(-(2**62), s1=1.0)),
    ),
    "from a tenant without end": (
        "1 messages that cannot be read",
        lambda scene: scene.say("one", sample(0, s1=1.0), noted={"tenant": "x" * 70_000}),
    ),
    "nothing known": (
        "1 messages without a known signal",
        lambda scene: scene.say("one", [0, "sample", {"Vehicle.New": 1.0}, {}]),
    ),
}


@pytest.mark.parametrize(("told", "say"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_what_does_not_belong_there_is_left_out_and_told(scene: Scene, told: str, say: Callable[[Scene], None]) -> None:
    """And costs only itself."""
    say(scene)
    scene.say("two", sample(0, s1=2.0), at_ms=10)
    assert len(scene.record()) == 1
    assert told in scene.recorder.told()


def test_software_and_configuration_become_numbers_that_stay(scene: Scene) -> None:
    """The same one is the same number all through a recording."""
    for software, config in (("2026.44.1", "a"), (VIN, "b"), ("2026.44.1", "b")):
        scene.say("one", body=rows_body(sample(0, s1=1.0), software=software, config=config))
    assert [take.draft[:2] for take in scene.record()] == [
        ("software-0", "config-0"),
        ("software-1", "config-1"),
        ("software-0", "config-1"),
    ]


def test_a_vehicle_is_what_the_tag_proves(scene: Scene) -> None:
    """Whoever writes into the spool can give a device another `vehicle_id`, and it is the same one all the same."""
    scene.say("one", sample(0, s1=1.0))
    scene.say("one", sample(0, s1=2.0), noted={"vehicle_id": "two"})
    assert [take.vehicle for take in scene.record()] == [0, 0]


def test_a_message_is_recorded_once(scene: Scene) -> None:
    """The spool has it again, as its bytes are or with others that its device signed under the same number."""
    for value in (1.0, 1.0, 2.0):
        scene.say("one", sample(0, s1=value), epoch=4, seq=7)
    scene.say("two", sample(0, s1=3.0), epoch=4, seq=7)
    assert [take.draft.events[0].signals[1] for take in scene.record()] == [1.0, 3.0]
    assert scene.recorder.told() == "2 messages whose number is there already"


def test_a_signal_keeps_the_kind_of_its_name(scene: Scene) -> None:
    """By path in JSON, where a number would be a name that nobody knows."""
    said = {"software": "s", "config": "c", "events": [{"at": 0, "kind": "sample", "signals": {"Vehicle.Speed": 5.0}}]}
    scene.say("one", enc=2, body=json.dumps(said).encode())
    [take] = scene.record()
    assert [event.signals for event in take.draft.events] == [{"Vehicle.Speed": 5.0}]


def test_a_damaged_segment_is_read_up_to_there_and_the_next_one_whole(scene: Scene) -> None:
    """One flipped byte in the second of three messages."""
    for value in (1.0, 2.0, 3.0):
        scene.say("one", sample(0, s1=value))
    path = scene.spool.seal()
    data = bytearray(path.read_bytes())
    data[data.index(rows_body(sample(0, s1=2.0)))] ^= 1
    path.write_bytes(data)
    scene.say("one", sample(0, s1=4.0))
    assert [take.draft.events[0].signals[1] for take in scene.record()] == [1.0, 4.0]
    assert scene.recorder.told() == "1 damaged segments, from there on"


def test_a_segment_of_an_earlier_version_is_read(scene: Scene) -> None:
    """Its checksums begin with nothing."""
    scene.say("one", sample(0, s1=1.0))
    path = scene.spool.seal()
    path.write_bytes(of_version_1(path.read_bytes()))
    scene.say("one", sample(0, s1=2.0))
    assert len(scene.record()) == 2


def test_segments_that_come_meanwhile_are_recorded_and_those_that_went_are_told(scene: Scene) -> None:
    """The second is deleted before anybody looks, as load does; the third is there at the last look."""
    scene.say("one", sample(0, s1=1.0))
    scene.spool.seal()

    def meanwhile(_: float) -> None:
        for value in (2.0, 3.0):
            scene.say("one", sample(0, s1=value))
            path = scene.spool.seal()
            if value == 2.0:
                path.unlink()

    recorder = Recorder({1: ROOT}, meanwhile)
    recorder.record(scene.directory / "spool", 0.05, scene.directory / "tape")
    assert [take.draft.events[0].signals[1] for take in Tape(scene.directory / "tape")] == [1.0, 3.0]
    assert recorder.told() == "1 segments gone before they could be read"


def test_a_spool_without_anything_leaves_no_file(scene: Scene) -> None:
    """The person is told why there is no recording."""
    with pytest.raises(RunError, match="it has no sealed segments"):
        Recorder({1: ROOT}).record(scene.directory / "spool", 0.0, scene.directory / "tape")
    assert not (scene.directory / "tape").exists()
    (scene.directory / "tape").touch()
    scene.say("one", sample(0, s1=1.0))
    with pytest.raises(RunError, match="File exists; name another file with --out"):
        scene.record()


def test_the_last_event_lies_at_the_start_of_the_replay(scene: Scene) -> None:
    """Spacing stays; a replay of a drive in CSV asks for its columns."""
    scene.say("one", sample(-1500, s1=50.0), sample(0, s1=51.5))
    scene.say("two", sample(0, s1=1.0), at_ms=4000)
    scene.record()
    play: Play = play_of(scene.directory / "tape", "time", [])
    times = [[event.at for event in take.draft.events] for take in play.takes(9_000_000.0)]
    assert (play.vehicles, play.until_ms, times) == (2, 4000, [[8_994_500, 8_996_000], [9_000_000]])
    (scene.directory / "drive.csv").write_text("time\n1\n")
    with pytest.raises(RunError, match="say with --map"):
        play_of(scene.directory / "drive.csv", "time", [])


def test_a_file_that_is_no_recording_is_refused_and_a_keyring_that_is_none_shows_no_key(tmp_path: Path) -> None:
    """Each with what to do."""
    (tmp_path / "other").write_bytes(b"SQLite format 3\0" + bytes(100))
    with pytest.raises(RunError, match=r"no recording.*make one with `fleetsim record`"):
        play_of(tmp_path / "other", "time", [])
    secret = base64.b64encode(ROOT).decode()
    for content in (secret, json.dumps({"roots": {"one": {"root": secret}}}), json.dumps({"roots": {"1": secret}})):
        (tmp_path / "keyring.json").write_text(content)
        with pytest.raises(RunError, match=r"no keyring: name the file of the setting edge\.keyring") as refused:
            read_roots(tmp_path / "keyring.json")
        assert secret not in str(refused.value)
