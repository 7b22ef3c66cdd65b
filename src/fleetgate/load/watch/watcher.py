"""The thread that looks: every ten seconds of the gate's time, at what is loaded until then.

Decides when a look is due, while it is this load's turn (turn.py): by the times of receipt of what is loaded, so that a
backlog is no silence, and by the clock once load has nothing to do. When its turn begins the last half hour is looked
at again without opening anything; alerts that are open go on. ClickHouse that is away is waited for; after a fault that
nobody foresaw the watch starts again. Nothing of it ever holds up a segment. How far it is behind is computed when it
is asked: a watch that stands still shows.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque

import numpy as np
import pyarrow as pa

from fleetgate import log
from fleetgate.catalogue import Catalogue
from fleetgate.clock import Clock
from fleetgate.errors import FleetgateError
from fleetgate.load.alerts import Alerts
from fleetgate.load.arrow import DAY_MS
from fleetgate.load.clickhouse import ClickHouse, Refused
from fleetgate.load.counts import Counts
from fleetgate.load.steady import Steady
from fleetgate.load.watch.changes import Changes, Closing, Opening
from fleetgate.load.watch.fleet import LONGEST_KNOWN_MS, Fleet
from fleetgate.load.watch.judging import Judge
from fleetgate.load.watch.looks import LEVELS, Looks, SignalRows
from fleetgate.load.watch.measures import LOOK_MS, Span, measures, signal_keys, window_ms
from fleetgate.load.watch.telling import alert_of, series_of
from fleetgate.load.watch.turn import Turns
from fleetgate.load.watch.usual import LOOKS, Shapes

POLL_SECONDS = 0.1
"""Of the machine: a virtual clock may run sixty times as fast."""

AGAIN_SECONDS = 2.0
"""After ClickHouse was away."""

MOST_BEHIND = 3
"""Looks: then the rest of what is due is one."""

REMEMBERED_STEP_MS = 3 * LOOK_MS
"""At a start, in which the last half hour is looked at again."""

HOUR_MS = 3600 * 1000
DAYS = 8
LEAST_DAYS = 2
"""From so many earlier days on, the hours of a day are known."""

# The hour before belongs to the day of the hour: at midnight, to the next one.
_DAYS = """
SELECT tenant, kind, cohort, signal, min(middle - 6 * scatter) AS low, max(middle + 6 * scatter) AS high
FROM usual FINAL
WHERE hour >= fromUnixTimestamp({since:Int64}) AND hour < fromUnixTimestamp({until:Int64})
  AND toHour(hour, 'UTC') IN ({hour:UInt8}, {before:UInt8})
GROUP BY tenant, kind, cohort, signal
HAVING uniq(toDate(hour + if(toHour(hour, 'UTC') = {before:UInt8}, 3600, 0), 'UTC')) >= {days:UInt8}
"""

_SEEN = """
SELECT DISTINCT tenant, cohort FROM usual
WHERE hour >= fromUnixTimestamp({since:Int64}) AND hour < fromUnixTimestamp({until:Int64})
"""


class Watcher:
    """A thread of its own while entered. `reading` is a client of its own: a look does not wait for an insert.
    `untold` is what has changed and nobody was told yet, and when that was noticed (Unix ms): each try says the same
    time, as with another one an opening would be another alert."""

    def __init__(
        self,
        reading: ClickHouse,
        writing: ClickHouse,
        alerts: Alerts,
        catalogue: Catalogue,
        counts: Counts,
        clock: Clock,
        turns: Turns,
    ) -> None:
        self._reading = reading
        self._writing = writing
        self._looks = Looks(reading)
        self._alerts = alerts
        self._paths = catalogue.paths
        self._counts = counts
        self._clock = clock
        self._turns = turns
        self._log = log.get("watch")
        self._said = ""
        self._seen_ms = clock.now_ms()  # until then the last look saw; before the first one nothing was to be seen
        self._thread = Steady("watch", self._look_or_wait, anew=self._begin_anew)
        self._begin_anew()
        counts.watch_behind.set_function(lambda: (clock.now_ms() - self._seen_ms) / 1000)

    def __enter__(self) -> Watcher:
        self._thread.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.__exit__()

    def _look_or_wait(self) -> float:
        try:
            self.step()
        except (Refused, FleetgateError) as error:
            if str(error) != self._said:
                self._said = str(error)
                self._log.warning("watch_waits", error=self._said)
            return AGAIN_SECONDS
        self._said = ""
        return POLL_SECONDS

    def step(self) -> None:
        """What is due now, where it is this load's turn. Raises ClickHouseAway, Refused."""
        if not self._turns.mine():
            if self._at_ms is not None:
                self._begin_anew()
            if self._turns.elsewhere():
                self._seen_ms = self._clock.now_ms()  # the watch of that load tells how far it is behind
            return
        until_ms = self._turns.until_ms()
        if until_ms is not None:
            self.tell()
            self.look_until(until_ms)

    def look_until(self, until_ms: int) -> None:
        """What is due by then, while it is this load's turn; a watch that cannot keep up takes longer steps. Raises
        ClickHouseAway, Refused."""
        if self._at_ms is None or abs(until_ms - self._at_ms) > LOOKS * LOOK_MS:
            self._remember(until_ms)
        assert self._at_ms is not None  # set by it
        while (due := (until_ms - self._at_ms) // LOOK_MS) > 0 and not self._thread.stopping.is_set():
            started_s = time.monotonic()
            self._look(self._at_ms + LOOK_MS * (due if due > MOST_BEHIND else 1), mute=False)
            self._thread.stopping.wait(time.monotonic() - started_s)  # half of the time is load's
            if not self._turns.mine():
                return

    def _begin_anew(self) -> None:
        self._fleet = Fleet()
        self._judge = Judge()
        self._changes = Changes(self._judge)
        self.untold: deque[tuple[Opening | Closing, int]] = deque()
        self._shapes = Shapes(len(LEVELS))
        self._hour: int | None = None
        self._began_ms: int | None = None
        self._at_ms: int | None = None  # of the last look

    def _remember(self, until_ms: int) -> None:
        """Looks at the last half hour again, muted; at a start, or when so much came at once."""
        self._begin_anew()
        until_ms -= until_ms % LOOK_MS
        after_ms = until_ms - LOOKS * LOOK_MS
        self._resume(after_ms)
        first_ms = self._looks.first_pulse(after_ms)
        at_ms = until_ms if first_ms is None or first_ms > until_ms else first_ms - first_ms % LOOK_MS
        self._at_ms = at_ms
        while self._at_ms + REMEMBERED_STEP_MS <= until_ms and not self._thread.stopping.is_set():
            self._look(self._at_ms + REMEMBERED_STEP_MS, mute=True)
            self._turns.mine()

    def _resume(self, after_ms: int) -> None:
        """Alerts that are open. Who fell silent is told by what was heard before it; the looks begin only at
        `after_ms`."""
        self._alerts.read_again()
        silent_ms: dict[str, int] = {}
        for alert in self._alerts.now_open():
            series = series_of(alert)
            if series is None:
                continue
            since_ms = int(alert.detail.get("since_ms", alert.opened_at_ms))
            self._changes.resume(series, since_ms, alert.opened_at_ms, alert.vehicles)
            if series.kind == "silent":
                silent_ms[alert.tenant] = min(since_ms, silent_ms.get(alert.tenant, since_ms))
        for tenant, since_ms in silent_ms.items():
            known_ms = since_ms - LONGEST_KNOWN_MS
            if known_ms < after_ms:
                self._fleet.recall(self._looks.vehicles(known_ms, after_ms, tenant))

    def _look(self, at_ms: int, *, mute: bool) -> None:
        started_s = time.thread_time()
        assert self._at_ms is not None  # set by _remember
        self._new_hour(at_ms, mute)
        # Everything is asked before anything is taken: a look that fails on the way is made again.
        window = window_ms(self._fleet)
        heard = self._looks.vehicles(self._at_ms, at_ms)
        signals = self._looks.signals(at_ms - 2 * window, at_ms - window, at_ms)
        refusals = self._looks.refusals(at_ms - window, at_ms)
        self._fleet.take(heard, self._at_ms, at_ms)
        self._began_ms = self._began_ms or at_ms
        span = Span(at_ms, window, at_ms - self._began_ms)
        found = measures(self._fleet, signals, refusals, self._paths, self._shapes, span)
        changed_ms = self._clock.now_ms()
        changes = self._changes.look(found, at_ms, self._fleet.known_in, mute=mute)
        self.untold += [(change, changed_ms) for change in changes]
        self._learn(signals, at_ms)
        self._at_ms = self._seen_ms = at_ms
        self._counts.looks.inc()
        self._counts.look_cpu.inc(time.thread_time() - started_s)
        self.tell()

    def _learn(self, signals: SignalRows, at_ms: int) -> None:
        unsettled = self._changes.unsettled(at_ms)
        keys = signal_keys(signals)
        calm = [i for i, (cohort, number) in enumerate(keys) if (cohort, self._path(number)) not in unsettled]
        self._shapes.learn([keys[i] for i in calm], signals.shape[calm])

    def _path(self, number: int) -> str:
        return self._paths.get(number, str(number))

    def tell(self) -> None:
        """Behind the look, which is over: what cannot be told now is told with the next."""
        while self.untold:
            change, at_ms = self.untold[0]
            key = change.series.key
            at_ms = max(at_ms, self._alerts.newest_ms(key) + 1)  # the clock may have been set back since
            if isinstance(change, Closing):
                self._alerts.close(key, at_ms)
            else:
                self._alerts.open(alert_of(change, at_ms))
            self.untold.popleft()

    def _new_hour(self, at_ms: int, mute: bool) -> None:
        """At each full hour: keeps what was usual in the last half hour, and reads what was at this hour before."""
        hour = at_ms // HOUR_MS
        if hour == self._hour:
            return
        until = hour * HOUR_MS // 1000
        asked = {
            "since": until - DAYS * DAY_MS // 1000,
            "until": until - 2 * HOUR_MS // 1000,  # not this day's hour before
            "hour": hour % 24,
            "before": (hour - 1) % 24,
            "days": LEAST_DAYS,
        }
        days = {(t, k, c, s): (float(low), float(high)) for t, k, c, s, low, high in self._reading.rows(_DAYS, asked)}
        seen = {(t, c) for t, c in self._reading.rows(_SEEN, {"since": asked["since"], "until": until})}
        if self._hour is not None and not mute:
            self._keep(hour - 1)
            self._fleet.forget(self._changes.silent_since(at_ms))
            self._changes.forget()
            self._shapes.forget()
        self._hour = hour
        self._judge.earlier_days(days, seen)

    def _keep(self, hour: int) -> None:
        rows = [
            (*one.named, median, scatter, looks)
            for one, median, scatter, looks in self._judge.summary()
            if np.isfinite(median) and np.isfinite(scatter)
        ]
        if not rows:
            return
        names = ("tenant", "kind", "cohort", "signal", "middle", "scatter", "looks")
        kinds = (*[pa.string()] * 4, pa.float64(), pa.float64(), pa.uint32())
        columns = {
            name: pa.array(column, type=kind)
            for name, column, kind in zip(names, zip(*rows, strict=True), kinds, strict=True)
        }
        columns["hour"] = pa.array([hour * HOUR_MS // 1000] * len(rows), type=pa.uint32())
        token = hashlib.sha256(repr((hour, rows)).encode()).hexdigest()
        self._writing.insert("usual", pa.table(columns), f"usual-{token}")
