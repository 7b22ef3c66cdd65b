"""Decides how a hostile device of the load test behaves: one kind of attack each, during the waves of the scenario.

A request of the statistics is one hostile message: it succeeds when the gate answers as it must, and fails when it is
accepted or unanswered. An attacker waits for each answer, so its response times are from the sending; they show what an
attack costs the attacker, and are no measure of the gate's speed. What it sends is `hostile`'s.
"""

from __future__ import annotations

from collections import deque

import gevent
from loadtest.clock import now_s
from loadtest.generator import running
from loadtest.hostile import KINDS, Arms, Shot
from loadtest.mqtt_link import LinkError, MqttLink
from loadtest.users.vehicle import Refused
from locust import User, task

from fleetsim.bundle import tls_context
from fleetsim.clock import stream

SHUT_OUT_S = 10.0  # how long it stays away when it is not let in
IDLE_S = 0.5


class Attacker(User):
    """The n-th device tries the n-th kind."""

    def on_start(self) -> None:
        """Becomes a device. Raises PoolError, BundleError, which end this user."""
        self.shared = shared = running()
        assert shared.hostile is not None  # the mix has attackers
        self.pool = shared.hostile
        self.lease = self.pool.take()
        device = self.lease.device
        self.kind = KINDS[self.lease.number % len(KINDS)]
        self.tls = tls_context(device, shared.plan.gate.server_name)
        self.arms = Arms(device, stream(shared.plan.seed, device.name), now_s)
        names = (device.tenant, device.device_id)
        self._attacks = shared.journal.device(*names, self.kind.name, hostile=True)
        self._before = shared.journal.device(*names, f"before {self.kind.name}", hostile=True)
        self._actions = deque(shared.scenario.actions(self.lease.number))
        self._attacking = False
        self._link: MqttLink | None = None

    @task
    def turn(self) -> None:
        """One burst, while there is a wave."""
        while self._actions and self._actions[0].at_s <= self.shared.at_s():
            self._attacking = self._actions.popleft().does == "attack"
        if not self._attacking:
            self._leave()
            gevent.sleep(IDLE_S)
            return
        try:
            link = self._link or self._connect()
            if self.kind.needs_honest and self.arms.last is None:
                self._shoot(link, [self.arms.honest()], counts=False)
            self._shoot(link, [self.kind.make(self.arms) for _ in range(self.kind.burst)], counts=True)
            gevent.sleep(self.kind.pause_s)
        except LinkError as error:
            self._leave()
            gevent.sleep(SHUT_OUT_S if error.refused else IDLE_S)

    def on_stop(self) -> None:
        self._leave()
        self.pool.give_back(self.lease)

    def _connect(self) -> MqttLink:
        self._link = link = MqttLink(self.shared.plan.gate.mqtt, self.tls, self.lease.device.device_id)
        self.arms.begin(int(link.greeting.user.get("epoch", "0")))
        return link

    def _leave(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _shoot(self, link: MqttLink, shots: list[Shot], *, counts: bool) -> None:
        """Sends them all and waits for as many answers. Raises LinkError; what then has no answer has failed."""
        device = self._attacks if counts else self._before
        began_s = now_s()
        flying: dict[int, Shot] = {}
        try:
            for shot in shots:
                flying[link.next_id] = shot
                self.shared.journal.sent(device, shot.epoch, shot.seq, 1, began_s)
                link.publish(shot.topic, shot.raw)
            answers = link.answers()
            while flying:
                packet_id, answer = next(answers)
                shot = flying.pop(packet_id)
                self.shared.journal.answered(device, shot.epoch, shot.seq, answer.label)
                if counts:
                    caught = answer.label in self.kind.caught
                    self._tell((now_s() - began_s) * 1000, None if caught else answer.label)
        except LinkError as error:
            # A gate that ends the session of a hostile device has answered, too.
            for _ in flying if counts and error.code is None else ():
                self._tell((now_s() - began_s) * 1000, error.label)
            raise

    def _tell(self, response_ms: float, failure: str | None) -> None:
        self.environment.events.request.fire(
            request_type="ATTACK",
            name=self.kind.name,
            response_time=response_ms,
            response_length=0,
            exception=None if failure is None else Refused(failure),
            context={},
        )
