"""The records of control as load uses them: opened when there is something to say, as telemetry waits for none.

Says which rule of `control` each word of load goes to; what becomes of it is decided there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from fleetgate.clock import Clock
from fleetgate.config import Config
from fleetgate.control.auditheads import sign_audit
from fleetgate.control.casenotes import Transition
from fleetgate.control.edgealerts import Said, closings_since, note_alert
from fleetgate.control.quarantine import LOADER, Origin, apply_transition
from fleetgate.control.releases import Release, releases_of, releases_since
from fleetgate.control.signing import SignerClient
from fleetgate.control.spools import begin_spool, note_loaded
from fleetgate.control.store import Store
from fleetgate.control.suspicions import Suspicion, decided_since, note_suspicions
from fleetgate.control.watchturns import Turn, take_part
from fleetgate.spool.format import AlertRecord, TransitionRecord


class Records:
    """Closed when left. For any thread. Every method raises ControlAway."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._store: Store | None = None
        self._opening = threading.Lock()

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def apply(self, spool: str, segment: int, offset: int, record: TransitionRecord) -> str:
        return apply_transition(self.opened(), Origin(spool, segment, offset), transition_of(record))

    def note_alert(self, record: AlertRecord) -> None:
        said = Said(
            key=record.key,
            state=record.state,
            at_ms=record.at,
            kind=record.kind,
            tenant=record.tenant,
            cohort=record.cohort,
            detail=record.detail,
        )
        note_alert(self.opened(), LOADER, said)

    def closings_since(self, at_ms: int) -> list[tuple[str, int]]:
        return closings_since(self.opened(), at_ms)

    def releases_since(self, decision_id: int) -> list[Release]:
        return releases_since(self.opened(), decision_id)

    def releases_of(self, tenant: str, device_id: str) -> list[Release]:
        return releases_of(self.opened(), tenant, device_id)

    def suspect(self, spool: str, segment: int, found: Sequence[Suspicion]) -> None:
        note_suspicions(self.opened(), spool, segment, found)

    def decided_since(self, at_ms: int) -> dict[tuple[str, str], int]:
        return decided_since(self.opened(), at_ms)

    def take_part(self, spool: str, until_ms: int | None, dead: Mapping[str, int]) -> list[Turn]:
        return take_part(self.opened(), spool, until_ms, dead)

    def begin(self, spool: str, former: Sequence[str]) -> None:
        begin_spool(self.opened(), spool, former)

    def note(self, spool: str, segment: int, newest_received_ms: int) -> None:
        note_loaded(self.opened(), spool, segment, newest_received_ms)

    def sign_audit(self, signer: SignerClient, on_behind: Callable[[int], None]) -> int:
        return sign_audit(self.opened(), signer, on_behind)

    def opened(self) -> Store:
        with self._opening:
            if self._store is None:
                self._store = Store.open(self._config, self._clock, write=True)
            return self._store


def transition_of(record: TransitionRecord) -> Transition:
    return Transition(
        tenant=record.tenant,
        device_id=record.device_id,
        before=record.before,
        after=record.after,
        at_ms=record.at,
        received_at_ms=record.received_at or record.at,
        why=record.why,
        score=record.score,
        policy_version=record.policy_version,
    )
