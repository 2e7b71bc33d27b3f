"""Refusals of bodies with very many faults: their answers and their cost are bounded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from rest_framework import serializers

from apps.fleet import heartbeat_body
from apps.releases.services import bundles
from apps.tenancy.api.fields import Strict
from byteor_cloud.api.problems import as_domain_error
from byteor_cloud.errors import MAX_DETAIL, MAX_FIELD_ERRORS, MAX_POINTER, DomainError, FieldError, InvalidInput


class Body(Strict):
    name = serializers.CharField(required=False)
    items = serializers.ListField(child=serializers.CharField(), required=False)
    labels = serializers.DictField(child=serializers.CharField(), required=False)


def refusal(body: dict[str, Any]) -> tuple[DomainError, int]:
    """What is refused, and how many functions were called for it."""
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
def test_many_faults_cost_little_more_than_few(many: str) -> None:
    few, few_calls = refusal(MANY[many](2_000))
    more, more_calls = refusal(MANY[many](4_000))

    assert len(few.errors) == len(more.errors) == MAX_FIELD_ERRORS
    assert more_calls <= 2 * few_calls + 100
    assert more_calls < 40_000


def test_the_last_of_many_unknown_fields_says_how_many_they_are() -> None:
    error, _ = refusal(MANY["unknown keys"](2_000))

    assert error.errors[-1].detail == "Unknown field; in all there are 2,000 unknown fields."


def test_errors_do_not_echo_megabytes() -> None:
    error, _ = refusal({"k" * 1_000_000: 1})

    for each in error.errors:
        assert isinstance(each, FieldError)
        assert len(each.pointer) <= MAX_POINTER
        assert len(each.detail) <= MAX_DETAIL
    assert len(InvalidInput("x" * 1_000_000).detail) == MAX_DETAIL


def test_a_heartbeat_of_unknown_fields_names_the_first_in_order() -> None:
    with pytest.raises(InvalidInput) as refused:
        heartbeat_body.parse({f"k{i:05}": 1 for i in range(5_000)})

    assert len(refused.value.errors) == MAX_FIELD_ERRORS
    first = refused.value.errors[0]
    assert isinstance(first, FieldError)
    assert first.pointer == "/k00000"
    assert refused.value.more_errors > 4_800


def test_a_search_for_secrets_builds_a_pointer_only_for_what_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []

    def pointer(way: object) -> str:
        built.append(way)
        return "/x"

    monkeypatch.setattr(bundles, "_pointer", pointer)
    key = "-----BEGIN PRIVATE KEY-----"

    assert bundles._find_secrets({"k" * 1000: [{"a": [1, "x"]}] * 1000}, "/env") == []
    assert built == []
    assert len(bundles._find_secrets([key, {"a": key}], "/env")) == len(built) == 2


def test_the_pointer_of_a_secret() -> None:
    found = bundles._find_secrets({"a/b": ["x", {"c": "-----BEGIN PRIVATE KEY-----"}]}, "/env")

    assert [error.pointer for error in found] == ["/env/a~1b/1/c"]
