"""`fleetgate prove`, `fleetgate heads` and `fleetgate verify segments`: what is stored, compared with what was signed.

Decides options, where the means of a proof are looked for, and how findings are told. What is proved is decided by
`proof`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleetgate.catalogue import catalogue
from fleetgate.cli.console_output import AsJson, cell, print_fields, print_json, say
from fleetgate.cli.session import Session, session_of
from fleetgate.control.heads import SignedHead, read_public_key
from fleetgate.control.keyring import Keyring
from fleetgate.control.records import is_id
from fleetgate.control.releases import Release, releases_since
from fleetgate.control.roster import certificates_of
from fleetgate.control.signlog import read_log
from fleetgate.control.store import Store
from fleetgate.errors import CheckFailed, ConfigError, FleetgateError, SpoolError
from fleetgate.spool.cursor import read_cursor
from fleetgate.spool.files import SegmentFile, segment_files
from fleetgate.spool.identity import Identity, read_identity
from fleetgate.spool.places import header_of

if TYPE_CHECKING:  # at run time these come with ClickHouse's libraries, which take a second
    from fleetgate.load.clickhouse import ClickHouse
    from fleetgate.proof.findings import Report
    from fleetgate.proof.message import Proof
    from fleetgate.proof.rows import Keeping

app = typer.Typer(help="Signed heads of the chains of segments.", no_args_is_help=True, rich_markup_mode=None)

Offline = Annotated[bool, typer.Option("--offline", help="Open the embedded ClickHouse itself; load must be stopped.")]
Key = Annotated[Path | None, typer.Option("--key", help="Audit public key; else signer.audit_public_key.")]
HeadFile = Annotated[Path | None, typer.Option("--heads", help="Exported heads that count too, kept elsewhere.")]


def prove(
    context: typer.Context,
    device: Annotated[str, typer.Option(metavar="TENANT/DEVICE", help="Who sent the message.")],
    epoch: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Its epoch.")],
    seq: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Its sequence number.")],
    keyring: Annotated[Path | None, typer.Option(help="A keyring with retired root keys; else edge.keyring.")] = None,
    key: Key = None,
    heads: HeadFile = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Prove a stored message from its signed bytes: who signed it, and that its rows are what was signed."""
    from fleetgate.load.ask import opened
    from fleetgate.proof.message import Means
    from fleetgate.proof.message import prove as prove_message
    from fleetgate.proof.stored import Name

    session = session_of(context)
    tenant, slash, device_id = device.partition("/")
    if not (slash and is_id(tenant) and is_id(device_id)):
        raise ConfigError(f"--device {device!r}: it must be TENANT/DEVICE, such as acme/car-7-tcu")
    roots = Keyring.proving_roots(keyring or session.config.path(session.config.edge.keyring))
    with opened(session.config, offline) as clickhouse:
        means = Means(
            roots,
            public_key(session, key),
            _known_heads(session, clickhouse, heads)[0],
            lambda of_tenant, of_device: _certificates(session, of_tenant, of_device),
            catalogue(),
            _keeping(session),
        )
        proof = prove_message(clickhouse, Name(tenant, device_id, epoch, seq), means)
    if as_json:
        print_json(proof)
    else:
        print_fields(proof)
        for number, step in enumerate(proof.steps, 1):
            answer = "not shown" if step.holds is None else "holds" if step.holds else "DOES NOT HOLD"
            say(cell(f"{number}. {step.step}: {answer}: {step.what}"))
    _conclude(proof)


def _conclude(proof: Proof) -> None:
    failed = [step for step in proof.steps if step.holds is not True]
    if failed:
        raise CheckFailed(f"{failed[0].step}: {failed[0].what}")


def segments(
    context: typer.Context,
    spool: Annotated[str, typer.Option(help="Only this spool (its identity in hex); else all.")] = "",
    first: Annotated[int, typer.Option("--from", min=0, help="Hash the rows of segments from this number.")] = 0,
    last: Annotated[int, typer.Option("--to", min=0, help="... to this one. The chain is checked whole.")] = 2**63 - 1,
    key: Key = None,
    heads: HeadFile = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Let pass what no signed head vouches for: a gate without a signer.")
    ] = False,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Find segments and rows in ClickHouse that are missing, altered, added or cut off since they were loaded."""
    from fleetgate.load.ask import opened
    from fleetgate.proof.findings import Kind
    from fleetgate.proof.segments import Scope, twice, verify_segments

    session = session_of(context)
    audit_key, at = public_key(session, key), session.config.path(session.config.spool.directory)
    if first > last:
        raise ConfigError(f"--from {first} --to {last}: there is no segment between them")
    with opened(session.config, offline) as clickhouse:

        def look() -> Report:
            known, bad = _known_heads(session, clickhouse, heads)
            scope = Scope(spool, first, last, _parked(at), _in_hand(at), unsigned, _decisions(session))
            found = verify_segments(clickhouse, known, audit_key, _keeping(session), scope)
            for why in bad:
                found.find(Kind.SIGNATURE, spool, None, why)
            return found

        report = twice(look)
    _tell(report, as_json)


def _tell(report: Report, as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        for finding in report.findings:
            where = f"segment {finding.segment}" if finding.segment is not None else "the chain"
            say(cell(f"{finding.kind}: spool {finding.spool}, {where}: {finding.what}"))
        for note in report.notes:
            say(cell(f"note: {note}"))
        counted = f"segments: {report.segments}, rows: {report.rows}, signed heads: {report.heads}"
        say(f"{counted}, segments behind the newest head: {report.unsigned}")
        if not report.findings:
            behind = ", but for the segments behind its newest head" if report.unsigned else ""
            chain = f"; the chain is as it was signed{behind}" if report.heads else ""
            say(f"what is stored is intact: every row that was looked at is as it was loaded{chain}")
    if report.findings:
        raise CheckFailed(f"what is stored is not what was loaded and signed (findings: {len(report.findings)})")


@app.command()
def export(context: typer.Context, offline: Offline = False) -> None:
    """Print the signed heads as JSON: keep them where nobody who can write into ClickHouse can reach."""
    from fleetgate.load.ask import opened
    from fleetgate.proof.heads import FORMAT, Export, stored_heads

    with opened(session_of(context).config, offline) as clickhouse:
        heads, bad = stored_heads(clickhouse)
    print_json(Export(FORMAT, heads))
    if bad:
        raise CheckFailed(f"{bad[0]}: what is printed is without it (rows that are no head: {len(bad)})")


@app.command()
def verify(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="What `fleetgate heads export` printed.")],
    key: Key = None,
) -> None:
    """Verify exported heads with the audit public key alone."""
    from fleetgate.proof.heads import beside_one_another, read_export, sort_out

    good, bad = sort_out(read_export(file), public_key(session_of(context), key))
    twins = beside_one_another(good)
    for why in [*(why for _, why in bad), *twins]:
        say(cell(why))
    say(f"good signatures: {len(good)}")
    if bad:
        raise CheckFailed(f"{file}: {len(bad)} of {len(good) + len(bad)} heads are not what was signed")
    if twins:
        raise CheckFailed(f"{file}: {len(twins)} places have two heads: no signer signs both")
    if not good:
        raise CheckFailed(f"{file} has no heads: it shows nothing")


def public_key(session: Session, key: Path | None) -> Ed25519PublicKey:
    return read_public_key(key or session.config.path(session.config.signer.audit_public_key))


def _known_heads(session: Session, clickhouse: ClickHouse, file: Path | None) -> tuple[list[SignedHead], list[str]]:
    """From ClickHouse, from the signer's own log where this is its machine and user, and from an export; and what is
    wrong with rows in ClickHouse that are none."""
    from fleetgate.proof.heads import read_export, stored_heads

    heads, bad = stored_heads(clickhouse)
    log = session.config.path(session.config.signer.log)
    if os.access(log, os.R_OK):
        heads += [line.signed for line, _ in read_log(log) if line.signed is not None]
    return heads + (read_export(file) if file is not None else []), bad


def _keeping(session: Session) -> Keeping:
    from fleetgate.proof.rows import Keeping

    return Keeping(session.clock.now_ms(), session.config.load.raw_days)


def _parked(directory: Path) -> frozenset[tuple[str, int]]:
    """What load set aside, where the spool is at hand."""
    try:
        identity = read_identity(directory)
        if identity is None:
            return frozenset()
        parked = [file for file in segment_files(directory) if file.state == "parked"]
        return frozenset((spool, file.number) for file in parked for spool in _spools_of(file, identity))
    except (SpoolError, OSError):
        return frozenset()


def _in_hand(directory: Path) -> dict[str, int | None]:
    """Of each identity of the spool, where it is at hand, the segment that load comes to next, if it is of that one."""
    try:
        identity, cursor = read_identity(directory), read_cursor(directory)
        if identity is None:
            return {}
        after = cursor.segment if cursor is not None and cursor.spool == identity.spool else 0
        sealed = [file for file in segment_files(directory) if file.state == "sealed" and file.number > after]
        following = sealed[0].number if sealed else None
        spools = _spools_of(sealed[0], identity) if sealed else []
    except (SpoolError, OSError):
        return {}
    return {spool: following if spool in spools else None for spool in (identity.spool, *identity.former)}


def _spools_of(file: SegmentFile, identity: Identity) -> list[str]:
    """The identity under which the segment was written; every one that its spool ever had where it names none."""
    header = header_of(file.path)
    if header is not None and header.spool in identity.all():
        return [header.spool.hex()]
    return [identity.spool, *identity.former]


def _decisions(session: Session) -> dict[str, Release] | None:
    """Those that released held events, by name; None where the records cannot be asked."""
    try:
        with Store.open(session.config, session.clock) as store:
            return {release.decision: release for release in releases_since(store, 0)}
    except FleetgateError:
        return None


def _certificates(session: Session, tenant: str, device_id: str) -> list[tuple[bytes, bytes]]:
    with Store.open(session.config, session.clock) as store:
        return certificates_of(store, tenant, device_id)
