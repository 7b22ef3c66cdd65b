"""The edge's figures, counted in plain integers on the road and read by Prometheus when it asks.

Labels come from closed sets; never a vehicle or device. A histogram is observed once a batch, not once an event.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from fleetgate.accept.breaker import Phase
from fleetgate.accept.disorder import Disorder
from fleetgate.accept.limits import no_hits
from fleetgate.control.records import DeviceState
from fleetgate.control.renewalform import Refusal
from fleetgate.judge import Outcome, Reason
from fleetgate.judge.verdict import STEP_OF

if TYPE_CHECKING:
    from fleetgate.accept.edge import Edge

TRANSPORTS = ("mqtt", "https")
RENEWAL_OUTCOMES = ("renewed", *(refusal.value for refusal in Refusal))
EFFECT_BUCKETS = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0, 30.0, 300.0)  # the promise is 2 s; minutes where control was away
ACK_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Counts:
    """What the road counts since the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.outcomes = {transport: [0] * (max(Outcome) + 1) for transport in TRANSPORTS}  # indexed by Outcome
        self.reasons = {transport: dict.fromkeys(Reason, 0) for transport in TRANSPORTS}
        self.disorder = dict.fromkeys(Disorder, 0)
        self.transitions = dict.fromkeys(DeviceState, 0)
        self.acks = dict.fromkeys(TRANSPORTS, 0)
        self.events = 0
        self.bytes = 0
        self.commits = 0
        self.connections = dict.fromkeys(TRANSPORTS, 0)
        self.refused_connections = dict.fromkeys(Reason, 0)
        self.limit_hits = no_hits()
        self.renewals = dict.fromkeys(RENEWAL_OUTCOMES, 0)
        self.protocol_errors = 0
        self.failed_handshakes = 0
        self.commit_seconds = Histogram(
            "fleetgate_commit_seconds", "Time of one group commit.", buckets=ACK_BUCKETS, registry=registry
        )
        self.ack_seconds = Histogram(
            "fleetgate_ack_seconds",
            "From reading a batch off the socket to sending its acknowledgements.",
            buckets=ACK_BUCKETS,
            registry=registry,
        )
        self._effect_seconds = Histogram(
            "fleetgate_decision_to_effect_seconds",
            "From a person's decision to the end of the live session that it refuses.",
            buckets=EFFECT_BUCKETS,
            registry=registry,
        )

    def took_effect(self, after_ms: int) -> None:
        """A session has ended, that long after somebody decided so (by two machines' clocks)."""
        self._effect_seconds.observe(max(0, after_ms) / 1000)


class EdgeCollector(Collector):
    """Turns the counts and the state of the edge into Prometheus families at scrape time."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def collect(self) -> Iterator[Metric]:
        yield from self._road()
        yield from self._connections()
        yield from self._state()

    def _road(self) -> Iterator[Metric]:
        counts = self._edge.counts
        messages = CounterMetricFamily(
            "fleetgate_messages", "Messages judged, by outcome.", labels=["outcome", "transport"]
        )
        rejections = CounterMetricFamily(
            "fleetgate_rejections", "Refused messages.", labels=["step", "reason", "transport"]
        )
        acks = CounterMetricFamily("fleetgate_acks", "Answers sent after a commit.", labels=["transport"])
        for transport in TRANSPORTS:
            for outcome in Outcome:
                messages.add_metric([outcome.name.lower(), transport], counts.outcomes[transport][outcome])
            for reason, count in counts.reasons[transport].items():
                rejections.add_metric([str(STEP_OF[reason]), reason.value, transport], count)
            acks.add_metric([transport], counts.acks[transport])
        yield from (messages, rejections, acks)
        yield CounterMetricFamily("fleetgate_events", "Events in stored messages.", value=counts.events)
        yield CounterMetricFamily("fleetgate_stored_bytes", "Envelope bytes stored.", value=counts.bytes)
        yield CounterMetricFamily("fleetgate_commits", "Group commits.", value=counts.commits)
        disorder = CounterMetricFamily(
            "fleetgate_disorder", "Messages that were not simply the next one, by class.", labels=["class"]
        )
        for each, count in counts.disorder.items():
            disorder.add_metric([each.value], count)
        yield disorder
        hits = CounterMetricFamily(
            "fleetgate_limit_hits", "Times that a limit made somebody wait.", labels=["level", "quantity"]
        )
        for (level, quantity), count in counts.limit_hits.items():
            hits.add_metric([level.value, quantity.value], count)
        yield hits
        transitions = CounterMetricFamily(
            "fleetgate_transitions", "Devices that this edge moved to a state.", labels=("state",)
        )
        for state, count in counts.transitions.items():
            transitions.add_metric([state.value], count)
        yield transitions

    def _connections(self) -> Iterator[Metric]:
        counts = self._edge.counts
        open_now = GaugeMetricFamily("fleetgate_connections", "Open connections.", labels=["transport"])
        for transport, count in counts.connections.items():
            open_now.add_metric([transport], count)
        yield open_now
        refused = CounterMetricFamily(
            "fleetgate_refused_connections", "Connections refused after the handshake.", labels=["reason"]
        )
        for reason, count in counts.refused_connections.items():
            refused.add_metric([reason.value], count)
        yield refused
        renewals = CounterMetricFamily(
            "fleetgate_renewals", "Certificates that devices asked to renew.", labels=["outcome"]
        )
        for outcome, count in counts.renewals.items():
            renewals.add_metric([outcome], count)
        yield renewals
        yield CounterMetricFamily(
            "fleetgate_protocol_errors", "Connections ended for breaking MQTT.", value=counts.protocol_errors
        )
        yield CounterMetricFamily(
            "fleetgate_failed_handshakes", "TLS handshakes that failed.", value=counts.failed_handshakes
        )

    def _state(self) -> Iterator[Metric]:
        edge = self._edge
        yield CounterMetricFamily(
            "fleetgate_files_replaced",
            "Times that certificate, bundle, keyring or configuration were replaced and took effect.",
            value=edge.files.replaced,
        )
        yield GaugeMetricFamily(
            "fleetgate_files_refused",
            "1 while those on the disk cannot be used and the edge goes on with the former ones.",
            value=float(bool(edge.files.refused)),
        )
        holds = GaugeMetricFamily(
            "fleetgate_breaker_alerts",
            "Cohorts that are kept out of quarantine, or were for a day and are still in trouble.",
            labels=["kind"],
        )
        kinds = [record.kind for record in edge.breaker.now_open()]
        for kind in (Phase.HELD, Phase.SPENT):
            holds.add_metric([kind.value], kinds.count(kind.value))
        yield holds
        crls = GaugeMetricFamily(
            "fleetgate_crls", "Revocation lists: stale past nextUpdate, expired past the grace too.", labels=["age"]
        )
        for age in ("fresh", "stale", "expired"):
            crls.add_metric([age], edge.lists.ages.count(age))
        yield crls
        yield GaugeMetricFamily(
            "fleetgate_crls_refused",
            "Sources whose newest revocation list cannot be had or used: the former one stays.",
            value=float(edge.lists.refused),
        )
        yield GaugeMetricFamily("fleetgate_ready", "1 while the edge can store.", value=float(edge.room.open))
        yield GaugeMetricFamily("fleetgate_spool_bytes", "Bytes in the spool.", value=edge.spool.writer.total_bytes)
        yield GaugeMetricFamily(
            "fleetgate_spool_segments", "Sealed segments not yet deleted.", value=len(edge.spool.writer.sealed_sizes)
        )
        yield GaugeMetricFamily(
            "fleetgate_spool_oldest_seconds",
            "Age of the oldest segment in the spool.",
            value=edge.spool_age_seconds(),
        )
        yield GaugeMetricFamily("fleetgate_spool_free_bytes", "Free bytes on its disk.", value=edge.room.free_bytes)
        yield GaugeMetricFamily(
            "fleetgate_spool_full_ratio", "1 where the spool or its disk takes no more.", value=edge.room.full_share
        )
        yield GaugeMetricFamily(
            "fleetgate_spool_full_seconds",
            "Until then at the pace of the last three minutes; +Inf while it does not grow.",
            value=edge.room.full_seconds,
        )
        yield from self._evidence()
        yield GaugeMetricFamily("fleetgate_devices_in_memory", "Devices the edge has in memory.", value=len(edge.fleet))
        yield GaugeMetricFamily(
            "fleetgate_control_answers", "1 while control answers.", value=float(edge.contact.answers)
        )
        yield GaugeMetricFamily(
            "fleetgate_control_older_than_seen",
            "1 when control is older than what this edge has seen of it: restored from a backup?",
            value=float(edge.changes.older_than_seen),
        )
        yield CounterMetricFamily(
            "fleetgate_control_restores",
            "Times that control was found to have gone on from an older day: refusals were learnt anew.",
            value=edge.changes.restores,
        )
        yield GaugeMetricFamily("fleetgate_control_revision", "Revision taken over.", value=edge.changes.revision)

    def _evidence(self) -> Iterator[Metric]:
        witness, keeper = self._edge.witness, self._edge.witness.keeper
        samples = CounterMetricFamily(
            "fleetgate_evidence_samples",
            "Refused messages: kept as a sample, passed over in a flood, or lost for a full queue or disk.",
            labels=["fate"],
        )
        for fate, count in (("kept", keeper.kept), ("passed_over", witness.passed_over), ("lost", keeper.lost)):
            samples.add_metric([fate], count)
        yield samples
        yield GaugeMetricFamily("fleetgate_evidence_bytes", "Bytes that samples take.", value=keeper.bytes)
        yield GaugeMetricFamily(
            "fleetgate_evidence_failing",
            "1 while no sample can be kept; telemetry and counts go on.",
            value=float(bool(keeper.failing)),
        )
