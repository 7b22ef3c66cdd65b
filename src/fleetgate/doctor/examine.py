"""The order in which the doctor looks: the files, the certificate, the gate's machine, then the ports.

Decides which checks can be made with what is at hand. A step that fails does not end the others, unless they would only
say the same again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cryptography import x509

from fleetgate.doctor.certificate import (
    CHAIN,
    Chain,
    check_chain,
    check_chain_by_ca_file,
    check_names,
    check_profile,
    check_validity,
    named_by,
    trust_domain_of,
)
from fleetgate.doctor.files import Papers, Paths, Unusable, read_certificates, read_papers
from fleetgate.doctor.findings import NOBODY, Check, Says, Who, cannot_tell, for_whom, good
from fleetgate.doctor.https import examine_https
from fleetgate.doctor.mqtt import examine_mqtt
from fleetgate.doctor.reach import SESSION, Target
from fleetgate.doctor.records import AS_EDGE, MAC_KEY, GateMachine
from fleetgate.doctor.tls import Means


class Ports(NamedTuple):
    """Where to connect; None for nowhere."""

    mqtt: Target | None = None
    https: Target | None = None


async def examine(paths: Paths, ports: Ports, gate: GateMachine, now_ms: Callable[[], int]) -> list[Check]:
    """Every check that can be made, in the order in which a person would mend them."""
    papers = read_papers(paths)
    who = _who(papers)
    checks = [*papers.checks, *_of_certificate(papers, gate, now_ms()), *_of_gate(papers, gate, now_ms(), who)]
    means = Means(papers.cas)
    if papers.key_fits:
        means = Means(papers.cas, paths.certificate, paths.key, alone=not papers.sent)
    if ports.mqtt is not None:
        checks += await examine_mqtt(ports.mqtt, means, now_ms)
    if ports.https is not None:
        checks += await examine_https(ports.https, means, now_ms)
    return [for_whom(check, who) for check in (checks if gate.here else _by_the_gates_word(checks))]


def _by_the_gates_word(checks: list[Check]) -> list[Check]:
    """A gate that takes the certificate has the CA that is missing in the files: then nothing is wrong."""
    if not any(check.says is Says.OK and check.check.endswith(f" {SESSION}") for check in checks):
        return checks
    return [
        good(CHAIN, f"{check.what}; the gate takes it all the same")
        if check.check == CHAIN and check.says is not Says.OK
        else check
        for check in checks
    ]


def _who(papers: Papers) -> Who:
    """The certificate's word, for want of it that of device.json."""
    named = named_by(papers.leaf) if papers.leaf is not None else None
    if named is not None:
        return named.who
    return Who(papers.device.tenant, papers.device.device_id) if papers.device is not None else NOBODY


def _of_certificate(papers: Papers, gate: GateMachine, now_ms: int) -> list[Check]:
    """What the certificate says by itself, and beside device.json and the CAs."""
    if papers.leaf is None:
        return []
    anchors = _anchors(gate)
    trust_domain = gate.trust_domain or trust_domain_of(papers.cas)
    found = [check_validity(papers.leaf, [*papers.sent, *papers.cas, *anchors], now_ms)]
    found += check_profile(papers.leaf, trust_domain)
    named, chain = named_by(papers.leaf), Chain(papers.leaf, papers.sent)
    if named is not None and papers.device is not None:
        found += check_names(named, papers.device)
    sound = all(check.says is Says.OK for check in found)
    if anchors:
        found.append(check_chain(chain, anchors, now_ms, sound=sound))
        if sound and found[-1].says is Says.OK:
            found += gate.check_vetting(chain, anchors, now_ms)
    elif papers.cas:
        found.append(check_chain_by_ca_file(chain, papers.cas, now_ms, sound=sound))
    return found


def _anchors(gate: GateMachine) -> list[x509.Certificate]:
    """The gate's trust bundle, where this is its machine and user."""
    try:
        return read_certificates(gate.trust_bundle) if gate.here else []
    except Unusable:
        return []


def _of_gate(papers: Papers, gate: GateMachine, now_ms: int, who: Who) -> list[Check]:
    """What only the gate's machine knows."""
    if who == NOBODY:
        return []
    found: list[Check] = []
    detail = None
    if gate.here:
        found, detail = gate.check_records(who, papers.leaf)
    if papers.leaf is not None and papers.device is not None:
        if gate.has_keyring:
            found.append(gate.check_mac_key(who, papers.leaf, papers.device, detail))
        else:
            found.append(cannot_tell(MAC_KEY, "only the gate's keyring can tell whether it is the right one", AS_EDGE))
    if gate.here and papers.cas:
        found.append(gate.check_server(papers.cas, now_ms))
    return found
