"""The texts of the OpenAPI document: its names, and the descriptions of operations, parameters, fields and tags."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from byteor_cloud.api.operations import Tag
from tests.openapi import document

VERBS = {
    "abort", "accept", "add", "bisect", "cancel", "check", "clear", "compare", "copy", "create", "decide",
    "decommission", "delete", "diff", "download", "drain", "draw", "enroll", "explain", "export", "finish", "get",
    "invite", "label", "list", "mark", "pause", "preview", "promote", "read", "redeliver", "remind", "remove", "replay",
    "report", "request", "resume", "retire", "retry", "revoke", "roll", "rotate", "scrape", "send", "start", "test",
    "trace", "undrain", "update", "upload",
}  # fmt: skip


def operations() -> list[dict[str, Any]]:
    return [operation for path in document()["paths"].values() for operation in path.values()]


def fields(schema: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path and the schema of every property, at any depth."""
    if isinstance(schema, list):
        for item in schema:
            yield from fields(item, place)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "properties":
                for name, field in value.items():
                    yield f"{place}.{name}", field
                    yield from fields(field, f"{place}.{name}")
            elif key not in {"example", "default", "enum"}:
                yield from fields(value, place if key in {"items", "oneOf", "anyOf"} else f"{place}/{key}")


def undescribed_fields(schema: Any) -> list[str]:
    return [place for place, field in fields(schema) if not field.get("description")]


def permits_null(schema: Any) -> bool:
    """Return whether null is a valid value. ``NullEnum`` is the only component of the document that permits null."""
    types, choices = schema.get("type", []), [*schema.get("oneOf", []), *schema.get("anyOf", [])]
    is_null = "null" in types or schema.get("$ref") == "#/components/schemas/NullEnum"
    return is_null or any(map(permits_null, choices))


def fields_with_unexplained_null(schema: Any) -> list[str]:
    """Return the paths of the nullable properties whose description does not contain the word null."""
    described = [(place, field.get("description", "")) for place, field in fields(schema) if permits_null(field)]
    return [place for place, description in described if not re.search(r"\bnull\b", description, re.IGNORECASE)]


def descriptions(schema: Any) -> Iterator[str]:
    """Yield the value of each member named ``description`` that is a string, also in examples."""
    if isinstance(schema, list):
        for item in schema:
            yield from descriptions(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("description"), str):
            yield schema["description"]
        for value in schema.values():
            yield from descriptions(value)


def reads_like_docstring(description: str) -> bool:
    return bool(re.match(r"(Return|Raise|Yield)\b", description)) or "or None" in description


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
    assert undescribed_fields(document()["components"]["schemas"]) == []
    assert undescribed_fields(document()["paths"]) == []


def test_field_without_description_is_detected() -> None:
    schema = {"A": {"properties": {"b": {"description": "B.", "items": {"properties": {"c": {}}}}}}}

    assert undescribed_fields(schema) == ["/A.b.c"]


def test_every_nullable_field_explains_null() -> None:
    assert fields_with_unexplained_null(document()["components"]["schemas"]) == []
    assert fields_with_unexplained_null(document()["paths"]) == []


@pytest.mark.parametrize(
    "null",
    [
        {"type": ["string", "null"]},
        {"oneOf": [{"$ref": "#/B"}, {"type": "null"}]},
        {"oneOf": [{"$ref": "#/B"}, {"$ref": "#/components/schemas/NullEnum"}]},
    ],
)
def test_unexplained_null_is_detected(null: dict[str, Any]) -> None:
    schema = {
        "A": {"properties": {"b": {"description": "Null if unknown.", **null}, "c": {"description": "C.", **null}}}
    }

    assert fields_with_unexplained_null(schema) == ["/A.c"]


def test_no_description_reads_like_docstring() -> None:
    found = list(descriptions(document()))

    assert len(found) > 1000
    assert [description for description in found if reads_like_docstring(description)] == []


@pytest.mark.parametrize("description", ["Return the name.", "Yield rows.", "The name, or None."])
def test_docstring_as_description_is_detected(description: str) -> None:
    assert list(filter(reads_like_docstring, descriptions({"a": [{"description": description}]}))) == [description]


def test_boolean_filters_describe_both_values() -> None:
    flags = [
        parameter["description"]
        for operation in operations()
        for parameter in operation.get("parameters", [])
        if parameter.get("schema", {}).get("type") == "boolean"
    ]

    assert flags
    assert [text for text in flags if not re.match(r"If true, returns .* If false, returns ", text)] == []


def test_tags_are_described_and_in_declared_order() -> None:
    tags = document()["tags"]

    assert [tag["name"] for tag in tags] == list(Tag)
    assert all(tag["description"] for tag in tags)
    assert {tag for operation in operations() for tag in operation["tags"]} == set(Tag)


@pytest.mark.parametrize("name", sorted(document()["components"]["schemas"]))
def test_schema_name_has_no_doubled_word(name: str) -> None:
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
