"""Locust's pages while a run is judged: for the person at this machine, and no other page in their browser.

Decides which requests the pages answer. Locust's own take a form from anywhere, with any of its options in it, and any
page that the person visits could send one.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, abort, request


def keep_to_itself(app: Flask, *, judged: bool) -> None:
    """Refuses what another site sent, under whatever name it reached this one; of a run that is `judged` nobody resets
    the statistics."""

    @app.before_request
    def refuse() -> None:
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
        host = urlsplit(f"//{request.host}").hostname
        foreign = origin is not None and urlsplit(origin).netloc != request.host
        if judged and (host not in ("127.0.0.1", "localhost") or request.path == "/stats/reset"):
            abort(403)
        if foreign or (site not in ("none", "same-origin") and request.path != "/"):
            abort(403)
