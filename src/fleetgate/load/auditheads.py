"""The end of the audit goes to the signer, and what it signed goes into `audit_heads`.

Decides what a signer that is away or refuses means: load goes on, and says so in its log and metrics. Load does this
because it may write the control records and runs as the signer's user; it needs no ClickHouse for it. What may be
signed is decided by `control.signer`.
"""

from __future__ import annotations

from collections.abc import Callable

from fleetgate import log
from fleetgate.control.auditheads import AuditChanged
from fleetgate.control.signing import SignerAway, SignerRefused
from fleetgate.errors import ConfigError, ControlAway
from fleetgate.load.counts import Counts


class AuditHeads:
    """`sign` is `control.auditheads.sign_audit` on the records and the signer's client."""

    def __init__(self, sign: Callable[[Callable[[int], None]], int], counts: Counts) -> None:
        self._sign = sign
        self._counts = counts
        self._log = log.get("load")
        self._said = ""

    def round(self) -> None:
        """Raises nothing: what went wrong is said, and tried again in the next round."""
        error = ""
        try:
            self._counts.audit_heads.inc(self._sign(self._counts.audit_unsigned.set))
            self._counts.signer_away.set(0)
        except SignerAway as away:
            self._counts.signer_away.set(1)
            error = str(away)
        except (SignerRefused, AuditChanged) as refused:
            reason = refused.reason if isinstance(refused, SignerRefused) else "changed"
            self._counts.audit_heads_refused.labels(reason).inc()
            error = str(refused)
        except (ControlAway, ConfigError) as away:
            error = str(away)
        if error and error != self._said:
            self._log.error("audit_head_not_signed", error=error)
        self._said = error
