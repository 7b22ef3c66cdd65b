"""What msgspec knows of a type is built where a module is imported: two threads that ask for it at once can crash the
process: 2 of 150 did in which four threads read the same file first and took turns as often as they can."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fleetgate.converting import converter

SOURCE = Path(__file__).parents[2] / "src" / "fleetgate"
BUILDERS = {("converting.py", "converter"), ("converting.py", "convert"), ("judge/body.py", "_named_decoder")}
"""Called in the body of a module, or (a decoder of types of its own) before there are threads."""


def late(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(function, line) of each call in a function by which msgspec meets a type."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        for call in ast.walk(function):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            typed = any(keyword.arg == "type" for keyword in call.keywords) or len(call.args) > 1
            of_msgspec = ast.unparse(call.func).startswith("msgspec.")
            if of_msgspec and (call.func.attr in ("convert", "Decoder") or (call.func.attr == "decode" and typed)):
                yield getattr(function, "name", "lambda"), call.lineno


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_function_makes_a_decoder(path: Path) -> None:
    place = path.relative_to(SOURCE).as_posix()
    assert not [each for each in late(ast.parse(path.read_text())) if (place, each[0]) not in BUILDERS]


@pytest.mark.parametrize(
    "text",
    [
        "def f(): return msgspec.json.decode(b'', type=int)",
        "def f(): return msgspec.convert(1, int)",
        "f = lambda x: msgspec.msgpack.Decoder(int).decode(x)",
        "class A:\n    async def f(self): return msgspec.toml.decode(b'', type=int)",
    ],
)
def test_the_look_finds_them(text: str) -> None:
    assert list(late(ast.parse(text)))


def test_a_converter() -> None:
    assert converter(int, strict=False)("7") == 7
    with pytest.raises(msgspec.ValidationError):
        converter(int)("7")
