"""Values of SQLite, TOML and ClickHouse as structs, in whichever thread.

msgspec builds what it knows of a type when the type is first asked for, and two threads that ask at once can crash the
process (msgspec 0.22). So it is built where a module is imported: by `converter`, and by a `Decoder` for what is bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")


def converter(kind: type[T], *, strict: bool = True) -> Callable[[object], T]:
    """`msgspec.convert` to this type, for the body of a module. `strict` false takes numbers in quotes. The function
    raises ValidationError."""
    msgspec.json.Decoder(kind)

    def convert(value: object) -> T:
        return msgspec.convert(value, kind, strict=strict)

    return convert
