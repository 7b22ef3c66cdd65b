"""The JSON Schemas in schemas/ are those of the types that decode."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetgate.cli.schema import Form, json_schema

SCHEMAS = Path(__file__).parents[2] / "schemas"


@pytest.mark.parametrize("form", list(Form))
def test_the_file_is_what_the_command_prints(form: Form) -> None:
    """`fleetgate schema FORM > schemas/FORM.schema.json` was run after the last change of a type."""
    assert (SCHEMAS / f"{form}.schema.json").read_bytes() == json_schema(form)
