"""Decides what of an edge's spool goes into a recording: what is authentic, without anything that names anybody.

The keys are needed: a message counts only if its tag holds under the root key that it names, for the tenant, device and
public key that the spool says, and once for each number that it bears. So whoever wrote into the spool's files can put
no message into a recording that no device signed. Two things the gate noted beside it and nothing proves: when it came,
and whether it was held in quarantine. Of a message stay signals and texts of the catalogue, and times from the first
message on. Vehicle, software version and configuration become numbers; an unknown signal or text could be a VIN, so it
is left out. How a spool is read is `spool`'s, what a recording is `tape`'s.
"""

import base64
import binascii
import hmac
import re
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from fleetsim import encode, mac
from fleetsim.encode import Body, Envelope, Event, Name
from fleetsim.gate import RunError
from fleetsim.outbox import Draft
from fleetsim.signals import BY_NUMBER, BY_PATH
from fleetsim.spool import ACCEPTED, Damaged, Peer, Received, read_segment, segments
from fleetsim.tape import Span, Take, require_sound, write_tape

# Load deletes a segment seconds after it was sealed: often enough to see each.
POLL_S = 0.1
_TROUBLE_CODES = re.compile(r"[PCBU][0-9A-F]{4}(-[0-9A-F]{2})?([ ,;]+[PCBU][0-9A-F]{4}(-[0-9A-F]{2})?)*")
_UNREADABLE = (ValueError, OverflowError, struct.error, RecursionError)


class _LeftOut(Exception):
    """Why a message is not in a recording."""


class _Root(msgspec.Struct):
    root: str


class _Keyring(msgspec.Struct):
    roots: dict[str, _Root]


def read_roots(keyring: Path) -> dict[int, bytes]:
    """The root keys of the gate's keyring file by key id, retired ones too. Raises RunError, never with a key."""
    try:
        entries = _decode_keyring(keyring.read_bytes()).roots
        return {int(kid): base64.b64decode(entry.root, validate=True) for kid, entry in entries.items()}
    except OSError as error:
        raise RunError(f"{keyring}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError, binascii.Error):
        raise RunError(f"{keyring} is no keyring: name the file of the setting edge.keyring") from None


class Recorder:
    """One recording. `left_out` counts by reason what is not in it: messages, events, signals, segments."""

    def __init__(self, roots: Mapping[int, bytes], sleep: Callable[[float], None] = time.sleep) -> None:
        self.left_out: Counter[str] = Counter()
        self._roots, self._sleep = roots, sleep
        self._keys: dict[tuple[str, str, bytes, int], bytes] = {}
        self._numbers: defaultdict[tuple[str, str, bytes], set[int]] = defaultdict(set)
        self._vehicles: dict[tuple[str, str], int] = {}
        self._software: dict[tuple[str, str], int] = {}
        self._configs: dict[tuple[str, str], int] = {}
        self._began_ms: int | None = None

    def record(self, spool: Path, seconds: float, file: Path) -> Span:
        """What is in the spool, and what is sealed there within `seconds`. Raises RunError, too for nothing."""
        if not spool.is_dir():
            raise RunError(f"{spool} is no directory: name the spool of an edge")
        span = write_tape(file, self._takes(spool, seconds))
        if not span.messages:
            file.unlink()
            raise RunError(f"nothing to record in {spool}: {self.told() or 'it has no sealed segments'}")
        return span

    def told(self) -> str:
        """What was left out, in words; empty where nothing was."""
        return ", ".join(f"{count} {what}" for what, count in self.left_out.most_common())

    def _takes(self, spool: Path, seconds: float) -> Iterator[Take]:
        newest, left_s = 0, seconds
        while True:
            for number, path in segments(spool):
                if number > newest:
                    self.left_out["segments gone before they could be read"] += newest and number - newest - 1
                    newest = number
                    yield from self._of_segment(path)
            if left_s <= 0:
                self.left_out = +self.left_out
                return
            self._sleep(min(POLL_S, left_s))
            left_s -= POLL_S

    def _of_segment(self, path: Path) -> Iterator[Take]:
        try:
            for received in read_segment(path):
                try:
                    yield self._take(received)
                except _LeftOut as why:
                    self.left_out[str(why)] += 1
        except FileNotFoundError:
            self.left_out["segments gone before they could be read"] += 1
        except Damaged:
            self.left_out["damaged segments, from there on"] += 1

    def _take(self, received: Received) -> Take:
        """Raises _LeftOut."""
        peer = received.peer
        if received.outcome != ACCEPTED:
            raise _LeftOut("messages held in quarantine")
        try:
            envelope = encode.decode_envelope(received.raw)
            self._require_authentic(envelope, peer)
            self._require_new(envelope, peer)
            body = encode.decode_body(envelope.enc, envelope.body)
        except _UNREADABLE:
            raise _LeftOut("messages that cannot be read") from None
        self._began_ms = received.received_at if self._began_ms is None else self._began_ms
        events = tuple(self._events(body, envelope.sent_at - self._began_ms))
        if not events:
            raise _LeftOut("messages without a known signal")
        software = _number_of(self._software, peer.tenant, body.software)
        config = _number_of(self._configs, peer.tenant, body.config)
        draft = Draft(f"software-{software}", f"config-{config}", envelope.enc, events)
        # A clock that was set back makes no message earlier than the first one.
        take = Take(max(0, received.received_at - self._began_ms), len(self._vehicles), draft)
        try:
            require_sound(take)
        except ValueError:
            raise _LeftOut("messages that could not be sent again") from None
        return take._replace(vehicle=_number_of(self._vehicles, peer.tenant, peer.device_id))

    def _require_new(self, envelope: Envelope, peer: Peer) -> None:
        """A device's numbers begin anew with each of its keys."""
        seen = self._numbers[peer.tenant, peer.device_id, peer.key_digest]
        number = envelope.epoch << 64 | envelope.seq
        if number in seen:
            raise _LeftOut("messages whose number is there already")
        seen.add(number)

    def _require_authentic(self, envelope: Envelope, peer: Peer) -> None:
        root = self._roots.get(envelope.kid)
        if root is None:
            raise _LeftOut("messages not authentic under these keys")
        who = (peer.tenant, peer.device_id, peer.key_digest, envelope.kid)
        key = self._keys.get(who) or self._keys.setdefault(who, mac.derive_key(root, *who[:3]))
        header = mac.header(
            v=envelope.v,
            enc=envelope.enc,
            kid=envelope.kid,
            epoch=envelope.epoch,
            seq=envelope.seq,
            sent_at=envelope.sent_at,
        )
        if not hmac.compare_digest(mac.tag(key, header, envelope.body), envelope.tag):
            raise _LeftOut("messages not authentic under these keys")

    def _events(self, body: Body, sent_ms: int) -> Iterator[Event]:
        for event in body.events:
            signals = {name: value for name, value in event.signals.items() if _is_known(name)}
            texts = {
                name: text for name, text in event.texts.items() if _is_known(name) and _TROUBLE_CODES.fullmatch(text)
            }
            self.left_out["signals and texts that could name somebody"] += (
                len(event.signals) + len(event.texts) - len(signals) - len(texts)
            )
            if signals or texts or event.kind != "sample":  # a sample without a signal cannot be said
                yield Event(sent_ms + event.at, event.kind, signals, texts)


def _is_known(name: Name) -> bool:
    """In the catalogue."""
    return name in (BY_NUMBER if isinstance(name, int) else BY_PATH)


def _number_of(numbers: dict[tuple[str, str], int], tenant: str, name: str) -> int:
    """What stands for a name of this tenant: how many others came before it."""
    return numbers.setdefault((tenant, name), len(numbers))


_decode_keyring = msgspec.json.Decoder(_Keyring).decode
