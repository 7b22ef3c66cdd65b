"""Decides the attacks on time and order: replay, future_clock, stale_epoch, equivocation, and the flood.

Each is a sequence of messages over `stage`; the gate's side of it is steps 4 and 5 of the judge, and its limits.
"""

from dataclasses import replace

from fleetsim.attackers.stage import Shot, Stage

MESSAGES = 36
ORIGINALS = 12
TURNS, IN_A_TURN, CATCH_UP = 9, 4, 2
FLOOD_MESSAGES = 4_000
_HOUR_MS = 3_600_000


async def replay(stage: Stage) -> None:
    """Own accepted bytes again: on the same device's later connections, and by the other transport."""
    await stage.begin()
    originals = [stage.honest() for _ in range(ORIGINALS)]
    await stage.deliver(originals, pause_s=stage.pace_s(2 * MESSAGES))
    stored = [shot for shot in originals if shot.answer == "accepted"]

    def again() -> list[Shot]:
        return [replace(shot, kind=stage.kind, expect="duplicate", ref=None, answer=None) for shot in stored]

    await stage.deliver(again())
    await stage.deliver(again(), pause_s=stage.pace_s(2 * MESSAGES))
    if stored:
        await stage.post(again())


async def future_clock(stage: Stage) -> None:
    """Valid messages from a clock that is ahead, by two minutes to a month."""
    await stage.begin()
    shots = []
    for i in range(MESSAGES):
        ahead_ms = 120_000 + i * i * _HOUR_MS // 2
        shots.append(stage.shot(expect="clock_ahead", sent_at=stage.now_ms() + ahead_ms))
    await stage.deliver(shots, pause_s=stage.pace_s(MESSAGES))


async def stale_epoch(stage: Stage) -> None:
    """Valid messages of epochs that were skipped, after a later one was opened: a device restored from a backup."""
    await stage.begin()
    first = stage.epoch
    await stage.deliver([stage.honest(), stage.honest()])
    await stage.begin(above=4)
    await stage.deliver([stage.honest(), stage.honest()])
    shots = [stage.shot(expect="stale_epoch", epoch=first + 1 + i % 3, seq=i // 3) for i in range(MESSAGES)]
    await stage.deliver(shots, pause_s=stage.pace_s(MESSAGES))


async def equivocation(stage: Stage) -> None:
    """The original and its clone by turns: the clone sends other content under numbers that the original has used, and
    does not quite catch up with it."""
    await stage.begin()
    for _ in range(TURNS):
        originals = [stage.honest() for _ in range(IN_A_TURN)]
        await stage.deliver(originals, pause_s=stage.pace_s(2 * MESSAGES))
        used = [shot for shot in originals if shot.answer in ("accepted", "duplicate")][:-CATCH_UP]
        shots = [stage.shot(expect="equivocation", epoch=shot.epoch, seq=shot.seq) for shot in used]
        await stage.deliver(shots, pause_s=stage.pace_s(2 * MESSAGES))


async def flood(stage: Stage) -> None:
    """Valid messages as fast as the gate takes them; what it does not take is not sent again."""
    await stage.begin()
    shots = [stage.shot(expect="limited") for _ in range(FLOOD_MESSAGES)]
    await stage.deliver(shots, repeat_limited=False)
