"""What every command that issues a credential has in common: authority and keyring, the request, the bundle's place.

Decides options and where files are; what is issued is decided by `control`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from fleetgate.cli.session import Session
from fleetgate.control.bundle import DEVICE, is_on_record, write_bundle
from fleetgate.control.csr import MAX_CSR_BYTES
from fleetgate.control.devices import Enrolment
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.store import Store
from fleetgate.errors import ConfigError, Conflict

Days = Annotated[int, typer.Option(help="Lifetime of the certificate, at most 400.")]
Request = Annotated[
    Path | None, typer.Option("--csr", help="Certificate request of the device, whose private key stays where it is.")
]
Out = Annotated[Path | None, typer.Option(help="New directory for the device's files; by default devices/DEVICE.")]
OutNext = Annotated[
    Path | None, typer.Option("--out", help="New directory for the files; by default devices/DEVICE/renewal-N.")
]


def authority_and_keyring(session: Session) -> tuple[Authority, Keyring]:
    """Read inside the transaction that issues, so that no root key is used that was ended before it began. Raises
    ConfigError where either cannot be used, or the edge would refuse what the authority issues."""
    authority = Authority.load(session.pki, session.clock)
    if authority.trust_domain != session.config.trust_domain:
        raise ConfigError(
            f"the CA in {session.pki} is of the trust domain {authority.trust_domain}, but the setting trust_domain "
            f"is {session.config.trust_domain}: the edge would refuse its devices; set trust_domain to the CA's"
        )
    return authority, Keyring.load(session.config.path(session.config.edge.keyring))


def read_request(path: Path | None) -> bytes | None:
    """No more of it than tells that it is too large. Raises ConfigError."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            return file.read(MAX_CSR_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def hand_over(session: Session, enrolment: Enrolment, out: Path | None) -> Path:
    """Writes the bundle, inside the transaction; returns its directory."""
    directory = out if out is not None else _place_of(session, enrolment)
    try:
        write_bundle(directory, enrolment)
    except Conflict:
        if (directory / DEVICE).exists() and not _is_on_record(session, directory):
            raise Conflict(
                f"{directory} exists already, and its certificate is not on record: the command that made it was "
                "killed before it was done, and nobody was given these keys; remove it, and run the same again"
            ) from None
        raise
    return directory


def hand_over_next(session: Session, enrolment: Enrolment, out: Path | None) -> Path:
    """The same for a renewal: the files of the present credential may still be where they were written."""
    renewals = (_place_of(session, enrolment) / f"renewal-{number}" for number in itertools.count(1))
    return hand_over(session, enrolment, out or next(place for place in renewals if not place.exists()))


def _place_of(session: Session, enrolment: Enrolment) -> Path:
    return session.config.path("devices") / enrolment.device_id


def _is_on_record(session: Session, directory: Path) -> bool:
    with Store.open(session.config, session.clock) as store:
        return is_on_record(store, directory)


def told(directory: Path, enrolment: Enrolment) -> str:
    """The end of a command's line: where the files are, and what is special about them."""
    return f"{directory}" + (" (its private key has no copy)" if enrolment.private is not None else "")
