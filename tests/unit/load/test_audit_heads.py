"""What load does when the end of the audit is not signed: it says so, once, and goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from fleetgate.control.auditheads import AuditChanged
from fleetgate.control.signing import SignerAway, SignerRefused
from fleetgate.errors import ControlAway
from fleetgate.load.auditheads import AuditHeads
from fleetgate.load.counts import Counts


class Signing:
    """Stands for control and signer: raises what is set, else signs."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __call__(self, on_behind: Callable[[int], None]) -> int:
        on_behind(3)
        if self.error is not None:
            raise self.error
        on_behind(0)
        return 2


@pytest.mark.parametrize(
    ("error", "metric", "labels"),
    [
        (SignerAway("away"), "fleetgate_load_signer_away", {}),
        (SignerRefused("rollback", "x"), "fleetgate_load_audit_heads_refused_total", {"reason": "rollback"}),
        (AuditChanged("x"), "fleetgate_load_audit_heads_refused_total", {"reason": "changed"}),
        (ControlAway("x"), "fleetgate_load_audit_unsigned_rows", {}),
    ],
)
def test_what_went_wrong_is_said_once_and_counted(error: Exception, metric: str, labels: dict[str, str]) -> None:
    """And the next round that succeeds ends it."""
    registry = CollectorRegistry()
    signing = Signing()
    heads = AuditHeads(signing, Counts(registry))
    with capture_logs() as said:
        signing.error = error
        heads.round()
        heads.round()
        assert (registry.get_sample_value(metric, labels) or 0) > 0
        signing.error = None
        heads.round()
    assert [line["event"] for line in said] == ["audit_head_not_signed"]
    assert registry.get_sample_value("fleetgate_load_audit_heads_total") == 2
    assert registry.get_sample_value("fleetgate_load_audit_unsigned_rows") == 0
    assert registry.get_sample_value("fleetgate_load_signer_away") == 0
