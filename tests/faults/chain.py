"""What `fleetgate verify segments` says at the end of a trial: the one question that is left to the gate's own command.

Every head has to be signed by then: a signer runs beside each trial, and load asks it a last time when it ends. Decides
what of the answer is a complaint: every finding, for no fault excuses one (what it destroys before it is loaded is
parked, which is a note), and segments behind the newest head, except in spools that are gone: load has the end of the
chain signed of the spool that is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.gate import fleetgate

UNSIGNED = ("loaded since the newest signed head", "no head of this spool is signed")


def check(
    directory: Path,
    embedded: bool,
    gone: Sequence[str],
    complain: Callable[[str, Iterable[object]], object],
) -> None:
    """`gone` are spools that another took the place of."""
    done = fleetgate(directory, "verify", "segments", "--json", *(["--offline"] if embedded else []))
    if done.returncode not in (0, 1) or not done.stdout:
        complain("words of `fleetgate verify segments`", [done.stderr or f"it ended with {done.returncode}"])
        return
    judge(json.loads(done.stdout), gone, complain)


def judge(report: dict[str, Any], gone: Sequence[str], complain: Callable[[str, Iterable[object]], object]) -> None:
    """`report` as the command prints it with --json."""
    findings = [f"{one['kind']}: segment {one['segment']}: {one['what']}" for one in report["findings"]]
    complain("findings of the chain", findings)
    notes = [note for note in report["notes"] if any(words in note for words in UNSIGNED)]
    complain("ends of chains not signed", (one for one in notes if not any(spool in one for spool in gone)))
    complain("verifications of nothing", [report] if not report["segments"] or not report["heads"] else [])
