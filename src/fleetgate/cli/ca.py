"""`fleetgate ca`: makes everything a gate needs before its first device.

Decides the order and what is never overwritten. What the certificates say is decided by `control.pki`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.cli.console_output import say
from fleetgate.cli.session import DEFAULT_FILE, Session, session_of
from fleetgate.config import Config
from fleetgate.control.auditkey import make_audit_key
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority, check_trust_domain, private_pem
from fleetgate.control.secretfile import write_new, write_secret
from fleetgate.control.store import Store
from fleetgate.errors import ConfigError, Conflict

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

app = typer.Typer(help="Certificate authority and root keys.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keeps `init` a command of a group although it is the only one."""


@app.command()
def init(
    context: typer.Context,
    trust_domain: Annotated[
        str | None, typer.Option(help="Trust domain in the devices' names; by default the setting trust_domain.")
    ] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address that vehicles reach the gate by; may be repeated.")
    ] = None,
) -> None:
    """Make the CA, server certificate, MAC root key, audit key and control database. Overwrites nothing."""
    session = session_of(context)
    config = session.config
    _refuse_existing(config, session.pki)
    domain = _settle_trust_domain(session, trust_domain)
    signer = config.signer
    # First: it may refuse. A key that is there is of a signer that was started before, and stays.
    make_audit_key(*map(config.path, (signer.audit_key, signer.audit_public_key, signer.log)))
    authority = Authority.create(session.pki, domain, session.clock)
    hosts = list(dict.fromkeys([*LOCAL_HOSTS, *(host or [])]))
    certificate, key = authority.issue_server(hosts)
    _write(config.path(config.edge.private_key), private_pem(key), secret=True)
    chain = certificate.public_bytes(Encoding.PEM) + authority.chain_pem
    _write(config.path(config.edge.certificate), chain)
    _write(config.path(config.edge.trust_bundle), authority.trust_pem)
    Keyring.create(config.path(config.edge.keyring), session.clock.now_ms(), os.urandom)
    Store.open(config, session.clock, create=True).close()
    say(
        f"""made for the trust domain {domain}:
  {session.pki}  root and issuing CA
  {config.path(config.edge.certificate)}  the gate's certificate for {", ".join(hosts)}
  {config.path(config.edge.trust_bundle)}  what devices are verified with
  {config.path(config.edge.keyring)}  MAC root key; back it up with the CA, apart from the telemetry
  {config.path(signer.audit_key)}  audit key of the signer; {config.path(signer.audit_public_key)} is its public half
next:
  keep {session.pki / "root.key"} offline: it is needed only for another issuing CA
  fleetgate device enroll --tenant TENANT --vehicle VEHICLE
  fleetgate up"""
    )


def _refuse_existing(config: Config, pki: Path) -> None:
    """Before anything is made, so that a second call leaves no half of a CA."""
    edge = config.edge
    named = [config.path(setting) for setting in (edge.private_key, edge.certificate, edge.trust_bundle, edge.keyring)]
    for path in [pki / "root.key", *named]:
        if path.exists():
            raise Conflict(f"{path} exists: there is a CA already; move it away to begin another")


def _settle_trust_domain(session: Session, wanted: str | None) -> str:
    """The trust domain stands in the configuration, where the edge reads it too; without a file one is begun."""
    configured = session.config.trust_domain
    domain = wanted if wanted is not None else configured
    check_trust_domain(domain)
    if domain != configured:
        if session.file is not None:
            raise ConfigError(
                f"{session.file} says trust_domain = {configured!r}: change it there, then run this again"
            )
        write_new(DEFAULT_FILE, f'trust_domain = "{domain}"\n'.encode())
    return domain


def _write(path: Path, content: bytes, *, secret: bool = False) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the directory {path.parent}: {error.strerror}") from None
    if secret:
        write_secret(path, content)
    else:
        write_new(path, content)
