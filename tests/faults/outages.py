"""ClickHouse goes wrong, in each way that a database behind a network can. The vehicles must not notice any of it.

What is between load and ClickHouse is broken in the proxy, what is in ClickHouse itself by SQL past it. While it is
broken fresh messages must be acknowledged and the edge be ready all the same; afterwards the oracle looks at what the
repetitions did.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

from tests.faults.processes import Process, restart
from tests.faults.proxy import Behaviour, Forward, Reply, Request
from tests.faults.registry import fault
from tests.faults.trial import Trial
from tests.gate import until

OUTAGE_SECONDS = (1.0, 3.0)
UNNOTICED_SECONDS = 20.0
STRUCK_SECONDS = 30.0
OUT_OF_MEMORY = b"Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED)\n"


def unnoticed(trial: Trial) -> None:
    """Every car is acknowledged fresh messages, and the edge says that it is ready."""
    trial.fleet.fresh(UNNOTICED_SECONDS)
    status, why = trial.edge.admin("/readyz")
    assert status == 200, why
    trial.pass_time(*OUTAGE_SECONDS)


def struck(trial: Trial, times: int = 1) -> None:
    until(lambda: trial.proxy.struck >= times, f"the fault strikes {times} times", STRUCK_SECONDS)


@contextmanager
def behaving(trial: Trial, behaviour: Behaviour) -> Iterator[None]:
    """ClickHouse answers like this for as long as the block lasts, and then as it should."""
    trial.proxy.behaviour = behaviour
    yield
    trial.proxy.heal()


def hanging(trial: Trial, *, after_commit: bool) -> Behaviour:
    """Takes requests, does them or not, and never answers."""

    def hang(_request: Request, forward: Forward) -> Reply | None:
        if after_commit:
            forward()
        trial.proxy.strike()
        trial.proxy.healed.wait(60)
        return None

    return hang


@fault("ClickHouse refuses connections, and those that were open are gone.")
def clickhouse_refusing(trial: Trial) -> None:
    trial.proxy.refuse()
    unnoticed(trial)
    trial.proxy.listen_again()


@fault("ClickHouse takes requests and never answers; in the end the connections break.")
def clickhouse_hanging(trial: Trial) -> None:
    with behaving(trial, hanging(trial, after_commit=False)):
        struck(trial)
        unnoticed(trial)


@fault("ClickHouse does the insert and never answers: the connection breaks long after.")
def clickhouse_hanging_after_commit(trial: Trial) -> None:
    with behaving(trial, hanging(trial, after_commit=True)):
        struck(trial)
        unnoticed(trial)


@fault("ClickHouse is slow: each statement takes 0.5 to 1 s longer, so load falls behind and catches up.")
def clickhouse_slow(trial: Trial) -> None:
    def slow(_request: Request, forward: Forward) -> Reply | None:
        trial.proxy.strike()
        time.sleep(trial.rng.uniform(0.5, 1.0))
        return forward()

    with behaving(trial, slow):
        struck(trial, 5)
        unnoticed(trial)


def token_of(request: Request) -> str:
    return dict(parse_qsl(urlsplit(request.path).query)).get("insert_deduplication_token", "")


def _first_tries(trial: Trial, spoil: Callable[[Forward], Reply | None]) -> Behaviour:
    """Spoils the first one or two tries of each insert, told by its token, of every table."""
    tries: Counter[str] = Counter()

    def behave(request: Request, forward: Forward) -> Reply | None:
        token = token_of(request)
        tries[token] += 1
        if not token or tries[token] > 1 + len(token) % 2:
            return forward()
        trial.proxy.strike()
        return spoil(forward)

    return behave


@fault(
    "The connection is cut after ClickHouse committed and before it answered: the first tries of every insert.",
    quick=True,
)
def clickhouse_cut_after_commit(trial: Trial) -> None:
    def cut(forward: Forward) -> Reply | None:
        forward()
        return None

    with behaving(trial, _first_tries(trial, cut)):
        struck(trial, 12)
        unnoticed(trial)


@fault("The connection is cut before the insert arrived: the first tries of every insert.")
def clickhouse_cut_before_commit(trial: Trial) -> None:
    with behaving(trial, _first_tries(trial, lambda _forward: None)):
        struck(trial, 20)
        unnoticed(trial)


def _answering(trial: Trial, status: int, text: bytes, headers: dict[str, str]) -> None:
    """For every statement, and for every second one after it was done: who answers so may have worked before."""

    def busy(_request: Request, forward: Forward) -> Reply | None:
        trial.proxy.strike()
        if trial.proxy.struck % 2:
            forward()
        return Reply(status, text, headers)

    with behaving(trial, busy):
        struck(trial, 3)
        unnoticed(trial)


@fault("ClickHouse, or a balancer before it, answers 429.")
def clickhouse_answering_429(trial: Trial) -> None:
    _answering(trial, 429, b"too many requests\n", {"Retry-After": "1"})


@fault("ClickHouse, or a balancer before it, answers 503.")
def clickhouse_answering_503(trial: Trial) -> None:
    _answering(trial, 503, b"<html>Service Unavailable</html>\n", {})


@fault("ClickHouse is out of memory, before an insert or in the middle of one.")
def clickhouse_out_of_memory(trial: Trial) -> None:
    _answering(trial, 500, OUT_OF_MEMORY, {"X-ClickHouse-Exception-Code": "241"})


@fault("All of that in turn, drawn anew for each statement, with load killed in the middle.")
def clickhouse_in_turmoil(trial: Trial) -> None:
    def tumble(_request: Request, forward: Forward) -> Reply | None:
        luck = trial.rng.random()
        if luck < 0.4:
            return forward()
        trial.proxy.strike()
        if luck < 0.8:
            reply = forward()
            time.sleep(0.1)
            return reply if luck < 0.5 else None
        return Reply(503, b"busy\n", {}) if luck < 0.9 else Reply(500, OUT_OF_MEMORY, {})

    with behaving(trial, tumble):
        struck(trial, 10)
        trial.load.kill()
        restart(trial.load)
        struck(trial, 20)
        unnoticed(trial)


@fault("kill -9 of the ClickHouse server, three times, at random moments of inserts and merges.")
def clickhouse_killed(trial: Trial) -> None:
    server = ours(trial)
    for _ in range(3):
        trial.pass_time(0.3, 1.5)
        server.kill()
        unnoticed(trial)
        restart(server)


def ours(trial: Trial) -> Process:
    """The stand-in's process; a real server is not this suite's to kill."""
    if trial.server.process is None:
        trial.skip("CLICKHOUSE_URL names a server that is not this suite's to kill")
    assert trial.server.process is not None
    return trial.server.process


@fault(
    "kill -9 of the ClickHouse server between a table and its views: rows in `events`, none in `signal_minute`.",
    quick=True,
)
def clickhouse_killed_between_table_and_views(trial: Trial) -> None:
    server, clickhouse = ours(trial), trial.clickhouse()
    # A view's target that takes its time: the table's part is committed by then.
    clickhouse.command("ALTER TABLE signal_minute ADD CONSTRAINT pause CHECK sleepEachRow(0.5) = 0")
    until(lambda: _readings_missing(trial) > 0, "rows are in the table and not in its view", STRUCK_SECONDS)
    server.kill()
    restart(server)
    clickhouse.command("ALTER TABLE signal_minute DROP CONSTRAINT pause")


def _readings_missing(trial: Trial) -> int:
    """Plausible readings of `events` that the rollup does not have."""
    [[missing]] = trial.clickhouse().rows(
        "SELECT (SELECT sum(arrayCount(signal -> NOT has(implausible, signal), signal_ids)) FROM events)"
        " - (SELECT sum(readings) FROM signal_minute)"
    )
    return int(missing)


@fault("A view fails in the middle of inserts: the table has the rows, the rollups do not, and the insert is repeated.")
def clickhouse_view_failing(trial: Trial) -> None:
    clickhouse = trial.clickhouse()
    clickhouse.command("ALTER TABLE fleet_minute ADD CONSTRAINT broken CHECK throwIf(events > 0) = 0")
    until(lambda: "throwIf" in trial.load.last_words(), "load is told", STRUCK_SECONDS)
    unnoticed(trial)
    clickhouse.command("ALTER TABLE fleet_minute DROP CONSTRAINT broken")


@fault("A table is dropped and restored: `events`, a rollup, `raw_messages` and `segments`, one after the other.")
def clickhouse_table_dropped(trial: Trial) -> None:
    clickhouse = trial.clickhouse()
    for table in ("events", "signal_minute", "raw_messages", "segments"):
        clickhouse.command(f"DROP TABLE {table}")
        words = trial.load.log_file.stat().st_size
        until(lambda: "UNKNOWN_TABLE" in trial.load.log_since(words), f"load misses {table}", STRUCK_SECONDS)  # noqa: B023
        unnoticed(trial)
        clickhouse.command(f"UNDROP TABLE {table}")
        trial.await_progress()
