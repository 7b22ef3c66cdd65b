"""Locust's pages answer the person at the machine, and nothing that another page in their browser sends."""

from __future__ import annotations

import pytest
from flask import Flask
from loadtest.web import keep_to_itself

HERE = "http://127.0.0.1:8089"


def status(path: str, method: str = "POST", *, judged: bool = True, at: str = HERE, **headers: str) -> int:
    """Of a request to a page that is asked at `at`."""
    app = Flask("pages")
    for route in ("/", "/swarm", "/stats/reset"):
        app.add_url_rule(route, route, lambda: "answered", methods=["GET", "POST"])
    keep_to_itself(app, judged=judged)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return int(app.test_client().open(path, method=method, base_url=at, headers=named).status_code)


def test_the_pages_own_requests_are_answered() -> None:
    assert status("/", "GET") == 200
    assert status("/swarm", Origin=HERE, Sec_Fetch_Site="same-origin") == 200
    assert status("/", "GET", Sec_Fetch_Site="cross-site") == 200  # a link that the person followed


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}],
    ids=["a form elsewhere", "a sandboxed frame", "an image elsewhere"],
)
def test_what_another_page_sends_is_refused(headers: dict[str, str]) -> None:
    assert status("/swarm", "POST", judged=True, at=HERE, **headers) == 403


def test_a_name_that_somebody_else_gave_this_machine_is_refused() -> None:
    """Its page would be of the same origin, and the origin somebody else's."""
    assert status("/swarm", at="http://rebound.example:8089", Origin="http://rebound.example:8089") == 403


def test_the_statistics_of_a_judged_run_are_not_reset() -> None:
    assert status("/stats/reset", "GET") == 403
    assert status("/stats/reset", "GET", judged=False) == 200
