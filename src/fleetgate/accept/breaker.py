"""The blast-radius breaker: a bad release, or a mistake of our own, must not put a fleet into quarantine.

Decides whether a device whose score says quarantine goes there. Where a surge of one cohort would go at once, the
cohort is held: its devices are watched instead, an alert opens, and a person has a day to decide. Pure: time is told,
nothing is read or sent. What scores is `standing`'s; what a state means, the judge's. Why (docs/adr/0010-breaker.md):

- Only signals that are common in the cohort's trouble are excused, and clone signs never: who has another score high
  enough goes into quarantine, held cohort or not. Each message of a held device is judged, refused and counted.
- Those who enter a held cohort's quarantine are counted as well: a second trouble beside the first is excused once it
  is a surge by itself. It gives the hold no other day.
- Held are those whose score says quarantine, until it has decayed, also while they are silent. A hold ends when for
  15 minutes they were fewer than half a surge; the few that are left go where they belong. So its end is never the
  surge that it was there for.
- A hold that has lasted a day ends by itself, and there is no other before the trouble is over.
- What a person says of a cohort stands above all that; said of several of a device, what is said of the smallest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from fleetgate.accept.surge import CALM_MS, MIN_COHORT, MIN_DEVICES, Key, Window, alert_key, limit_at_opening, limit_of
from fleetgate.control.cohorts import Cohort, Mode, cohort_of
from fleetgate.scoring import total
from fleetgate.spool.format import AlertRecord

LONGEST_HOLD_MS: Final = 24 * 3_600_000
"""A weekend's shift sees it; and what a device at its score's limit loses in a day is enough to be watched only."""

COMMON_SHARE: Final = 0.25
"""A signal is common when it leads for so many of the devices in trouble: what a handful do beside them is not."""

NEVER_EXCUSED: Final = frozenset({"equivocation", "epoch_overlap", "overlapping_sessions", "impossible_travel"})
"""Signs of a clone. No release makes a second device of one."""


class Phase(StrEnum):
    """Of a cohort's trouble; the last two are kinds of alerts."""

    COUNTING = "counting"
    HELD = "breaker"
    SPENT = "breaker_spent"


class Wish(NamedTuple):
    """A device whose score says quarantine: its cohorts as of before its trouble, its score by signal now, and when it
    will be below the threshold if nothing is added (Unix ms)."""

    key: Key
    cohorts: Sequence[Cohort]
    scores: Mapping[str, float]
    until_ms: int


class _Trouble:
    """Of one cohort. `entering`: who went into quarantine lately, or would have. `held`: who is kept from it, and until
    when. `led`: the leading signals of all in it, counted; `alone`: those that were a surge by themselves while it was
    held, and not counted with the others. `limit` is what a surge was when it opened: devices leave the cohort with the
    update that mends them. `busy_at` is when it last was not calm. From `recount_at` devices on it is worth asking how
    large the cohort is now."""

    def __init__(self, now: int) -> None:
        self.phase = Phase.COUNTING
        self.record: AlertRecord | None = None  # by which its alert was opened
        self.entering = Window()
        self.held: dict[Key, int] = {}
        self.led: Counter[str] = Counter()
        self.alone: set[str] = set()
        self.opened_at = self.busy_at = now
        self.most = 0
        self.limit = math.inf
        self.recount_at = MIN_DEVICES

    def common(self) -> set[str]:
        least = COMMON_SHARE * self.led.total()
        return self.alone.union(signal for signal, count in self.led.items() if count >= least) - NEVER_EXCUSED

    def keep(self, wish: Wish) -> None:
        leading = _leading(wish.scores)
        if wish.key not in self.held and leading not in self.alone:
            self.led[leading] += 1
        self.held[wish.key] = wish.until_ms
        self.most = max(self.most, len(self.held))

    def open(self, phase: Phase, now: int, limit: float) -> None:
        self.phase, self.opened_at, self.busy_at, self.limit = phase, now, now, limit


class Breaker:
    """Of one edge. `threshold` is the score of quarantine, `sizes` how many devices the cohorts have; both are replaced
    from outside. `recount` says how many of a cohort are in memory: `sizes` may be older than they are. `on_alert` gets
    each opening and closing."""

    def __init__(self, edge_id: str, threshold: float) -> None:
        self._edge_id = edge_id
        self._troubles: dict[Cohort, _Trouble] = {}
        self.threshold = threshold
        self._overrides: Mapping[Cohort, Mode] = {}
        self._loosened = False
        self.sizes: Mapping[Cohort, int] = {}
        self.recount: Callable[[Cohort], int] = lambda cohort: 0
        self.on_alert: Callable[[AlertRecord], None] = lambda record: None

    def override(self, said: Mapping[Cohort, Mode]) -> None:
        """All that people say of cohorts, from the next device on."""
        self._loosened = self._loosened or said != self._overrides
        self._overrides = said

    def holds(self, wish: Wish, now: int) -> bool:
        """Whether the device is to be watched instead of going into quarantine. Counts it."""
        cohorts = sorted(wish.cohorts, key=self._size)
        mode = next((self._overrides[cohort] for cohort in cohorts if cohort in self._overrides), Mode.AUTO)
        if mode is Mode.OFF or not self._excused(wish, wish.scores.keys() - NEVER_EXCUSED):
            self._let_in(wish)
            return False
        for cohort in cohorts:
            trouble = self._troubles.get(cohort)
            if trouble is not None and trouble.phase is Phase.HELD and self._excused(wish, trouble.common()):
                trouble.keep(wish)
                return True
        if mode is Mode.HOLD:
            return True
        held = any(self._count(cohort, wish, now) for cohort in cohorts)
        if not held:
            self._let_in(wish)
        return held

    def look(self, now: int) -> bool:
        """Ends what is over; called every second or so. Whether a device that was held may not be held any more."""
        loosened, self._loosened = self._loosened, False
        for cohort, trouble in list(self._troubles.items()):
            for key in [key for key, until_ms in trouble.held.items() if until_ms <= now]:
                del trouble.held[key]
            there = max(len(trouble.held), trouble.entering.count(now))
            mode = self._overrides.get(cohort, Mode.AUTO)
            if 2 * there >= trouble.limit or mode is Mode.HOLD:
                trouble.busy_at = now
            if trouble.phase is Phase.COUNTING:
                if not there:
                    del self._troubles[cohort]
            elif mode is Mode.OFF or now - trouble.busy_at >= CALM_MS:
                self._close(trouble, now, "a person" if mode is Mode.OFF else "calm")
                del self._troubles[cohort]
                loosened = True
            elif trouble.phase is Phase.HELD and mode is Mode.AUTO and now - trouble.opened_at >= LONGEST_HOLD_MS:
                self._close(trouble, now, "the longest hold")
                trouble.held.clear()
                self._open(cohort, trouble, Phase.SPENT, now)
                loosened = True
        return loosened

    def now_open(self) -> list[AlertRecord]:
        """The alerts that are open, as they were opened."""
        return [trouble.record for trouble in self._troubles.values() if trouble.record is not None]

    def restore(self, records: Iterable[AlertRecord], wishes: Iterable[Wish], now: int) -> None:
        """After a start: the alerts that were open, and the devices whose score says quarantine and that are not there:
        a start ends no hold."""
        for record in records:
            trouble = self._troubles[cohort_of(record.tenant, record.cohort)] = _Trouble(now)
            trouble.open(Phase(record.kind), now, limit_at_opening(record))
            trouble.opened_at, trouble.record = record.at, record
            trouble.led.update({str(record.detail[name]): 1 for name in record.detail if name.startswith("signal_")})
        for wish in wishes:
            for cohort in wish.cohorts:
                found = self._troubles.get(cohort)
                if found is None or found.phase is not Phase.HELD:
                    continue
                if self._excused(wish, found.common()) or self._count(cohort, wish, now):
                    found.keep(wish)

    def _size(self, cohort: Cohort) -> int:
        return self.sizes.get(cohort, 0)

    def _excused(self, wish: Wish, signals: Iterable[str]) -> bool:
        """Whether without these signals its score does not say quarantine."""
        excused = frozenset(signals)
        left = {signal: score for signal, score in wish.scores.items() if signal not in excused}
        return total(left, self.threshold) < self.threshold

    def _count(self, cohort: Cohort, wish: Wish, now: int) -> bool:
        """Whether the cohort is held, or held for this too, from this device on."""
        trouble = self._troubles.get(cohort)
        if trouble is None:
            trouble = self._troubles[cohort] = _Trouble(now)
        leading = _leading(wish.scores)
        trouble.entering.note(wish.key, leading, now)
        words = trouble.entering.words(now)
        if trouble.phase is Phase.COUNTING and words.total() >= trouble.recount_at and self._size(cohort) < MIN_COHORT:
            trouble.recount_at = 2 * words.total()  # it takes a look at each device in memory
            self.sizes = {**self.sizes, cohort: max(self._size(cohort), self.recount(cohort))}
        limit = limit_of(self._size(cohort))
        if trouble.phase is Phase.COUNTING and words.total() >= limit:
            trouble.led = words
        elif trouble.phase is Phase.HELD and words[leading] >= min(limit, trouble.limit):
            trouble.alone.add(leading)
        else:
            return False
        held = self._excused(wish, trouble.common())
        if held:
            trouble.held[wish.key] = wish.until_ms
            trouble.most = max(trouble.most, len(trouble.held))
        if trouble.phase is Phase.COUNTING:
            self._open(cohort, trouble, Phase.HELD, now)
        for key in trouble.entering.devices(now):  # a surge of one cohort is none of the larger ones around it
            for other in self._troubles.values():
                if other.phase is Phase.COUNTING:
                    other.entering.forget(key)
        return held

    def _let_in(self, wish: Wish) -> None:
        for cohort in wish.cohorts:
            if cohort in self._troubles:
                self._troubles[cohort].held.pop(wish.key, None)

    def _open(self, cohort: Cohort, trouble: _Trouble, phase: Phase, now: int) -> None:
        size, there = self._size(cohort), trouble.entering.count(now)
        trouble.open(phase, now, limit_of(size) if phase is Phase.HELD else trouble.limit)
        signals = [signal for signal, _ in trouble.led.most_common() if signal in trouble.common()]
        detail: dict[str, str | int | float] = {"vehicles": max(there, trouble.most), "size": size}
        if phase is Phase.HELD:
            detail["entered"] = there - len(trouble.held)  # before it was held: they stay where they are
        detail |= {f"signal_{place}": signal for place, signal in enumerate(signals, 1)}
        trouble.record = AlertRecord(
            alert_key(self._edge_id, cohort.tenant, phase.value, str(cohort)),
            "open",
            now,
            phase.value,
            cohort.tenant,
            str(cohort),
            detail,
        )
        self.on_alert(trouble.record)

    def _close(self, trouble: _Trouble, now: int, why: str) -> None:
        assert trouble.record is not None, "it was opened"
        detail: dict[str, str | int | float] = {
            "ended_by": why,
            "vehicles": trouble.most,
            "still_above": len(trouble.held),
        }
        at = max(now, trouble.opened_at + 1)
        self.on_alert(msgspec.structs.replace(trouble.record, state="closed", at=at, detail=detail))


def _leading(scores: Mapping[str, float]) -> str:
    """The signal that most of the score comes from, of those that may be excused."""
    return max(scores.keys() - NEVER_EXCUSED, key=lambda signal: (scores[signal], signal), default="")
