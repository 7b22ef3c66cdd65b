"""docs/reference/reasons.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from fleetgate.accept.answers import PUBACK_CODE
from fleetgate.judge.verdict import STEP_OF, Reason

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "reasons.md"


def test_every_reason_stands_on_the_page_with_its_step_and_code() -> None:
    """The table has each reason of the closed set once, with the judge's step and the PUBACK code."""
    rows = re.findall(r"^\| `(\w+)` \| (\d) \| (0x\w\w) \|", PAGE.read_text(), flags=re.MULTILINE)
    told = {name: (int(step), int(code, 16)) for name, step, code in rows}
    assert told == {reason.value: (STEP_OF[reason], PUBACK_CODE[reason].value) for reason in Reason}
    assert len(rows) == len(Reason)
