"""Which room may import which: the table of design, held by the imports of every module in a room that has a row.

`cli`, `demo` and the modules of the top have none: they put the rooms together, and no room may import them.

Reads the source, so that an import inside a function counts as well. An import for types only (`if TYPE_CHECKING`)
is allowed inside one room, where it breaks a circle and loads nothing.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "fleetgate"
SIMULATOR = Path(__file__).parents[2] / "device-sim" / "src" / "fleetsim"

SOCKETS = frozenset({"trio", "socket", "ssl", "select", "socketserver", "asyncio", "selectors", "http", "urllib"})
IMPURE = SOCKETS | {"time", "os", "logging", "random", "secrets", "pathlib", "sqlite3", "threading", "multiprocessing",
                    "subprocess", "io", "shutil", "tempfile", "datetime", "uuid", "structlog"}  # fmt: skip
DATABASES = frozenset({"clickhouse_connect", "chdb", "pyarrow"})
HKDF_ONLY = frozenset({"cryptography.hazmat.primitives.hashes", "cryptography.hazmat.primitives.kdf.hkdf"})


class Border(NamedTuple):
    """`rooms`: other parts of fleetgate it may import. `closed`: top-level modules from elsewhere it may not."""

    rooms: frozenset[str]
    closed: frozenset[str]


SHARED = frozenset({"clock", "fault", "errors", "config", "configfile", "rates", "bucket", "log", "catalogue", "admin",
                    "converting", "ending", "durable", "lock", "scoring", "sdnotify"})  # fmt: skip
BORDERS = {
    "judge": Border(frozenset(), IMPURE | DATABASES),
    "spool": Border(
        frozenset({"judge", "clock", "converting", "errors", "config", "fault", "durable", "lock"}), SOCKETS | DATABASES
    ),
    "evidence": Border(
        frozenset({"bucket", "clock", "config", "durable", "errors", "log", "rates"}), SOCKETS | DATABASES
    ),
    "accept": Border(SHARED | {"judge", "spool", "control", "evidence"}, DATABASES),
    "control": Border(SHARED | {"judge"}, DATABASES),
    "load": Border(SHARED | {"judge", "spool", "control"}, frozenset()),
    "proof": Border(SHARED | {"judge", "spool", "control", "load"}, frozenset()),
    "doctor": Border(SHARED | {"judge", "spool", "control", "accept"}, DATABASES),
}
JUDGE_PACKAGES = frozenset({"msgspec", "numpy", "cryptography", "fleetgate"})


class Import(NamedTuple):
    module: str
    line: int
    for_types: bool


def imports_of(path: Path) -> Iterator[Import]:
    """Every module that the file at `path` imports; `from a import b` counts as `a.b` too where that is a module."""
    yield from _walk(ast.parse(path.read_text()), for_types=False)


def _walk(node: ast.AST, *, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, for_types)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute, so that this test can read them"
            module = child.module or ""
            yield Import(module, child.lineno, for_types)
            if module == "fleetgate":
                for alias in child.names:
                    yield Import(f"fleetgate.{alias.name}", child.lineno, for_types)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _walk(child, for_types=True)
        else:
            yield from _walk(child, for_types=for_types)


def modules(room: str) -> list[Path]:
    directory = SOURCE / room
    return sorted(directory.rglob("*.py")) if directory.is_dir() else []


CASES = [
    pytest.param(room, path, id=str(path.relative_to(SOURCE).with_suffix("")))
    for room in BORDERS
    for path in modules(room)
]


@pytest.mark.parametrize(("room", "path"), CASES)
def test_a_room_imports_only_what_its_border_allows(room: str, path: Path) -> None:
    """Each module keeps to the rooms and packages that the table allows its room."""
    border = BORDERS[room]
    for found in imports_of(path):
        top, _, rest = found.module.partition(".")
        other = rest.partition(".")[0]
        if top == "fleetgate" and other and other != room:
            assert other in border.rooms, f"{path}:{found.line} imports fleetgate.{other}"
            assert not found.for_types, f"{path}:{found.line} hides an import of another room behind TYPE_CHECKING"
        assert top not in border.closed, f"{path}:{found.line} imports {found.module}"


@pytest.mark.parametrize("path", modules("judge"), ids=lambda path: path.stem)
def test_the_judge_stands_on_few_packages(path: Path) -> None:
    """Beyond the pure part of the standard library, the judge uses msgspec, numpy and one key derivation."""
    for found in imports_of(path):
        top = found.module.partition(".")[0]
        assert top in sys.stdlib_module_names or top in JUDGE_PACKAGES, f"{path}:{found.line} imports {found.module}"
        if top == "cryptography":
            assert found.module in HKDF_ONLY, f"{path}:{found.line} imports {found.module}"


@pytest.mark.parametrize(
    ("source", "stranger"), [(SOURCE, "fleetsim"), (SIMULATOR, "fleetgate")], ids=["gate", "simulator"]
)
def test_gate_and_simulator_share_no_code(source: Path, stranger: str) -> None:
    """Each side is written from the envelope's text alone, so that they cannot share a mistake."""
    for path in sorted(source.rglob("*.py")):
        for found in imports_of(path):
            assert found.module.partition(".")[0] != stranger, f"{path}:{found.line} imports {found.module}"


@pytest.mark.parametrize(
    "room", ["", "accept", "control", "demo", "doctor", "evidence", "judge", "load", "load/watch", "proof", "spool"]
)
def test_each_module_is_named_in_the_map_of_its_package(room: str) -> None:
    """The docstring of a package says what is where; a module that it does not name is not found."""
    package = SOURCE / room
    chart = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    inside = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    missing = {name for name in inside if re.search(rf"(?<![\w-]){name}(?![\w-])", chart) is None}
    assert not missing, f"{package / '__init__.py'} does not name {sorted(missing)}"


def test_the_edge_cannot_reach_a_telemetry_database() -> None:
    """Nothing in accept names ClickHouse: the process that faces vehicles cannot read telemetry back."""
    for path in modules("accept"):
        assert "clickhouse" not in path.read_text().lower(), path


@pytest.mark.parametrize("room", ["accept", "judge", "spool", "load", "proof", "doctor"])
def test_only_the_signer_reaches_the_audit_key(room: str) -> None:
    """No module of another process imports what reads the audit key, or names its file's setting."""
    for path in modules(room):
        found = {entry.module for entry in imports_of(path)}
        assert found.isdisjoint({"fleetgate.control.auditkey", "fleetgate.control.signer"}), path
        assert re.search(r"\.audit_key\b", path.read_text()) is None, path


def reached_from(room: str) -> set[str]:
    """Every module of fleetgate that the modules of a room load, whoever imports it for them."""
    waiting = [f"fleetgate.{room}.{path.stem}" for path in modules(room)]
    reached = set[str]()
    while waiting:
        name = waiting.pop()
        path = (SOURCE.parent / name.replace(".", "/")).with_suffix(".py")
        if name not in reached and path.is_file():
            reached.add(name)
            for found in imports_of(path):
                waiting.append(found.module)
                if found.module.startswith("fleetgate."):
                    waiting += [f"{found.module}.{other.stem}" for other in modules(found.module.partition(".")[2])]
    return reached


def test_the_edge_loads_nothing_that_makes_a_credential() -> None:
    """The process that faces vehicles carries a request for a renewal to the signer, and could not grant it."""
    makers = {"pki", "credentials", "devices", "csr", "sealing", "renewal", "renewalservice", "signer", "auditkey"}
    for path in modules("accept"):
        assert re.search(r"signer\.authority\b|issuing\.key", path.read_text()) is None, path
    assert reached_from("accept").isdisjoint({f"fleetgate.control.{name}" for name in makers})
