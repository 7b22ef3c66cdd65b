"""Decides the attacks on identity: forged_mac, other_credential, other_tenant and revoked.

The gate's side of it is TLS and steps 2 and 3 of the judge.
"""

from dataclasses import replace

from fleetsim.attackers import wire
from fleetsim.attackers.stage import RETRY_S, Shot, Stage

MESSAGES = 36
ATTEMPTS = 8


async def forged_mac(stage: Stage) -> None:
    """Tags that were guessed, bent by one bit, or belong to another message."""
    await stage.begin()
    shots = []
    for i in range(MESSAGES):
        shot = stage.shot(expect="bad_mac")
        tag = bytearray(shot.raw[-16:])
        if i % 3 == 0:
            tag[:] = stage.rng.randbytes(16)
        elif i % 3 == 1:
            tag[stage.rng.randrange(16)] ^= 1 << stage.rng.randrange(8)
        else:
            tag[:] = stage.shot(expect="bad_mac").raw[-16:]
        shots.append(replace(shot, raw=shot.raw[:-16] + bytes(tag)))
    await stage.deliver(shots, pause_s=stage.pace_s(MESSAGES))


async def other_credential(stage: Stage) -> None:
    """Another vehicle's MAC key, used under one's own certificate."""
    assert stage.other is not None
    await stage.begin()
    shots = [stage.shot(expect="bad_mac", key=stage.other.mac_key) for _ in range(MESSAGES)]
    await stage.deliver(shots, pause_s=stage.pace_s(MESSAGES))


async def other_tenant(stage: Stage) -> None:
    """One's own valid messages, addressed as another tenant's."""
    assert stage.other is not None
    await stage.begin()
    topics = (stage.other.topic, f"fleet/v1/{stage.other.tenant}/{stage.bundle.device_id}/telemetry")
    shots = [stage.shot(expect="identity_mismatch", topic=topics[i % 2]) for i in range(MESSAGES)]
    await stage.deliver(shots, pause_s=stage.pace_s(MESSAGES))


async def revoked(stage: Stage) -> None:
    """A certificate that was withdrawn knocks on both doors."""
    stage.epoch = 1
    done = 0
    while done < ATTEMPTS and stage.time_left:
        shot = stage.shot(expect="refused", sent_at=int(stage.clock.now_ms()))
        try:
            answer = await (_by_https(stage, shot) if done % 2 else _by_mqtt(stage, shot))
        except wire.RefusedError as refused:
            answer = refused.label
        if answer is None:
            await stage.clock.sleep(RETRY_S)
            continue
        stage.record_attempt(answer)
        done += 1
        await stage.clock.sleep(stage.pace_s(ATTEMPTS))


async def _by_mqtt(stage: Stage, shot: Shot) -> str | None:
    """How the gate answered a message it should not even have been sent; None if the gate was away."""
    await stage.deliver([shot])
    return shot.answer


async def _by_https(stage: Stage, shot: Shot) -> str | None:
    status = await stage.post([shot])
    return shot.answer or (None if status is None else f"http_{status}")
