"""Tests that bodies with thousands of errors cost little work and that their problems stay small.

Also tests of the JSON Pointers of secrets that are found in configurations.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from rest_framework import serializers

from apps.fleet.services import heartbeats
from byteor_cloud.api.fields import StrictSerializer
from byteor_cloud.api.problems import as_domain_error
from byteor_cloud.computing import configuration_checks
from byteor_cloud.errors import MAX_DETAIL, MAX_FIELD_ERRORS, MAX_POINTER, DomainError, FieldError, InvalidInput


class Body(StrictSerializer):
    name = serializers.CharField(required=False)
    items = serializers.ListField(child=serializers.CharField(), required=False)
    labels = serializers.DictField(child=serializers.CharField(), required=False)


def validate(body: dict[str, Any]) -> tuple[DomainError, int]:
    """Return the error for an invalid body, and the number of function calls during its validation."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        serializer = Body(data=body)
        serializer.is_valid(raise_exception=True)
    except serializers.ValidationError as invalid:
        error = as_domain_error(invalid)
    finally:
        sys.setprofile(None)
    return error, calls


MANY: dict[str, Callable[[int], dict[str, Any]]] = {
    "unknown keys": lambda n: {f"key{i}": 1 for i in range(n)},
    "invalid items": lambda n: {"items": [5] * n},
    "invalid labels": lambda n: {"labels": {f"k{i}": 5 for i in range(n)}},
}


@pytest.mark.parametrize("many", MANY)
def test_validation_cost_grows_at_most_linearly_with_errors(many: str) -> None:
    few, few_calls = validate(MANY[many](2_000))
    more, more_calls = validate(MANY[many](4_000))

    assert len(few.errors) == len(more.errors) == MAX_FIELD_ERRORS
    assert more_calls <= 2 * few_calls + 100
    assert more_calls < 40_000


def test_last_listed_error_states_total_number_of_unknown_fields() -> None:
    error, _ = validate(MANY["unknown keys"](2_000))

    assert error.errors[-1].detail == "Unknown field. There are 2,000 unknown fields in total."


def test_errors_about_long_input_have_limited_length() -> None:
    error, _ = validate({"k" * 1_000_000: 1})

    for each in error.errors:
        assert isinstance(each, FieldError)
        assert len(each.pointer) <= MAX_POINTER
        assert len(each.detail) <= MAX_DETAIL
    assert len(InvalidInput("x" * 1_000_000).detail) == MAX_DETAIL


def test_heartbeat_error_lists_only_first_unknown_fields() -> None:
    with pytest.raises(InvalidInput) as raised:
        heartbeats.parse({f"k{i:05}": 1 for i in range(5_000)})

    assert len(raised.value.errors) == MAX_FIELD_ERRORS
    first = raised.value.errors[0]
    assert isinstance(first, FieldError)
    assert first.pointer == "/k00000"
    assert raised.value.more_errors > 4_800


def test_secret_scan_builds_json_pointers_only_for_found_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []

    def pointer(keys: object) -> str:
        built.append(keys)
        return "/x"

    monkeypatch.setattr(configuration_checks, "_pointer", pointer)
    key = "-----BEGIN PRIVATE KEY-----"

    assert configuration_checks._find_secrets({"k" * 1000: [{"a": [1, "x"]}] * 1000}, "/env") == []
    assert built == []
    assert len(configuration_checks._find_secrets([key, {"a": key}], "/env")) == len(built) == 2


def test_error_about_secret_in_configuration_has_json_pointer() -> None:
    found = configuration_checks._find_secrets({"a/b": ["x", {"c": "-----BEGIN PRIVATE KEY-----"}]}, "/env")

    assert [error.pointer for error in found] == ["/env/a~1b/1/c"]
