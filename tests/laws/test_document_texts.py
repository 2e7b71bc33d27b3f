"""The texts of the OpenAPI document: every operation, parameter, field and tag has a name and a description."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from byteor_cloud.api.operations import Tag
from tests.openapi import document

VERBS = {
    "abort", "add", "bisect", "cancel", "check", "clear", "compare", "copy", "create", "decide", "decommission",
    "delete", "diff", "download", "drain", "draw", "enroll", "explain", "export", "finish", "get", "label", "list",
    "pause", "preview", "promote", "read", "redeliver", "remove", "replay", "report", "resume", "retire", "retry",
    "revoke", "roll", "rotate", "scrape", "send", "start", "test", "trace", "undrain", "update", "upload",
}  # fmt: skip


def operations() -> list[dict[str, Any]]:
    return [operation for path in document()["paths"].values() for operation in path.values()]


def undescribed_fields(schema: Any, place: str = "") -> Iterator[str]:
    """Yield the path of every property without a description, at any depth."""
    if isinstance(schema, list):
        for item in schema:
            yield from undescribed_fields(item, place)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "properties":
                for name, field in value.items():
                    if not field.get("description"):
                        yield f"{place}.{name}"
                    yield from undescribed_fields(field, f"{place}.{name}")
            elif key not in {"example", "default", "enum"}:
                yield from undescribed_fields(value, place if key in {"items", "oneOf", "anyOf"} else f"{place}/{key}")


@pytest.mark.parametrize("name", [operation["operationId"] for operation in operations()])
def test_operation_id_is_camel_case_and_starts_with_verb(name: str) -> None:
    assert re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", name)
    assert re.split(r"(?=[A-Z])", name)[0] in VERBS


def test_every_operation_and_response_is_described() -> None:
    missing = [operation["operationId"] for operation in operations() if not operation["description"].strip()]
    missing += [
        f"{operation['operationId']} {status}"
        for operation in operations()
        for status, response in operation["responses"].items()
        if not (response.get("description") or "$ref" in response)
    ]

    assert missing == []


def test_every_parameter_and_header_is_described() -> None:
    components = document()["components"]
    declared = [*components["parameters"].items(), *components["headers"].items()]
    used = [
        (f"{operation['operationId']} {parameter['name']}", parameter)
        for operation in operations()
        for parameter in operation.get("parameters", [])
        if "$ref" not in parameter
    ]

    assert [name for name, parameter in [*declared, *used] if not parameter.get("description")] == []


def test_every_field_is_described() -> None:
    assert list(undescribed_fields(document()["components"]["schemas"])) == []
    assert list(undescribed_fields(document()["paths"])) == []


def test_field_without_description_is_detected() -> None:
    schema = {"A": {"properties": {"b": {"description": "B.", "items": {"properties": {"c": {}}}}}}}

    assert list(undescribed_fields(schema)) == ["/A.b.c"]


def test_tags_are_described_and_in_declared_order() -> None:
    tags = document()["tags"]

    assert [tag["name"] for tag in tags] == list(Tag)
    assert all(tag["description"] for tag in tags)
    assert {tag for operation in operations() for tag in operation["tags"]} == set(Tag)


@pytest.mark.parametrize("name", sorted(document()["components"]["schemas"]))
def test_schema_name_does_not_repeat_words(name: str) -> None:
    name_words = re.findall(r"[A-Z][a-z]*", name)

    assert all(word != following for word, following in itertools.pairwise(name_words))


def test_document_introduces_api() -> None:
    introduction = document()["info"]["description"]

    for subject in (
        "Concepts", "The lifecycle of a deployment", "Authentication", "Errors", "Pagination", "Idempotency",
        "Optimistic concurrency", "Rate limits",
    ):  # fmt: skip
        assert f"## {subject}\n" in introduction
    assert document()["servers"]


def test_bearer_scheme_is_listed_first() -> None:
    assert next(iter(document()["components"]["securitySchemes"])) == "bearer"
