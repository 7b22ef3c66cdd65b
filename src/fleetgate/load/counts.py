"""Load's figures for Prometheus: counted once for each segment or insert, never for a row."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.registry import CollectorRegistry

INSERT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counts:
    """Labels come from closed sets: `outcome` is loaded, repeated or parked; `table` one of ours."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.segments = Counter(
            "fleetgate_load_segments", "Segments done with, by outcome.", ["outcome"], registry=registry
        )
        self.rows = Counter("fleetgate_load_rows", "Rows that ClickHouse confirmed.", ["table"], registry=registry)
        self.insert_seconds = Histogram(
            "fleetgate_load_insert_seconds",
            "Time of one confirmed insert.",
            ["table"],
            buckets=INSERT_BUCKETS,
            registry=registry,
        )
        self.retries = Counter(
            "fleetgate_load_retries", "Tries that failed and were repeated.", ["what"], registry=registry
        )
        self.damaged = Counter(
            "fleetgate_load_damaged_records", "Records of segments that could not be read.", registry=registry
        )
        self.transitions = Counter(
            "fleetgate_load_transitions", "Transitions handed to control, by outcome.", ["outcome"], registry=registry
        )
        self.parked = Gauge("fleetgate_load_parked_segments", "Segments set aside.", registry=registry)
        self.refused = Counter(
            "fleetgate_load_refused_rows", "Rows that ClickHouse refused.", ["table"], registry=registry
        )
        self.away = Gauge("fleetgate_load_clickhouse_away", "1 while ClickHouse takes nothing.", registry=registry)
        self.heads = Counter(
            "fleetgate_load_heads", "Heads of the chain of segments that were signed.", registry=registry
        )
        self.heads_refused = Counter(
            "fleetgate_load_heads_refused", "Heads that the signer refused, by reason.", ["reason"], registry=registry
        )
        self.unsigned = Gauge(
            "fleetgate_load_unsigned_segments", "Segments behind the newest signed head.", registry=registry
        )
        self.audit_heads = Counter(
            "fleetgate_load_audit_heads", "Heads of the audit that were signed.", registry=registry
        )
        self.audit_heads_refused = Counter(
            "fleetgate_load_audit_heads_refused",
            "Heads of the audit that were not signed, by reason.",
            ["reason"],
            registry=registry,
        )
        self.audit_unsigned = Gauge(
            "fleetgate_load_audit_unsigned_rows", "Rows of the audit behind its newest signed head.", registry=registry
        )
        self.signer_away = Gauge("fleetgate_load_signer_away", "1 while the signer does not answer.", registry=registry)
        self.watch_behind = Gauge(
            "fleetgate_watch_behind_seconds",
            "Age of what the last look of the watch saw; about 11 while all is well.",
            registry=registry,
        )
        self.looks = Counter("fleetgate_watch_looks", "Looks of the watch at the fleet.", registry=registry)
        self.look_cpu = Counter(
            "fleetgate_watch_cpu_seconds", "CPU of them, without that of ClickHouse.", registry=registry
        )
        self.alerts_open = Gauge("fleetgate_alerts_open", "Alerts that are open, by kind.", ["kind"], registry=registry)
        self.webhook_deliveries = Counter(
            "fleetgate_webhook_deliveries",
            "Tries to tell a webhook an alert, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.webhooks_waiting = Gauge(
            "fleetgate_webhook_deliveries_waiting", "Alerts that a webhook has not taken yet.", registry=registry
        )
        self.released = Counter(
            "fleetgate_load_released_events", "Held events that a decision released into `events`.", registry=registry
        )
        self.releases_waiting = Gauge(
            "fleetgate_load_releases_waiting", "Devices whose held events may have to be released.", registry=registry
        )
