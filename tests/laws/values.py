"""Valid and invalid values around the constraints of a JSON Schema in the OpenAPI document."""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from byteor_cloud.api.schema import examples
from tests.openapi import ADDRESS, document

ID = "01990a5c-7a40-7cc0-8000-3f2b7e5d1c04"
_IDS = [ID, ID.upper(), f"{{{ID}}}", f"urn:uuid:{ID}", ID.replace("-", ""), ID[:-1]]
_TIMES = [
    "2026-11-24T12:00:00Z", "2026-11-24T12:00:00.123456+02:00", "2026-11-24", "2026-11-24T12:00", "2026-11-24T12:00:00",
    "2026-11-24 12:00:00Z", "20261124T120000Z", "2026-02-30T12:00:00Z", "2026-11-24T24:00:00Z", "1700000000",
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "0000-01-01T00:00:00Z", "2026-11-24T12:00:00+24:00",
]  # fmt: skip
# Strings for patterns. Each pattern of the document rejects at least one of these, and most match at least one.
_TEXTS = [
    "sha256:" + "5f" * 32, "sha256:" + "5F" * 32, "5f" * 32, "a", "A", "name", "edge-1", "host.example", "a b", " a",
    "a ", "-a", "a\nb", "a\x07b", "a\u202eb", "", " ", "\t", "k=v", "k=v,l=w", "k", "=v", "a" * 64, "a" * 300, "SECRET",
    "x@y", base64.b64encode(f"p={ID}".encode()).decode(), "{}",
]  # fmt: skip
_ANYTHING = [None, True, 5, -1, 1.5, "x", "", [], {}, [5], {"surprise": 1}]
LONGEST = 20_000


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Resolve the schema's references, and drop a null alternative."""
    while True:
        if "$ref" in schema:
            schema = document()["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        elif "allOf" in schema:
            schema = schema["allOf"][0]
        elif "oneOf" in schema and len(schema["oneOf"]) == 2 and {"type": "null"} in schema["oneOf"]:
            schema = next(each for each in schema["oneOf"] if each != {"type": "null"})
        else:
            return schema


def is_valid(schema: dict[str, Any], value: Any) -> bool:
    """Return whether the document allows ``value``. Accepts only a few known times, ids and addresses."""
    flat = resolved(schema)
    if isinstance(value, str) and flat.get("format") == "date-time" and value not in _TIMES[:2]:
        return False
    if isinstance(value, str) and flat.get("format") == "uuid" and value not in _IDS[:2]:
        return False
    if isinstance(value, str) and flat.get("format") == "email" and value != "ada@example.com":
        return False
    return bool(Draft202012Validator(_local(schema), registry=_registry()).is_valid(value))


@cache
def _registry() -> Registry[Any]:
    empty: Registry[Any] = Registry()
    made: Registry[Any] = empty.with_resource(ADDRESS, DRAFT202012.create_resource(document()))
    return made


def _local(schema: Any) -> Any:
    """Return the schema with absolute references."""
    if isinstance(schema, list):
        return [_local(each) for each in schema]
    if isinstance(schema, dict):
        return {key: ADDRESS + value if key == "$ref" else _local(value) for key, value in schema.items()}
    return schema


def example(schema: dict[str, Any]) -> Any:
    """Return a plausible value for the schema."""
    return examples.example(schema, document()["components"]["schemas"])


def texts(schema: dict[str, Any]) -> list[str]:
    """Return valid and invalid strings for ``schema`` in a query or a form."""
    flat = resolved(schema)
    if flat.get("type") == "array":  # a parameter that may be repeated
        return texts(flat["items"])
    found = ["", "surprise", *flat.get("enum", [])]
    match flat.get("format"), flat.get("type"):
        case "uuid", _:
            found += _IDS
        case "date-time", _:
            found += _TIMES
        case _, "boolean":
            found += ["true", "false", "True", "1", "yes", "null"]
        case _, "integer":
            found += [" 1", "1.0", "1e1", "0x1", "٣", "true", "+1", "01"]
            found += [str(flat[bound] + step) for bound in ("minimum", "maximum") for step in (-1, 0, 1)]
        case _, "string" if "enum" not in flat:
            found += _TEXTS
            found += [
                "a" * (flat[bound] + step) for bound in ("minLength", "maxLength") if bound in flat for step in (0, 1)
            ]
    return list(dict.fromkeys(found))


def is_valid_text(schema: dict[str, Any], text: str) -> bool:
    """Return whether the document allows the ``text`` of a query parameter."""
    match resolved(schema).get("type"):
        case "array":
            return is_valid_text(resolved(schema)["items"], text)
        case "boolean":
            return text in {"true", "false"}
        case "integer":
            return bool(re.fullmatch("0|-?[1-9][0-9]*", text)) and is_valid(schema, int(text))
    return is_valid(schema, text)


def _pool(schema: dict[str, Any]) -> list[Any]:
    """Return valid and invalid values for ``schema``."""
    flat = resolved(schema)
    found = [*_ANYTHING, *flat.get("enum", [])]
    for bound in ("minimum", "maximum"):
        if bound in flat:
            found += [flat[bound] - 1, flat[bound], flat[bound] + 1]
    if flat.get("type") == "string" or "string" in (flat.get("type") or ()):
        found += _IDS if flat.get("format") == "uuid" else _TIMES if flat.get("format") == "date-time" else _TEXTS
        if flat.get("maxLength", LONGEST) < LONGEST:
            found += ["a" * flat["maxLength"], "a" * (flat["maxLength"] + 1)]
    if "items" in flat:
        one = example(flat["items"])
        found += [[one] * n for n in (flat.get("minItems", 1), flat.get("maxItems", LONGEST) + 1) if n < LONGEST]
    if "propertyNames" in flat:
        found += [{text: "v"} for text in _TEXTS]
    if "maxProperties" in flat:
        found += [{f"k{i}": "v" for i in range(flat["maxProperties"] + more)} for more in (0, 1)]
    return found


def filled(schema: dict[str, Any], base: Any) -> Any:
    """Return ``base`` with an example for each object that it lacks, so that one batch can vary all of their fields."""
    flat = resolved(schema)
    if "items" in flat and "properties" in resolved(flat["items"]):
        return base or [filled(flat["items"], None)]
    if "properties" not in flat:
        return base
    node: dict[str, Any] = base if isinstance(base, dict) else example(schema)
    found = {name: filled(child, node.get(name)) for name, child in flat["properties"].items()}
    return {**node, **{name: value for name, value in found.items() if isinstance(value, dict | list)}}


def around(
    schema: dict[str, Any], base: Any, pointer: str = "", put: Callable[[Any], Any] = lambda value: value
) -> Iterator[Variant]:
    """Yield variants of ``base``. ``put`` turns a value at ``pointer`` into the complete body."""
    for value in _pool(schema):
        yield Variant(pointer, put(value), is_valid(schema, value))
    flat = resolved(schema)
    if "items" in flat:
        item = base[0] if isinstance(base, list) and len(base) == 1 else None
        yield from around(flat["items"], item, f"{pointer}/0", lambda value: put([value]))
    if "properties" not in flat:
        return
    node: dict[str, Any] = base if isinstance(base, dict) else example(schema)
    for name in flat.get("required", []):
        yield Variant(f"{pointer}/{name}", put({key: value for key, value in node.items() if key != name}), False)
    if flat.get("additionalProperties") is False:
        yield Variant(f"{pointer}/surprise", put({**node, "surprise": 1}), False)
    for name, child in flat["properties"].items():

        def put_child(value: Any, name: str = name) -> Any:
            return put({**node, name: value})

        if child.keys() == {"description"}:  # a read-only field, whose value the server ignores
            yield Variant(f"{pointer}/{name}", put_child(5), True)
        else:
            yield from around(child, node.get(name), f"{pointer}/{name}", put_child)


class Variant(NamedTuple):
    """A body whose value at one pointer may be invalid or missing. Everything else in it is valid."""

    pointer: str
    body: Any
    is_allowed: bool


def _changed_place(base: Any, pointer: str) -> tuple[str, ...]:
    """Return the keys that lead to ``pointer``, up to the first value that variants can only replace as a whole."""
    keys: list[str] = []
    node = base
    for key in pointer.split("/")[1:]:
        keys.append(key)
        node = node.get(key) if isinstance(node, dict) else node[0] if key == "0" else None
        if not (isinstance(node, dict) or (isinstance(node, list) and len(node) == 1)):
            break
    return tuple(keys)


def batches(base: Any, variants: Iterable[Variant]) -> Iterator[tuple[Any, list[Variant]]]:
    """Group variants that change ``base`` at different places, and yield each group with one combined body.

    One request usually checks a group, because the server can report several errors of a body in one response.
    """
    found: list[tuple[bool, dict[tuple[str, ...], Variant]]] = []
    for variant in variants:
        place = _changed_place(base, variant.pointer)
        for is_allowed, group in found:
            if is_allowed == variant.is_allowed and not any(_overlap(place, other) for other in group):
                group[place] = variant
                break
        else:
            found.append((variant.is_allowed, {place: variant}))
    for _, group in found:
        body = copy.deepcopy(base)
        for place, variant in group.items():
            body = _changed(body, place, variant.body)
        yield body, list(group.values())


def _overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _changed(body: Any, place: tuple[str, ...], variant: Any) -> Any:
    """Return ``body`` with the value of ``variant`` at ``place``, or without a value if ``variant`` has none there."""
    if not place:
        return variant
    key, *rest = place
    if isinstance(body, list):
        return [_changed(body[0], tuple(rest), variant[0])] if isinstance(variant, list) and variant else variant
    if not isinstance(variant, dict) or key not in variant:
        return {name: value for name, value in body.items() if name != key}
    return {**body, key: _changed(body.get(key), tuple(rest), variant[key])}
