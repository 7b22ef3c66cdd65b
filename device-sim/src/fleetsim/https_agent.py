"""Decides how a device speaks HTTPS: batches of envelopes, one in flight, over httpx.

What each answer means is `answers`' and `core`'s; this only reads status, headers and items.
"""

from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import msgspec

from fleetsim import encode
from fleetsim.agent import Agent, log
from fleetsim.answers import ACCEPTED, DUPLICATE, HTTP_ITEMS, HTTP_LATER, HTTP_SPLIT, Answer, from_item
from fleetsim.clock import Clock
from fleetsim.commits import Committer
from fleetsim.core import DeviceCore
from fleetsim.encode import Form
from fleetsim.outbox import Entry
from fleetsim.renewer import Renewer

PATH = "/v1/telemetry"
CONTENT_TYPES: dict[Form, str] = {
    "msgpack": "application/vnd.fleetgate.v1+msgpack",
    "json": "application/vnd.fleetgate.v1+json",
}
TIMEOUT_S = 10.0
MAX_REQUEST_BYTES = 1024 * 1024
# A batch is closed here: one more envelope of the largest kind (64 KiB in base64) still fits into the request.
FULL_BATCH_BYTES = 950_000
# `Date` has whole seconds: its middle is the best guess, and it says nothing about less than that.
DATE_MIDDLE_MS, DATE_TOLERANCE_MS = 500, 2_000


class HttpsAgent(Agent):
    """A device over HTTPS and mutual TLS. `linger_s` is how long it collects messages for a batch."""

    def __init__(
        self,
        core: DeviceCore,
        journal: Committer,
        clock: Clock,
        address: tuple[str, int],
        server_name: str,
        renewer: Renewer | None = None,
        *,
        form: Form = "msgpack",
        linger_s: float = 1.0,
    ) -> None:
        super().__init__(core, journal, clock, server_name, renewer)
        self._url = f"https://{address[0]}:{address[1]}{PATH}"
        self._form: Form = form
        self._linger_s = linger_s

    async def session(self) -> None:
        """Post batches until the connection ends or should end."""
        try:
            async with httpx.AsyncClient(verify=self.context, timeout=TIMEOUT_S, trust_env=False) as client:
                while not self.over and self.core.pace.away_until_ms <= self.clock.now_ms():
                    await self._turn(client)
        except (httpx.HTTPError, OSError, msgspec.MsgspecError, _NotAnAnswerError) as error:
            log.debug("%s: request failed: %s", self.core.bundle.name, error)
            self.core.disconnected()

    async def _turn(self, client: httpx.AsyncClient) -> None:
        self.wake.clear()
        if self.core.needs_clock:
            self._hear_time(await client.head(self._url))
            self.core.connected(max_packet_bytes=MAX_REQUEST_BYTES)
        self.sign()
        batch = self._batch()
        self.sign()  # what take() had to give a new number
        if batch:
            await self._post(client, batch)
            if not self._finishing:
                await self.clock.sleep(self._linger_s)
        else:
            await self.until_woken(self.quiet_s())

    def _batch(self) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        while len(batch) < self.core.batch_items and size < FULL_BATCH_BYTES and (entry := self.core.take()):
            batch.append(entry)
            size += len(entry.raw) + 5
        return batch

    async def _post(self, client: httpx.AsyncClient, batch: list[Entry]) -> None:
        content = encode.batch([entry.raw for entry in batch], self._form)
        headers = {"Content-Type": CONTENT_TYPES[self._form]}
        response = await client.post(self._url, content=content, headers=headers)
        self._hear_time(response)
        keys = [entry.key for entry in batch]
        if response.status_code == HTTP_ITEMS:
            self._read_items(batch, response.content)
        elif response.status_code == HTTP_SPLIT:
            self.core.too_large(keys)
        elif response.status_code in HTTP_LATER:
            self.core.not_now(keys, _retry_after_s(response))
        else:
            raise _NotAnAnswerError(f"HTTP {response.status_code}")

    def _read_items(self, batch: list[Entry], content: bytes) -> None:
        answers = read_items(content, self._form)
        if len(answers) != len(batch):
            raise _NotAnAnswerError(f"{len(answers)} results for {len(batch)} envelopes")
        for entry, answer in zip(batch, answers, strict=True):
            if answer.label not in (ACCEPTED, DUPLICATE):
                log.info("%s: message %s answered %s", self.core.bundle.name, entry.key, answer.label)
            self.core.answered(entry.key, answer)

    def _hear_time(self, response: httpx.Response) -> None:
        try:
            date = parsedate_to_datetime(response.headers.get("Date", ""))
        except ValueError:
            return  # without a Date nothing is signed; the next answer may have one
        self.core.told_time(date.timestamp() * 1000 + DATE_MIDDLE_MS, DATE_TOLERANCE_MS)


def read_items(content: bytes, form: Form) -> list[Answer]:
    """The results of a 202, in the request's form. Raises msgspec.MsgspecError."""
    decode = msgspec.json.decode if form == "json" else msgspec.msgpack.decode
    items: list[dict[str, Any]] = decode(content, type=list[dict[str, Any]])
    return [from_item(item) for item in items]


class _NotAnAnswerError(Exception):
    """A response that leaves open what the gate stored: the same bytes go out again."""


def _retry_after_s(response: httpx.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
