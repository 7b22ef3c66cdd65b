"""The page to send to a colleague: `summary.html`, one file that needs nothing else, with the verdict first.

Decides what a reader sees and in which order: whether it passed, against which limits, whether everything that was
acknowledged is stored, then how it went over time, and last what it cost. Charts are drawn by `charts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from pathlib import Path

from loadtest.charts import Chart, Line, svg
from loadtest.locust_counts import Counts
from loadtest.messages import SILENT, Messages, latency_ms, percentile
from loadtest.outcome import Run, Verdict
from loadtest.samples import Samples, Series
from loadtest.timeline import Timeline

_STYLE = Path(__file__).with_name("summary.css")
_SAYS = {
    "passed": "Every limit was kept.",
    "failed": "A limit was missed.",
    "invalid": "This run does not measure the gate: no figure of speed counts. In what was compared nothing is lost.",
}
_LIMITED = {
    "throughput_per_s": "events acknowledged, per second",
    "ack_p99_ms": "time to the durable acknowledgement, p99, in ms",
    "error_share": "share of requests that failed",
    "unanswered_share": "share of messages without an answer, or never sent",
    "query_error_share": "share of analysts' questions that failed",
    "lost": "events acknowledged and not stored",
    "duplicated": "rows beyond the first of an event",
    "unexpected": "rows of what was refused or never sent",
    "false_refusals": "messages of honest devices refused",
    "false_quarantines": "honest devices in quarantine",
    "attacks_accepted": "hostile messages taken for good ones",
}
_STORED = (
    ("sent", "events sent"),
    ("acknowledged", "events acknowledged"),
    ("stored", "events stored"),
    ("lost", "acknowledged and not stored"),
    ("duplicated", "stored more than once"),
    ("unexpected", "stored, though refused or never sent"),
)


def page(verdict: Verdict, messages: Messages, counts: Counts | None, samples: Samples) -> str:
    """The whole document."""
    run, status = verdict.run, verdict.status
    title = f"Load test {run.shape}: {status}"
    parts = [
        f"<header class='{status}'><h1>{escape(title)}</h1>",
        f"<p>{_SAYS[status]} {_moment(run.started_ms)}, {run.seconds:,.0f} s.</p></header>",
        _reasons("Why it is invalid", verdict.invalid),
        _reasons("To know", verdict.notes),
        "<section><h2>Limits</h2>",
        _table(
            ("", "figure", "value", "limit", ""),
            (
                (_LIMITED[one.name], one.name, number(one.value), one.bound, "kept" if one.met else "missed")
                for one in verdict.findings
            ),
        ),
        "</section>",
        _stored(verdict),
        "<section><h2>Over time</h2>",
        *(svg(chart) for chart in _charts(verdict, messages, counts, samples)),
        "</section>",
        "<section><h2>Latency by kind</h2><p>Milliseconds from when a message was due to its durable "
        f"acknowledgement. {_lateness(verdict)}</p>",
        _table(("kind", "messages", "p50", "p95", "p99", "p99.9"), _kinds(messages, verdict.run)),
        "</section>",
        _answers(messages),
        _requests(counts),
        _processes(samples),
        "<section><h2>The run</h2>",
        _table(("", ""), (_fact(name, value) for name, value in run.facts.items())),
        "</section>",
    ]
    style = _STYLE.read_text()
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
        f"content='width=device-width'><title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def number(value: float | None) -> str:
    """Whole thousands apart, or three digits that count."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def _moment(at_ms: float) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _fact(name: str, value: object) -> tuple[str, str]:
    """A field of `run.json`, for a person: a time in UTC, the parts of an object one after another."""
    if name.endswith("_ms") and isinstance(value, int | float):
        return name.removesuffix("_ms"), _moment(value)
    if isinstance(value, dict):
        return name, ", ".join(f"{part} {each}" for part, each in value.items())
    return name, number(value) if isinstance(value, float) else str(value)


def _charts(verdict: Verdict, messages: Messages, counts: Counts | None, samples: Samples) -> Iterable[Chart]:
    run, limits = verdict.run, {one.name: one.limit for one in verdict.findings}
    timeline = Timeline(messages, run.started_ms / 1000, run.seconds)
    away = list(_bands(samples.metric("load", "fleetgate_load_clickhouse_away"), "ClickHouse away"))
    yield Chart(
        "Throughput",
        "events/s",
        [Line("due", timeline.due_per_s()), Line("acknowledged", timeline.acknowledged_per_s())],
        run.seconds,
        "Events of honest devices, when they were due and when their acknowledgement came.",
        ("limit", limits["throughput_per_s"]),
    )
    users = counts.users if counts is not None else []
    at_s = [look.at_s for look in users]
    yield Chart(
        "Users",
        "users",
        [
            Line("wanted", Series(at_s, [float(look.wanted) for look in users])),
            Line("there", Series(at_s, [float(look.there) for look in users])),
        ],
        run.seconds,
        "Vehicles, analysts and attackers that the shape asked for, and that there were.",
    )
    yield Chart(
        "Latency",
        "ms",
        [Line(f"p{percent}", timeline.latency_ms(percent)) for percent in (50, 95, 99)],
        run.seconds,
        "From when a message was due (where it is drawn) to its durable acknowledgement, or to the end of the run.",
        ("limit of the p99 over the whole run", limits["ack_p99_ms"]),
    )
    yield Chart(
        "Spool lag",
        "s",
        [
            Line("oldest segment not loaded", samples.metric("load", "fleetgate_load_lag_seconds")),
            Line("oldest segment in the spool", samples.metric("edge", "fleetgate_spool_oldest_seconds")),
        ],
        run.seconds,
        "How far ClickHouse is behind the vehicles. Loaded segments stay in the spool for a while.",
        bands=away,
    )
    yield Chart(
        "CPU",
        "cores",
        [Line(name, samples.cpu(name)) for name in samples.processes()],
        run.seconds,
        "Cores used by each process of the gate and of the generator.",
    )
    yield Chart(
        "Pressure on the generator",
        "share",
        [Line(name, samples.pressure(name)) for name in samples.generator()],
        run.seconds,
        "Share of the time in which a process of the generator ran, or waited for a CPU. Peaks are no harm; a run that "
        "stays above the limit measures the generator, and is invalid.",
        ("limit", verdict.pressure_limit),
    )


def _bands(series: Series, what: str) -> Iterable[tuple[float, float, str]]:
    """Where a figure that is 0 or 1 was 1."""
    for (begin, value), (end, _) in pairwise(zip(*series, strict=True)):
        if value:
            yield begin, end, what


def _reasons(title: str, reasons: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    return f"<section><h2>{title}</h2><ul>{items}</ul></section>" if reasons else ""


def _stored(verdict: Verdict) -> str:
    found = verdict.reconciled
    if found is None:
        return "<section><h2>Sent and stored</h2><p class='none'>could not be compared</p></section>"
    rows = [(what, number(getattr(found, name))) for name, what in _STORED]
    wrong = [*found.examples, *(f"{device}: in quarantine" for device in found.false_quarantines or ())]
    return (
        "<section><h2>Sent and stored</h2><p>Every message of the generator's journals, compared with the rows in "
        f"ClickHouse when the run was over.</p>{_table(('', 'events'), rows)}{_reasons('For example', wrong)}</section>"
    )


def _lateness(verdict: Verdict) -> str:
    late_ms = verdict.beside["sent_late_p99_ms"]
    if late_ms is None:
        return ""
    return (
        f"One in a hundred had not left the vehicle after {number(late_ms)} ms: it waited for its connection, for the "
        "gate to take more of it, or for a generator that was busy."
    )


def _kinds(messages: Messages, run: Run) -> Iterable[tuple[str, ...]]:
    for kind, records in messages.kinds().items():
        waits = latency_ms(records, run.ended_ms / 1000)
        yield (kind, number(len(records)), *(number(percentile(waits, percent)) for percent in (50, 95, 99, 99.9)))


def _answers(messages: Messages) -> str:
    honest, hostile = messages.answers(honest=True), messages.answers(honest=False)
    rows = [
        (
            f"no answer ({label})" if label in SILENT else label,
            number(honest.get(label, 0)),
            number(hostile.get(label, 0)),
        )
        for label in dict.fromkeys([*honest, *hostile])
    ]
    return f"<section><h2>Answers</h2>{_table(('answer', 'to honest devices', 'to attackers'), rows)}</section>"


def _requests(counts: Counts | None) -> str:
    rows = (
        (row.kind, row.name, number(row.requests), number(row.failures), number(row.p50_ms), number(row.p99_ms))
        for row in (counts.requests if counts is not None else [])
    )
    head = ("type", "name", "requests", "failures", "p50 ms", "p99 ms")
    return f"<section><h2>Requests, as locust counted them</h2>{_table(head, rows)}</section>"


def _processes(samples: Samples) -> str:
    rows = []
    for name in samples.processes():
        cpu, pressure = samples.cpu(name), samples.pressure(name)
        most = max(cpu.values, default=None)
        ended = " (ended before the run did)" if name in samples.ended() else ""
        rows.append((name + ended, *map(number, (cpu.mean, most, pressure.mean, samples.memory_mb(name)))))
    head = ("process", "cores, mean", "cores, most", "pressure, mean", "memory, MiB")
    share = samples.machine().mean
    busy = f"<p>Of all CPUs of the machine {share:.0%} were in use, by whomever.</p>" if share is not None else ""
    return f"<section><h2>What it cost</h2>{_table(head, rows)}{busy}</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Text of its cells is escaped here."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
