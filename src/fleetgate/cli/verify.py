"""`fleetgate verify`: is what is kept still as it was written?

Decides how a finding in spool or audit is told, and that any of them ends the command with 1. What is looked at is
decided by `spool.verify` and `proof.audit`; the command `segments` is in `cli.proof`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fleetgate.cli.console_output import AsJson, cell, print_json, say
from fleetgate.cli.proof import Key, public_key, segments
from fleetgate.cli.session import Session, session_of
from fleetgate.control.heads import SignedAuditHead
from fleetgate.control.signlog import LogCut, count_of, read_count, read_log
from fleetgate.control.store import Store
from fleetgate.errors import CheckFailed, ConfigError
from fleetgate.proof.audit import Allowed, stored_heads, verify_audit
from fleetgate.proof.findings import AuditReport, Kind
from fleetgate.spool.files import reaching, require_spool
from fleetgate.spool.verify import Finding, verify

app = typer.Typer(help="Checks of what is kept.", no_args_is_help=True, rich_markup_mode=None)


app.command()(segments)


@app.command()
def spool(context: typer.Context, as_json: AsJson = False) -> None:
    """Read every byte of the spool and say where it stops being good, and what that costs. Changes nothing."""
    config = session_of(context).config
    directory = config.path(config.spool.directory)
    require_spool(directory)
    with reaching(directory):
        report = verify(directory)
    if as_json:
        print_json(report)
    else:
        findings = (line for finding in report.findings for line in _told(finding))
        for line in [*report.trouble, *findings, *report.loaded, *report.notes]:
            say(cell(line))
        say(f"segments: {report.segments}, good records: {report.records}")
        if report.good:
            say("the spool is intact: every record is as it was written")
    if not report.good:
        wrong = len(report.findings) + len(report.trouble)
        then = f" (findings: {wrong}): `fleetgate spool repair` says what can be done"
        if not wrong:
            then = ", but all of that is loaded: start the edge, which deletes it"
        raise CheckFailed(f"{directory} is not as it was written{then}")


@app.command()
def audit(
    context: typer.Context,
    key: Key = None,
    log: Annotated[
        Path | None, typer.Option("--log", help="A copy of the signer's log, kept elsewhere, that counts too.")
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Let pass what no signed head vouches for: a gate without a signer.")
    ] = False,
    restored: Annotated[
        str | None,
        typer.Option("--restored", help="Let pass what was lost before this chain, which `audit restored` began."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find rows of the audit that were changed, taken away, added, moved or cut off since they were written."""
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        heads, bad = stored_heads(store)
        logged, cut, notes = _logged(session, log)
        report = verify_audit(store, [*heads, *logged], public_key(session, key), Allowed(unsigned, restored))
    for why in bad:
        report.find(Kind.SIGNATURE, None, why)
    for why in cut:
        report.find(Kind.CUT_OFF, None, why)
    report.notes += notes
    if as_json:
        print_json(report)
    else:
        _tell_audit(report)
    if report.findings:
        raise CheckFailed(f"the audit is not what was written and signed (findings: {len(report.findings)})")


def _logged(session: Session, given: Path | None) -> tuple[list[SignedAuditHead], list[str], list[str]]:
    """The heads in the signer's logs, the findings of these, and what was not looked at. The signer's own is read where
    this is its machine and user. Raises ConfigError where a log is none."""
    heads: list[SignedAuditHead] = []
    findings, notes = [], []
    own, counted = session.config.path(session.config.signer.log), None
    logs = [path for path in (own if os.access(own, os.R_OK) else None, given) if path is not None]
    if own in logs:
        try:
            counted = read_count(count_of(session.config.path(session.config.signer.audit_key)))
        except ConfigError as error:
            notes.append(f"whether the signer's log has its end is not known: {error}")
    if not logs:
        notes.append(
            "heads were read from the database only: where rows and their heads were cut off together, that is not "
            "seen; give the signer's log with --log"
        )
    for path in logs:
        try:
            for line, _ in read_log(path, counted if path == own else None):
                if line.audit is not None:
                    heads.append(line.audit)
        except LogCut as cut:
            findings.append(str(cut))
    return heads, findings, notes


def _tell_audit(report: AuditReport) -> None:
    for finding in report.findings:
        where = f"place {finding.place}" if finding.place is not None else "the audit"
        say(cell(f"{finding.kind}: {where}: {finding.what}"))
    for note in report.notes:
        say(cell(f"note: {note}"))
    say(f"rows: {report.rows}, signed heads: {report.heads}, rows behind the newest head: {report.unsigned}")
    if not report.findings:
        signed = report.rows - report.unsigned  # without a finding the places are 1 to the number of rows
        upto = f", and as they were signed up to place {signed}" if signed else ""
        say(f"the audit is intact: its rows are as they were written{upto}")


def _told(finding: Finding) -> list[str]:
    least = "" if finding.exact else "at least "
    where = f"segment {finding.segment} ({finding.state})"
    counts = f"good records: {finding.good_records}, lost: {least}{finding.lost_records}"
    lines = [f"{where} stops being good at byte {finding.stops_at}; {counts}"]
    lines += [f"  {damage.what} ({damage.length} bytes)" for damage in finding.damage]
    return lines + [f"  {remark.what}" for remark in finding.remarks]
