"""Tests of how work is counted. A record that exceeds the work limit causes an error instead of being dropped."""

import json
from typing import Any

import pytest

from byteor.engine.replay.schema import PayloadSchema
from byteor.engine.replay.work import RecordOverLimit, WorkMeter
from tests.engine.replay.params import guard_bytes


@pytest.mark.parametrize(
    ("document", "keywords"),
    [
        (True, 1),
        ({}, 1),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}, 4),
        ({"title": "no keyword that is checked", "type": "string"}, 1),
        ({"enum": ["a", "b"]}, 1),
        ({"enum": ["a", {"b": 1}]}, 4),
        ({"$defs": {"a": {"type": "string", "minLength": 1}}, "items": {"$ref": "#/$defs/a"}}, 4),
        ({"properties": {"kid": {"$ref": "#"}}}, 2),
    ],
)
def test_schema_cost_counts_keywords_references_and_enum_values_unless_all_are_strings(
    document: object, keywords: int
) -> None:
    assert PayloadSchema(document).keywords == keywords


@pytest.mark.parametrize("op", ["dataguard_check", "dataguard_fused"])
def test_record_over_work_limit_raises_error(op: str) -> None:
    params: dict[str, Any] = {"schema": {"properties": {"a": {"items": {"type": "integer"}}}}} | (
        {"rules": []} if op == "dataguard_fused" else {}
    )
    payload = json.dumps({"a": [1] * 98}).encode()  # 100 nodes, 3 keywords

    assert guard_bytes(op, params, WorkMeter(max_record=300))(payload) is not None
    with pytest.raises(RecordOverLimit):
        guard_bytes(op, params, WorkMeter(max_record=299))(payload)


def test_redaction_work_is_proportional_to_visited_elements() -> None:
    def work(items: int) -> int:
        spent = WorkMeter()
        guard_bytes("dataguard_redact", {"rules": ["a.b:drop"] * 10}, spent)(json.dumps({"a": [{}] * items}).encode())
        return spent.total

    assert 1.9 < work(2000) / work(1000) < 2.1


def test_array_over_work_limit_raises_error_instead_of_being_dropped() -> None:
    schema = {"properties": {"a": {"items": {"anyOf": [{"const": number} for number in range(2, 102)]}}}}

    with pytest.raises(RecordOverLimit):
        guard_bytes("dataguard_check", {"schema": schema}, WorkMeter(max_record=10**6))(
            b'{"a":[' + b"1," * 9_999 + b"1]}"
        )


@pytest.mark.parametrize("number", [b"1" * 1_001, b"1e1001", b"1e-99999999999999999999"])
def test_record_with_overlong_number_or_too_large_exponent_raises_error(number: bytes) -> None:
    with pytest.raises(RecordOverLimit):
        guard_bytes("dataguard_check", {"schema": True})(b'{"n":' + number + b"}")


def test_record_with_too_many_values_raises_error() -> None:
    with pytest.raises(RecordOverLimit):
        guard_bytes("dataguard_check", {"schema": True})(b"[" + b"[]," * 1_000_000 + b"[]]")
