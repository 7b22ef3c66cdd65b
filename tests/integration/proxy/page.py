"""docs/how-to/run-behind-a-proxy.md, whose blocks the tests run: only addresses, ports and directories are put in."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "run-behind-a-proxy.md"
PROXY_NAME = "proxy.example.org"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(PAGE.read_text()) if found == language]


def block(language: str, title: str) -> str:
    """The one block of that language whose first line has `title` in it."""
    [found] = [text for text in blocks(language) if title in text.partition("\n")[0]]
    return found


def commands(begin: str) -> str:
    """The one block of shell commands that begins so."""
    [found] = [text for text in blocks("sh") if text.startswith(begin)]
    return found


def put_in(text: str, facts: dict[str, str]) -> str:
    """Replaces each key, which must be there."""
    for key, fact in facts.items():
        assert key in text, f"the page has no {key!r} any more"
        text = text.replace(key, fact)
    return text
