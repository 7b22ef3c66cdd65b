"""Decides what analysts ask of ClickHouse while the fleet sends: four questions, over its HTTP endpoint.

They wait for an answer before they ask again, as people do: their response time runs from the sending, and a slow
ClickHouse is asked less. Judge it by its percentiles, not by how many questions there were.
"""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlencode, urlsplit

from loadtest.generator import running
from locust import FastHttpUser, between, task

from fleetsim.clock import stream

HTTP_OK = 200
_ONE = "tenant = {tenant:String} AND vehicle_id = {vehicle:String}"


class Analyst(FastHttpUser):
    """Reads only. Address and user are those of --clickhouse, the password its token."""

    wait_time = between(1, 3)

    def __init__(self, environment: Any) -> None:
        self.address = urlsplit(running().plan.clickhouse)
        self.host = f"{self.address.scheme}://{self.address.hostname}:{self.address.port}"
        super().__init__(environment)
        credentials = f"{self.address.username or 'default'}:{running().clickhouse_password}".encode()
        self._rng = stream(running().plan.seed, "analysts")
        self._headers = {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}

    @task(4)
    def latest(self) -> None:
        """Where is one vehicle, and how is it?"""
        self._ask("latest", f"SELECT path, value, event_time FROM latest WHERE {_ONE}")  # noqa: S608  a constant

    @task(4)
    def history(self) -> None:
        """A signal of one vehicle over the last quarter of an hour."""
        self._ask(
            "history",
            f"SELECT event_time, value FROM readings WHERE {_ONE} AND path = 'Vehicle.Speed' "  # noqa: S608
            "AND received_at > now() - INTERVAL 15 MINUTE ORDER BY event_time DESC LIMIT 1000",
        )

    @task(2)
    def fleet(self) -> None:
        """The fleet, minute by minute."""
        self._ask(
            "fleet",
            "SELECT minute, software, sum(events), sum(faults), uniqMerge(vehicles) FROM fleet_minute "
            "WHERE minute > now() - INTERVAL 1 HOUR GROUP BY minute, software ORDER BY minute",
        )

    @task(1)
    def delay(self) -> None:
        """How long messages were on their way, over everything of the last minutes."""
        self._ask(
            "delay",
            "SELECT tenant, count(), quantile(0.99)(dateDiff('millisecond', sent_at, received_at)) FROM events "
            "WHERE received_at > now() - INTERVAL 5 MINUTE GROUP BY tenant",
        )

    def _ask(self, name: str, sql: str) -> None:
        device = running().pool.any_of(self._rng)  # one of the vehicles that take part
        about = urlencode({"param_tenant": device.tenant, "param_vehicle": device.vehicle_id})
        path = f"{self.address.path or '/'}?{self.address.query}&{about}"
        asked = self.client.request(
            "POST", path, name=f"query {name}", data=sql, headers=self._headers, catch_response=True
        )
        with asked as answer:
            # An error in the middle of an answer comes behind its status.
            if answer.status_code == HTTP_OK and b"DB::Exception" in (answer.content or b""):
                answer.failure("an exception of ClickHouse, after the answer had begun")
