"""What load tells control of how far it is, and that no segment waits for it."""

from __future__ import annotations

from fleetgate.errors import ControlAway
from fleetgate.load.progress import Progress
from fleetgate.load.steady import rounds


def test_the_last_position_is_told_at_the_end_and_once() -> None:
    """However many segments there were since; the same one is not told again."""
    told: list[tuple[str, int, int]] = []
    progress = Progress(lambda *_: None, lambda *position: told.append(position))
    with rounds("progress", progress.round, 0.001):
        for segment in range(1, 50):
            progress.reached("ab" * 16, segment, 1000 + segment)
    assert told[-1] == ("ab" * 16, 49, 1049)
    assert len(set(told)) == len(told)


def test_while_control_is_away_a_later_position_is_tried() -> None:
    """Nothing is raised where the segments are loaded, and the end is not held up."""
    tried: list[int] = []

    def away(_spool: str, segment: int, _received_ms: int) -> None:
        tried.append(segment)
        raise ControlAway("control does not answer")

    progress = Progress(lambda *_: None, away)
    progress.reached("ab" * 16, 7, 0)
    progress.round()
    assert tried == [7]
