"""The file of a run: the figures, and what they were measured on.

Decides what must stand beside a figure so that it can be compared: the command, the commit, the machine, the versions,
how busy the machine was before the run, and what failed. Whether a run is worth keeping is a person's judgement; which
one may stand on the page about performance is `page`'s.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import ssl
import subprocess
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from loadtest.bench.context import Figures, Rounds

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("trio", "mqtt5", "msgspec", "cryptography", "chdb", "numpy", "pyarrow")


def document(
    figures: dict[str, Figures],
    rounds: dict[str, Rounds],
    failed: dict[str, str],
    command: str,
    sizes: dict[str, Any],
    load_average: float,
) -> dict[str, Any]:
    """Everything of a run, for `json.dumps`. `load_average` is that of the minute before it, `failed` the reasons of
    cases that could not be measured. Of cases measured more than once the rounds stand beside their medians, so that a
    reader sees how far they lie apart."""
    return {
        "command": command,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "kernel": platform.release(),
            "load_average_before": round(load_average, 2),
        },
        "versions": {
            "python": platform.python_version(),
            "openssl": ssl.OPENSSL_VERSION,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "sizes": sizes,
        "cases": figures,
        "failed": failed,
        "rounds": {case: found for case, found in rounds.items() if len(found) > 1},
    }


def save(content: dict[str, Any]) -> Path:
    """Writes a new file under results/, named by day and commit, with a number behind it from the second on."""
    RESULTS.mkdir(exist_ok=True)
    name = f"{content['at'][:10]}-{short(content['commit'])}"
    paths = (RESULTS / (f"{name}-{number}.json" if number > 1 else f"{name}.json") for number in count(1))
    path = next(path for path in paths if not path.exists())
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def short(commit: str) -> str:
    """Eight digits of a commit, and its `+`."""
    return commit.removesuffix("+")[:8] + ("+" if commit.endswith("+") else "")


def _commit() -> str:
    """The commit, with `+` behind it where files differ from it or are new; kept runs are not among them."""
    root = RESULTS.parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ".", f":(exclude){RESULTS.relative_to(root)}")
    return (git("rev-parse", "HEAD") or "unknown") + ("+" if changed else "")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
