"""Decides what one run of a swarm is: how many connect, what they send, for how long, and what counts as measured.

How it is done is `swarm`'s; the shape of a message is `swarm_work`'s.
"""

from collections import Counter
from typing import Any, NamedTuple

from fleetsim.swarm_work import Shape, events_in


class Plan(NamedTuple):
    """One run. `seconds` are measured, after `warm_up_s`; `rate` is messages a second over all connections (0: as fast
    as answers come), `batch` envelopes in a POST (0: MQTT), `prepare` messages signed for each connection before the
    clock starts, `handshakes` how many connections may be on their way in at once. Over HTTPS nobody tells a device its
    epoch before it sends: there `epoch` must be above that of every earlier run with these devices. Every `interval_s`
    (0: never) the swarm tells the latencies since the last time. `bodies` are sent instead of ones made to
    `shape`; with `drive`, what vehicles say that drive.
    """

    address: tuple[str, int]
    server_name: str
    connections: int
    shape: Shape
    seconds: float
    warm_up_s: float = 1.0
    in_flight: int = 1
    rate: float = 0.0
    batch: int = 0
    prepare: int = 0
    handshakes: int = 256
    connect_s: float = 120.0
    epoch: int = 1
    reconnect: bool = False
    hold_s: float = 0.0
    interval_s: float = 0.0
    seed: int = 1
    bodies: tuple[bytes, ...] = ()
    drive: bool = False

    @property
    def events_each(self) -> float | None:
        """Events of a message, on average; None where that is not to be seen in the bodies of somebody else."""
        if self.drive:
            return 1
        return events_in(self.shape.enc, self.bodies) if self.bodies else self.shape.events


def figures(plan: Plan, answers: Counter[str], seconds: float, cpu_s: float) -> dict[str, Any]:
    """What is reported of `answers` by label within `seconds`, at `cpu_s` of this process."""
    messages, each = answers["accepted"], plan.events_each
    return {
        "seconds": round(seconds, 3),
        "answers": dict(answers),
        "messages_per_s": round(messages / seconds, 1),
        "events_per_s": None if each is None else round(messages * each / seconds, 1),
        "cpu_s": round(cpu_s, 3),
        "cpu_us_per_message": round(cpu_s / max(1, messages) * 1e6, 2),
    }
