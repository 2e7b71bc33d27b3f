"""What the reference of an op says about its parameters."""

from __future__ import annotations

from typing import Any

import pytest

from byteor.engine.compiler.ops import Ops
from byteor.engine.replay.op_reference import OpReference, reference_of


def test_only_identity_among_built_in_ops_takes_no_parameters() -> None:
    found = reference_of(Ops())

    assert [key for key, each in found.items() if each.takes_no_parameters] == ["identity"]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object", "properties": {}}, True),
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        ({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}, False),
        ({"type": "object", "additionalProperties": {"type": "string"}}, False),
        ({"type": "object", "properties": {}, "anyOf": [{"required": ["a"]}]}, False),
        ({"type": "object", "properties": {"a": {}}}, False),
        (None, False),
    ],
)
def test_op_takes_no_parameters_only_if_schema_declares_empty_object(
    schema: dict[str, Any] | None, expected: bool
) -> None:
    assert OpReference("x", "x", "", schema).takes_no_parameters is expected
