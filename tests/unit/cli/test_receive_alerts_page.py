"""docs/how-to/receive-alerts.md: its commands, its configuration, and its receiver."""

from __future__ import annotations

import json
import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.unit.cli.test_how_to_pages import HOW_TO, Reader

from fleetgate.accept.breaker import Breaker, Wish
from fleetgate.control.cohorts import Cohort, CohortKind
from fleetgate.load.alerts import Alert, event_of
from fleetgate.load.edgealerts import alert_of
from fleetgate.load.signature import signature
from fleetgate.spool.format import AlertRecord

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Shell

PAGE = (HOW_TO / "receive-alerts.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_gate_takes_what_the_page_says(shell: Shell) -> None:
    """Both entries, with the secret that the page makes."""
    reader = Reader(shell, "receive-alerts")
    (shell.directory / "fleetgate.toml").write_text("\n".join(blocks("toml")))
    reader.follow()
    assert "webhooks" in shell.must("config", "check")
    (shell.directory / "hook.secret").chmod(0o644)
    assert shell.run("config", "check") != 0


def test_the_receiver_of_the_page_takes_what_is_signed_and_nothing_else() -> None:
    """Neither another body, another secret, another time, an old one, nor what is no signature."""
    [source] = blocks("python")
    names: dict[str, Any] = {}
    exec(source, names)  # the page's own code
    verify = names["is_from_the_gate"]
    secret, body, now_s = b"0123456789abcdef", b'{"event":"alert.opened"}', int(time.time())
    good = signature(secret, now_s, body)
    assert verify(secret, good, body)
    assert not verify(secret, good, body + b" ")
    assert not verify(b"another one 1234", good, body)
    assert not verify(secret, good.replace(f"t={now_s}", f"t={now_s + 1}"), body)
    assert not verify(secret, signature(secret, now_s - 301, body), body)
    for text in ("", "v1=", "t=1", f"t={now_s},v1=ü"):
        assert not verify(secret, text, body)


def test_the_alert_of_the_page_has_the_fields_of_one() -> None:
    """In their order; one of an edge is as load tells it."""
    of_watch, of_edge = map(json.loads, blocks("json"))
    assert list(of_watch) == list(event_of(Alert(key="k", kind="x", tenant="acme", opened_at_ms=1)))
    told: list[AlertRecord] = []
    breaker = Breaker("edge-1", 100.0)
    breaker.on_alert = told.append
    issuer = Cohort(CohortKind.ISSUER, "", of_edge["cohort"].removeprefix("issuer "))
    breaker.sizes = {issuer: 400}
    for number in range(20):
        breaker.holds(Wish(("acme", str(number)), (issuer,), {"malformed_body": 100.0}, 2**53), of_edge["opened_at_ms"])
    assert event_of(alert_of(told[0])) == of_edge
