"""The figures of a run that thresholds limit, and those that a reader wants beside them.

Decides how each is counted; docs/reference/load-test-verdict.md says it for people.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.journal import UNANSWERED
from loadtest.locust_csv import Requests
from loadtest.messages import Messages, late_ms, latency_ms, percentile
from loadtest.reconcile import Reconciliation

Figures = dict[str, float | None]
"""None: could not be counted."""


def limited(
    messages: Messages, requests: Sequence[Requests], reconciled: Reconciliation | None, seconds: float
) -> Figures:
    """What thresholds limit. Without a reconciliation nothing is known of what is stored."""
    acknowledged = messages.acknowledged
    of_honest = messages.answers(honest=True)
    asked, failed = sum(row.requests for row in requests), sum(row.failures for row in requests)
    found: Figures = {
        "throughput_per_s": float(acknowledged["events"].sum()) / seconds,
        "ack_p99_ms": percentile(latency_ms(acknowledged), 99),
        "error_share": failed / asked if asked else None,
        "unanswered_share": of_honest.get(UNANSWERED, 0) / total if (total := sum(of_honest.values())) else None,
        "false_refusals": sum(messages.refused().values()),
    }
    if reconciled is not None:
        found |= {
            "lost": reconciled.lost,
            "duplicated": reconciled.duplicated,
            "unexpected": reconciled.unexpected,
            "false_quarantines": len(reconciled.false_quarantines),
        }
    return found


def beside(messages: Messages) -> Figures:
    """What explains them: more of the latency, and how late messages left the generator."""
    acknowledged = messages.acknowledged
    waits, lateness = latency_ms(acknowledged), late_ms(acknowledged)
    return {
        "messages_acknowledged": len(acknowledged),
        **{f"ack_p{name}_ms": percentile(waits, value) for name, value in (("50", 50), ("95", 95), ("999", 99.9))},
        "ack_max_ms": percentile(waits, 100),
        "sent_late_p99_ms": percentile(lateness, 99),
    }
