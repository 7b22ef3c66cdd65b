"""`fleetgate verify`: is what is kept still as it was written?

Decides how a finding in the spool is told, and that any of them ends the command with 1. What is looked at is decided
by `spool.verify`; the command `segments` is in `cli.proof`.
"""

from __future__ import annotations

import typer

from fleetgate.cli.console_output import AsJson, cell, print_json, say
from fleetgate.cli.proof import segments
from fleetgate.cli.session import session_of
from fleetgate.errors import CheckFailed
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
    if not report.good:
        wrong = len(report.findings) + len(report.trouble)
        then = f" (findings: {wrong}): `fleetgate spool repair` says what can be done"
        if not wrong:
            then = ", but all of that is loaded: start the edge, which deletes it"
        raise CheckFailed(f"{directory} is not as it was written{then}")


def _told(finding: Finding) -> list[str]:
    least = "" if finding.exact else "at least "
    where = f"segment {finding.segment} ({finding.state})"
    counts = f"good records: {finding.good_records}, lost: {least}{finding.lost_records}"
    lines = [f"{where} stops being good at byte {finding.stops_at}; {counts}"]
    lines += [f"  {damage.what} ({damage.length} bytes)" for damage in finding.damage]
    return lines + [f"  {remark.what}" for remark in finding.remarks]
