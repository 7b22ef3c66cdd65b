"""Renewal through a real edge and a real signer: who gets a certificate, who does not, and what goes on meanwhile."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select
from tests.faults.processes import Process
from tests.gate import Car, Gate, Installation, now_ms, running, until
from tests.http_peer import HttpPeer
from tests.http_peer import told as told_item
from tests.mqtt_peer import MqttPeer, told
from tests.renewal_peer import post, renew, signing, stored
from tests.renewing import new_key, request, spki

from fleetgate.clock import ScaledClock
from fleetgate.control.cases import list_cases
from fleetgate.control.devices import revoke
from fleetgate.control.records import CredentialStatus
from fleetgate.control.renewalform import MAX_CSR_BYTES
from fleetgate.control.schema import audit, credentials
from fleetgate.judge import Flag

DAY_MS = 24 * 3600 * 1000
HELD = 2


@pytest.fixture
def gate(renewing_gate: Gate) -> Gate:
    return renewing_gate


@pytest.fixture
def car(gate: Gate) -> Car:
    return gate.home.enrol(f"car-{len(gate.home.cars)}")


@pytest.fixture
def other_car(gate: Gate) -> Car:
    return gate.home.enrol(f"car-{len(gate.home.cars)}")


def statuses(gate: Gate, car: Car) -> list[str]:
    of_car = credentials.c.device_id == car.device_id
    with gate.home.control() as store:
        query = select(credentials.c.status).where(of_car).order_by(credentials.c.credential_id)
        return [row.status for row in store.rows(query)]


RENEWED = [CredentialStatus.FORMER, CredentialStatus.ACTIVE]


def test_a_device_renews_itself_and_sends_under_its_new_certificate(gate: Gate, car: Car) -> None:
    """At once, over both transports; the MAC key that came sealed is the one that the gate verifies with."""
    after = renew(gate, car)
    assert (after.identity.key_digest != car.identity.key_digest, statuses(gate, car)) == (True, RENEWED)
    with MqttPeer(gate, after).hello() as peer:
        assert told(peer.ask(after.sign(1, 0))) == (0, None)
    with HttpPeer(gate, after) as client:
        assert told_item(client.ask(after.sign(1, 1))) == ("accepted", None)
    assert [message.flags for message in gate.stored(car)] == [0, 0]


def test_an_ed25519_device_renews_itself(gate: Gate, car: Car) -> None:
    """Its request names an X25519 key to seal for; from then on it shows an Ed25519 certificate."""
    key, agreement = ed25519.Ed25519PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    after = stored(car, post(gate, car, request(key, agreement=spki(agreement))), key, agreement)
    with MqttPeer(gate, after).hello() as peer:
        assert told(peer.ask(after.sign(1, 0))) == (0, None)


def test_a_message_signed_before_the_renewal_is_accepted_after_it(gate: Gate, car: Car) -> None:
    """Flagged; sent again it is a duplicate, on the new connection as on the one before."""
    before, unsent = car.sign(1, 0), car.sign(1, 1)
    with MqttPeer(gate, car).hello() as peer:
        peer.ask(before)
    after = renew(gate, car)
    with MqttPeer(gate, after).hello() as peer:
        assert told(peer.ask(before)) == (0, "duplicate")
        assert told(peer.ask(unsent)) == (0, None)
    assert [message.flags for message in gate.stored(car)] == [0, Flag.FORMER_CREDENTIAL.value]


def test_a_lost_answer_is_asked_for_again(gate: Gate, car: Car) -> None:
    """The former certificate connects until the new one has; with the same key there is the same certificate."""
    key = new_key()
    lost = post(gate, car, request(key))
    with MqttPeer(gate, car).hello() as peer:
        assert told(peer.ask(car.sign(1, 0))) == (0, None), "until then the device goes on"
    again = post(gate, car, request(key, encoding=Encoding.PEM))
    assert again.items["certificate"] == lost.items["certificate"]
    after = stored(car, again, key)
    with MqttPeer(gate, after).hello() as peer:
        assert told(peer.ask(after.sign(2, 0))) == (0, None)
        with MqttPeer(gate, car) as thief:
            assert thief.greet().reason_code == 0x87, "whoever still has the former one is not the device any more"
    with HttpPeer(gate, car) as thief_again:
        assert told_item(thief_again.ask(car.sign(2, 1))) == ("rejected", "unknown_device")


def test_a_former_credential_keeps_no_session_that_was_open_before(gate: Gate, car: Car) -> None:
    """The thief's is open already, over MQTT; the device sends its first message under the new key over HTTPS."""
    with MqttPeer(gate, car).hello() as thief:
        assert told(thief.ask(car.sign(1, 0))) == (0, None)
        after = renew(gate, car)
        with HttpPeer(gate, after) as client:
            assert told_item(client.ask(after.sign(2, 0))) == ("accepted", None)
        farewell = thief.farewell()
    assert (farewell.reason_code, farewell.reason_str) == (0x87, "unknown_device")


def test_a_clone_that_renews_itself(gate: Gate, car: Car) -> None:
    """Whoever comes second gets nothing; what either sends is held, and neither is told."""
    first = renew(gate, car)
    with MqttPeer(gate, first).hello() as peer:
        assert told(peer.ask(first.sign(1, 0))) == (0, None)
        second = post(gate, car, request(new_key()))
        assert (second.status, int(second.headers["retry-after"]) >= 600) == (503, True)
        assert "clone" not in str(second.items)
        numbers = iter(range(1, 1000))

        def held() -> bool:
            assert told(peer.ask(first.sign(1, next(numbers)))) == (0, None)
            return gate.stored(car)[-1].outcome == HELD

        until(held, "the edge has learnt of it")
    with gate.home.control() as store:
        [case] = [case for case in list_cases(store) if case.device_id == car.device_id]
        entries = store.rows(select(audit.c.action).where(audit.c.object == f"device/{car.device_id}"))
    assert case.why == "clone_sign"
    assert [entry.action for entry in entries] == ["enrol", "renew", "transition"]
    assert post(gate, first, request(new_key())).status == 503, "in quarantine nobody renews"


def in_quarantine(gate: Gate, car: Car) -> None:
    gate.home.quarantine(car)


def suspended(gate: Gate, car: Car) -> None:
    gate.home.suspend(car)


def revoked(gate: Gate, car: Car) -> None:
    gate.home.revoke(car)


def banned(gate: Gate, car: Car) -> None:
    gate.home.ban(car)


@pytest.mark.parametrize(
    ("happened", "status"), [(in_quarantine, 503), (suspended, 503), (revoked, 403), (banned, 403)]
)
def test_renewal_of_a_device_that_is(gate: Gate, car: Car, happened: Callable[[Gate, Car], None], status: int) -> None:
    """Refused as long as it is, with Retry-After where a person may end it, in the form of RFC 9457."""
    happened(gate, car)
    answer = post(gate, car, request(new_key()))
    assert (answer.status, answer.items["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "quarantine" not in str(answer.items)
    assert len(statuses(gate, car)) == 1


def test_a_device_held_by_this_edge_alone_renews_nothing(gate: Gate, car: Car) -> None:
    """Before load has carried the transition to control, too."""
    with MqttPeer(gate, car).hello() as peer:
        for seq in range(11):
            peer.ask(car.sign(1, seq, key=bytes(32)))
    assert post(gate, car, request(new_key())).status == 503
    assert statuses(gate, car) == [CredentialStatus.ACTIVE]


def test_renewal_of_a_stranger(gate: Gate, stranger: Car) -> None:
    """A good certificate of a device that the records do not have."""
    assert post(gate, stranger, request(new_key())).status == 403


def test_what_a_revoked_credential_was_renewed_to_goes_with_it(gate: Gate, car: Car) -> None:
    """Neither connects or renews any more: its descendants are not worth more than it was."""
    after = renew(gate, car)
    with gate.home.write() as write:
        revoke(write, car.tenant, car.device_id, "a test", fingerprint=car.identity.fingerprint.hex())
    assert [post(gate, one, request(new_key())).status for one in (car, after)] == [403, 403]


RIVAL = "spiffe://fleet.example/tenant/rival/device/"
BAD_REQUESTS: dict[str, tuple[Callable[[Car, Car], bytes], int]] = {
    "CSR for another device": (lambda car, other: request(new_key(), other.device_id), 400),
    "other SAN": (lambda car, other: request(new_key(), uri=f"{RIVAL}{car.device_id}"), 400),
    "bad signature": (lambda car, other: request(new_key(), encoding=Encoding.DER)[:-1] + b"\0", 400),
    "RSA key": (lambda car, other: request(rsa.generate_private_key(65537, 2048)), 400),
    "P-384 key": (lambda car, other: request(ec.generate_private_key(ec.SECP384R1())), 400),
    "Ed25519 without a key to seal for": (lambda car, other: request(ed25519.Ed25519PrivateKey.generate()), 400),
    "not a CSR": (lambda car, other: b"hello, gate", 400),
    "empty": (lambda car, other: b"", 400),
    "oversized": (lambda car, other: request(new_key()).ljust(MAX_CSR_BYTES + 1), 413),
}  # fmt: skip


@pytest.mark.parametrize(("csr", "status"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_bad_request_is_told_why(
    gate: Gate, car: Car, other_car: Car, csr: Callable[[Car, Car], bytes], status: int
) -> None:
    """In a sentence, and nothing has changed."""
    answer = post(gate, car, csr(car, other_car))
    assert (answer.status, len(answer.items["detail"]) > 10) == (status, True)
    assert statuses(gate, car) + statuses(gate, other_car) == [CredentialStatus.ACTIVE] * 2


def test_other_forms_of_a_request_are_refused(gate: Gate, car: Car) -> None:
    """Another method, another content type, no length."""
    csr = request(new_key())
    assert post(gate, car, csr, "application/json").status == 415
    with HttpPeer(gate, car) as peer:
        assert peer.request("GET", "/v1/renew").status == 405
    with HttpPeer(gate, car) as peer:
        chunked = peer.request("POST", "/v1/renew", content=iter([csr]), headers={"content-type": "application/pkcs10"})
        assert chunked.status in (400, 411)
    assert statuses(gate, car) == [CredentialStatus.ACTIVE]


def test_two_renewals_of_one_device_at_once(gate: Gate, car: Car) -> None:
    """With one key, as an impatient device sends them: there is one certificate at the end."""
    csr = request(new_key())
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: post(gate, car, csr), range(4)))
    assert {answer.status for answer in answers} <= {200, 503}
    assert len({answer.items["certificate"] for answer in answers if answer.status == 200}) == 1
    assert statuses(gate, car) == RENEWED


def test_a_device_silent_for_three_months_across_a_root_rotation(gate: Gate) -> None:
    """What it kept is accepted under the former root; what it signs after its renewal, under the new one."""
    car = gate.home.enrol("sleeper", clock=ScaledClock(now_ms() - 90 * DAY_MS, 1))
    keyring = gate.home.directory / "keyring.json"
    roots = json.loads(keyring.read_text())["roots"]
    newest = max(map(int, roots)) + 1
    roots[str(newest)] = roots["1"] | {"root": "c2VjcmV0IHJvb3QgbnVtYmVyIHR3bywgMzIgYnl0ZXM="}
    replaced = keyring.with_suffix(".next")
    replaced.touch(0o600)
    replaced.write_text(json.dumps({"roots": roots}))
    files = gate.metric("fleetgate_files_replaced_total")
    replaced.replace(keyring)
    until(lambda: gate.metric("fleetgate_files_replaced_total") == files + 1, "the edge has the new root", 10)
    kept = car.sign(1, 0)
    after = renew(gate, car)
    assert (car.kid, after.kid) == (1, newest)
    with MqttPeer(gate, after).hello() as peer:
        assert told(peer.ask(kept)) == (0, None)
        assert told(peer.ask(after.sign(2, 0))) == (0, None)


@pytest.fixture
def lonely(authority: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gate, Process]]:
    """An edge and a signer of a test's own, for what becomes of the one without the other."""
    directory = tmp_path_factory.mktemp("lonely")
    with running(authority, directory, signer={"device_renewals_per_day": 3}) as gate, signing(gate.home) as signer:
        yield gate, signer


def test_without_a_signer_telemetry_goes_on(lonely: tuple[Gate, Process]) -> None:
    """Away, hanging, back: renewals are told to come back, messages are acknowledged as ever."""
    gate, signer = lonely
    car = gate.home.enrol("car")
    csr = request(new_key())
    with MqttPeer(gate, car).hello() as peer, ThreadPoolExecutor(1) as thread:
        signer.kill()
        assert post(gate, car, csr).status == 503
        signer.launch()
        signer.await_ready()
        signer.process.send_signal(signal.SIGSTOP)
        waiting = thread.submit(post, gate, car, csr)
        started = time.monotonic()
        for seq in range(20):
            assert told(peer.ask(car.sign(1, seq))) == (0, None)
        assert time.monotonic() - started < 5, "nobody waits with it"
        answer = waiting.result()
        assert (answer.status, int(answer.headers["retry-after"]) > 0) == (503, True)
        signer.process.send_signal(signal.SIGCONT)
    until(lambda: post(gate, car, csr).status == 200, "the signer is back")
    assert gate.metric('fleetgate_renewals_total{outcome="away"}') == 2
    assert statuses(gate, car) == RENEWED


def test_a_device_that_renews_without_end_is_told_to_wait(lonely: tuple[Gate, Process]) -> None:
    """By the signer, and from then on by the edge; another device renews meanwhile."""
    gate, signer = lonely
    car, other = gate.home.enrol("car"), gate.home.enrol("other")
    csr = request(new_key())
    assert [post(gate, car, csr).status for _ in range(3)] == [200] * 3
    refused = post(gate, car, csr)
    assert (refused.status, int(refused.headers["retry-after"]) > 3600) == (429, True)
    size = signer.log_file.stat().st_size
    assert post(gate, car, csr).status == 429
    assert signer.log_file.stat().st_size == size, "the signer was not asked"
    assert post(gate, other, request(new_key())).status == 200


def test_a_thief_with_the_former_certificate_uses_up_no_renewal_of_the_device(lonely: tuple[Gate, Process]) -> None:
    """Rubbish under it until he is told to wait, by signer and edge; the device renews meanwhile."""
    gate, _ = lonely
    car = gate.home.enrol("robbed")
    after = renew(gate, car)
    assert [post(gate, car, b"rubbish").status for _ in range(4)] == [400, 400, 429, 429]
    assert post(gate, after, request(new_key())).status == 200
