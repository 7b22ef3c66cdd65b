"""docs/reference/doctor.md says what the doctor can find."""

from __future__ import annotations

import re
from pathlib import Path

from fleetgate.doctor.findings import REMEDIES, Finding

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "doctor.md"


def test_every_finding_stands_on_the_page_with_its_remedy() -> None:
    """The table has each finding of the closed set once, with the words of the code."""
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", PAGE.read_text(), flags=re.MULTILINE)
    told = [tuple(row) for row in rows]
    assert told == [(finding.value, *REMEDIES[finding]) for finding in Finding]
