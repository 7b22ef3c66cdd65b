"""The fleet of the fault suite: cars of two tenants with the same names, over MQTT and HTTPS, and one suspect.

Decides who takes part, how long is waited for whom, and what "events flow again" means.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.faults.cars import FORMS, Driver, HttpsDriver, MqttDriver
from tests.faults.journal import Journal
from tests.faults.suspect import Suspect
from tests.gate import Car, Gate

D = TypeVar("D", bound=Driver)

TENANTS = ("acme", "globex")
FRESH_MESSAGES = 4
PLAIN_SECONDS = 1.5  # a burst that was drawn already has its answers by then
ENOUGH_ACKNOWLEDGED, ENOUGH_DUPLICATES = 300, 12
ENOUGH_REFUSED = 25  # five in six of them score 10 and more, and 100 are quarantine
BEGIN_SECONDS = 30.0
FRESH_SECONDS = 45.0
FINISH_SECONDS = 60.0


class Fleet:
    """Enrolled at once, driving after `start`; its journal is `journal` in the gate's directory."""

    def __init__(self, gate: Gate, seed: str) -> None:
        self.journal_path: Path = gate.home.directory / "journal"
        self._journal = Journal(self.journal_path)
        self.drivers: list[Driver] = []

        self._gate = gate

        def luck() -> random.Random:
            return random.Random(f"{seed} car {len(self.drivers)}")

        self._luck = luck
        for tenant in TENANTS:
            for number in (1, 2):
                self.drivers.append(MqttDriver(gate, gate.home.enrol(f"car-{number}", tenant), self._journal, luck()))
            for number, form in enumerate(FORMS, start=3):
                car = gate.home.enrol(f"car-{number}", tenant)
                self.drivers.append(HttpsDriver(gate, car, self._journal, luck(), form))
        self.suspect = Suspect(gate, gate.home.enrol("suspect", TENANTS[0]), self._journal, luck())
        self.drivers.append(self.suspect)

    def newcomer(self, vehicle: str) -> tuple[Gate, Car, Journal, random.Random]:
        """What the driver of one more car is made of."""
        return self._gate, self._gate.home.enrol(vehicle, TENANTS[0]), self._journal, self._luck()

    def join(self, driver: D) -> D:
        """It drives with the others from now on."""
        self.drivers.append(driver)
        driver.start()
        return driver

    @property
    def cars(self) -> set[tuple[str, str, str]]:
        """(tenant, device, vehicle) of all of them."""
        return {(one.car.tenant, one.car.device_id, one.car.vehicle_id) for one in self.drivers}

    def start(self) -> None:
        """Starts all cars, and waits until each has been acknowledged something."""
        for driver in self.drivers:
            driver.start()
        self._until(lambda one: one.acknowledged >= FRESH_MESSAGES, "every car drives", BEGIN_SECONDS)

    def be_plain(self) -> None:
        """From now on nobody sends from the future, nor a number twice: a gate without its clock, or without its
        windows, cannot know."""
        for driver in self.drivers:
            driver.plain = True
        time.sleep(PLAIN_SECONDS)

    def fresh(self, seconds: float = FRESH_SECONDS) -> float:
        """Waits until each car was acknowledged messages that it signed after this call; how long that took."""
        started_s = time.monotonic()
        for driver in self.drivers:
            driver.mark()
        self._until(lambda one: one.fresh >= FRESH_MESSAGES, "fresh events flow again", seconds)
        return time.monotonic() - started_s

    @contextmanager
    def alone(self, transport: str) -> Iterator[None]:
        """Only the cars of this transport send."""
        others = [driver for driver in self.drivers if driver.transport != transport]
        for driver in others:
            driver.pause(True)
        try:
            yield
        finally:
            for driver in others:
                driver.pause(False)

    def held_back(self, refused: int) -> None:
        """Waits until the suspect was refused so often, over all, that it is in quarantine, and sent more there."""
        suspect = self.suspect
        self._until(lambda _: suspect.refused >= refused, "the suspect is in quarantine")
        suspect.mark()
        self._until(lambda _: suspect.fresh >= FRESH_MESSAGES, "the suspect's messages are held")

    def enough(self) -> None:
        """Waits until so much has happened that the oracle's answer means something; see its seventh question."""
        drivers = self.drivers
        self._until(lambda _: sum(one.acknowledged for one in drivers) >= ENOUGH_ACKNOWLEDGED, "enough is acknowledged")
        self._until(lambda _: sum(one.duplicates for one in drivers) >= ENOUGH_DUPLICATES, "enough is repeated")
        self.held_back(ENOUGH_REFUSED)

    def _until(self, met: Callable[[Driver], bool], what: str, seconds: float = FRESH_SECONDS) -> None:
        deadline_s = time.monotonic() + seconds
        while waiting := [one for one in self.drivers if not met(one)]:
            trouble = [told for one in self.drivers for told in one.trouble]
            who = ", ".join(one.name for one in waiting)
            assert time.monotonic() < deadline_s, f"{what}: not {who} within {seconds:.0f} s; {trouble}"
            time.sleep(0.02)

    def finish(self) -> list[str]:
        """Lets the cars send until everything is answered, and ends them; what went wrong in them."""
        for driver in self.drivers:
            driver.finish()
        deadline_s = time.monotonic() + FINISH_SECONDS
        for driver in self.drivers:
            driver.join(max(0.0, deadline_s - time.monotonic()))
        self._journal.close()
        trouble = [told for driver in self.drivers for told in driver.trouble]
        return trouble + [
            f"{driver.name}: {len(driver.unanswered)} messages never got an answer"
            for driver in self.drivers
            if driver.unanswered
        ]

    def stop(self) -> None:
        """Ends the cars at once, after a failure."""
        for driver in self.drivers:
            driver.finish()
            driver.join(0.0)
