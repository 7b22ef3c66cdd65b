"""Decides how a device asks for its next credential: over HTTPS, beside whatever else it does, and when again.

What is asked and what becomes of the answer is `renewal`'s. Telemetry waits for nothing here.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable

import httpx

from fleetsim.bundle import Bundle, BundleError, read_bundle, tls_context
from fleetsim.clock import Clock
from fleetsim.gate import Gate
from fleetsim.pace import Pace
from fleetsim.renewal import Renewal, RenewalError

PATH = "/v1/renew"
TIMEOUT_S = 15.0  # longer than the gate waits for its signer
LOOK_S = 1.0  # how soon a clock that was set, or jumped, is noticed


class Renewer:
    """Renews one device's credential at two thirds of its lifetime, or when it is `wanted` before."""

    def __init__(self, bundle: Bundle, gate: Gate, clock: Clock, rng: random.Random) -> None:
        """Raises BundleError."""
        self.last_answer = ""
        self._bundle = bundle
        self._gate = gate
        self._clock = clock
        try:
            self._renewal = Renewal(bundle.directory)
        except RenewalError as error:
            raise BundleError(str(error)) from None
        self._pace = Pace(clock.now_ms, rng)
        self._wanted = asyncio.Event()

    def want(self) -> None:
        """The gate does not know this device's certificate or key any more: its next one is due now."""
        self._wanted.set()

    async def next(self, gate_ms: Callable[[], float | None]) -> Bundle:
        """Waits until a renewal is due and done; `gate_ms` is the time by the gate, None while it is not known.

        Raises nothing for what a gate or a network does; OSError where the disk fails.
        """
        while True:
            rest_s = (max(self._pace.away_until_ms, self._pace.quiet_until_ms) - self._clock.now_ms()) / 1000
            if rest_s > 0:
                await self._clock.sleep(rest_s)
            elif not self._due(gate_ms()):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._wanted.wait()
            elif await self._ask():
                return self._bundle

    def _due(self, gate_ms: float | None) -> bool:
        due_ms = self._renewal.due_ms
        return self._wanted.is_set() or due_ms == 0 or (gate_ms is not None and gate_ms >= due_ms)

    async def _ask(self) -> bool:
        """One question; whether the bundle is another one now."""
        url = f"https://{self._gate.https[0]}:{self._gate.https[1]}{PATH}"
        request = self._renewal.request()
        try:
            context = tls_context(self._bundle, self._gate.server_name)
            async with httpx.AsyncClient(verify=context, timeout=TIMEOUT_S, trust_env=False) as client:
                response = await client.post(url, content=request, headers={"Content-Type": "application/pkcs10"})
            return self._heard(response)
        except (httpx.HTTPError, BundleError) as error:
            self.last_answer = type(error).__name__
            self._pace.lost()
            return False

    def _heard(self, response: httpx.Response) -> bool:
        self.last_answer = str(response.status_code)
        if response.status_code == httpx.codes.OK:
            try:
                self._renewal.accept(response.content)
            except RenewalError as error:
                self.last_answer = str(error)
                self._pace.stop()
                return False
            self._bundle = read_bundle(self._bundle.directory)
            self._wanted.clear()
            self._pace.went_well()
            return True
        if response.status_code in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
            value = response.headers.get("Retry-After", "")
            self._pace.later(float(value) if value.isdecimal() else None)
        else:
            self._pace.stop()
        return False
