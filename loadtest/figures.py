"""The figures of a run that thresholds limit, and those that a reader wants beside them.

Decides how each is counted; docs/reference/load-test-verdict.md says it for people.
"""

from __future__ import annotations

from collections.abc import Iterable

from loadtest.hostile import KINDS
from loadtest.locust_counts import Counts, Requests
from loadtest.messages import SILENT, Messages, late_ms, latency_ms, percentile
from loadtest.reconcile import Reconciliation

Figures = dict[str, float | None]
"""None: could not be counted."""

ATTACK, QUERY = "ATTACK", "POST"
"""What locust calls the requests of attackers and of analysts; every other is a vehicle's."""

_CAUGHT = {kind.name: kind.caught for kind in KINDS}


def limited(
    messages: Messages, counts: Counts | None, reconciled: Reconciliation | None, started_s: float, ended_s: float
) -> Figures:
    """What thresholds limit. Without a reconciliation nothing is known of what is stored. Times in Unix seconds."""
    acknowledged, due = messages.acknowledged, messages.due
    requests = counts.requests if counts is not None else []
    _, taken = messages.attacks(_CAUGHT)
    found: Figures = {
        "throughput_per_s": float(acknowledged["events"].sum()) / (ended_s - started_s),
        "ack_p99_ms": percentile(latency_ms(messages.waited, ended_s), 99),
        "error_share": _failed(one for one in requests if one.kind not in (ATTACK, QUERY)),
        "unanswered_share": len(messages.among(due, SILENT)) / len(due) if len(due) else None,
        # A run without analysts has no failed question.
        "query_error_share": _failed(one for one in requests if one.kind == QUERY) or 0.0 if counts else None,
        "false_refusals": sum(messages.refused().values()),
        "attacks_accepted": taken,
    }
    if reconciled is not None:
        wronged = reconciled.false_quarantines
        found |= {
            "lost": reconciled.lost,
            "duplicated": reconciled.duplicated,
            "unexpected": reconciled.unexpected,
            "false_quarantines": None if wronged is None else len(wronged),
        }
    return found


def beside(messages: Messages, ended_s: float) -> Figures:
    """What explains them: more of the latency, how late messages left the generator, how many attacks there were."""
    waited, acknowledged = messages.waited, messages.acknowledged
    waits = latency_ms(waited, ended_s)
    return {
        "messages_acknowledged": len(acknowledged),
        **{f"ack_p{name}_ms": percentile(waits, value) for name, value in (("50", 50), ("95", 95), ("999", 99.9))},
        "ack_max_ms": percentile(waits, 100),
        "sent_late_p99_ms": percentile(late_ms(acknowledged), 99),
        "attacks_answered": messages.attacks(_CAUGHT)[0],
    }


def _failed(requests: Iterable[Requests]) -> float | None:
    """The share of failures; None without any request."""
    asked = failed = 0
    for one in requests:
        asked, failed = asked + one.requests, failed + one.failures
    return failed / asked if asked else None
