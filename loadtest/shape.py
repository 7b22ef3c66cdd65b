"""Hands the load of the scenario to locust, once a second, and lets everybody come to the end."""

from __future__ import annotations

from loadtest.clock import now_s
from loadtest.locust_counts import Users
from loadtest.options import scenario_of
from loadtest.remote import gathering
from loadtest.scenario import Scenario
from loadtest.users import KINDS
from locust import LoadTestShape, User
from locust.runners import MasterRunner


class ScenarioShape(LoadTestShape):
    """--users is the highest number, --minutes the length. `seen` is how many users there were. One that `is_over` has
    none any more: who starts a run again that is judged gets a test that ends at once."""

    use_common_options = True
    is_over = False
    _scenario: Scenario

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Users] = []
        self._started_s = 0.0

    def reset_time(self) -> None:
        """Locust calls this at every start, when the options are final (a person may change them in the web UI)."""
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None  # locust was started from a command line
        self._scenario = scenario_of(options)
        for kind, weight in self._scenario.mix.items():
            KINDS[kind].weight = weight
        self._started_s = now_s()
        super().reset_time()

    def tick(self) -> tuple[int, float, list[type[User]] | None] | None:
        """(users, how many are added in a second, the classes that take part), or None at the end."""
        if self.is_over:
            return None
        at_s = now_s() - self._started_s
        users = self._scenario.users_at(at_s)
        assert self.runner is not None
        self.seen.append(Users(at_s, users or 0, self.runner.user_count))
        if users is None:
            if isinstance(self.runner, MasterRunner):
                gathering().finish(self.runner)
            return None
        return users, self._scenario.traffic.connections_per_second, [KINDS[kind] for kind in self._scenario.mix]
