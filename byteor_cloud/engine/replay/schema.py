"""JSON Schema 2020-12 for payloads of strangers: no remote reference, no runaway pattern or recursion.

The ``jsonschema`` library does the checking. What differs from its defaults, and why:

- A pattern is compiled by RE2, which runs in linear time; what RE2 refuses is an error of the schema.
- A ``$ref`` or ``$dynamicRef`` must lead to a subschema of the same document.
- ``$schema`` may only name 2020-12; only the whole document may have an ``$id``; an anchor is there once.
- ``unevaluatedProperties`` in one document with ``patternProperties`` is refused: the library would match
  those patterns with Python's backtracking ``re``.
- Work on one value is metered, in keywords evaluated and in their nesting, so that a schema that refers to
  itself ends the same way on every machine: the value does not conform.
- ``uniqueItems`` compares canonical JSON, as the library's comparison of objects is quadratic.
- ``format`` is an annotation, as in the standard's default.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jsonschema_specifications  # type: ignore[import-untyped]  # it ships no types
import re2
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, SchemaRegistry

from byteor_cloud.engine.replay import strict_json

_DRAFT = "https://json-schema.org/draft/2020-12/"
_MAX_ERRORS = 20
_MAX_NESTING = 128  # keywords within keywords: at four frames each, well inside Python's stack
_STEPS = 100_000
_STEPS_PER_BYTE = 32

type Keyword = Callable[[Any, Any, Any, Mapping[str, Any]], Iterator[ValidationError] | None]


@dataclass(frozen=True, slots=True)
class SchemaError:
    """One fault of a schema: where (a JSON pointer into it), its code, what is wrong."""

    pointer: str
    code: str
    detail: str


class BadSchema(ValueError):
    """A schema that cannot be used; ``errors`` says all that is wrong with it."""

    def __init__(self, errors: list[SchemaError]) -> None:
        super().__init__("; ".join(f"{error.pointer or '/'}: {error.detail}" for error in errors))
        self.errors = errors


class Schema:
    """A compiled schema; ``BadSchema`` when it is none or asks for what the module's docstring rules out."""

    def __init__(self, document: object) -> None:
        schema = json.loads(strict_json.canonical(document))  # a copy: ``$schema`` is taken out of it below
        if faults := _against_metaschema(schema):
            raise BadSchema(faults)
        self._meter = _Meter()
        patterns: dict[str, Any] = {}
        if faults := _faults(schema, patterns):
            raise BadSchema(faults)
        self._validator = _validator(schema, Registry(), patterns, self._meter)

    def accepts(self, value: object, size: int) -> bool:
        """Whether a value (from ``size`` bytes of JSON) conforms; one that costs too much work does not."""
        self._meter.reset(size)
        try:
            return bool(self._validator.is_valid(value))
        except _TooMuchWork:
            return False


class _TooMuchWork(Exception):
    pass


class _Meter:
    """Counts keyword evaluations on one value, and how deep they are nested."""

    def reset(self, size: int) -> None:
        self.steps = _STEPS + _STEPS_PER_BYTE * size
        self.nesting = 0

    def metered(self, keyword: Keyword) -> Keyword:
        def evaluate(
            validator: Any, argument: Any, instance: Any, schema: Mapping[str, Any]
        ) -> Iterator[ValidationError]:
            self.steps -= 1
            self.nesting += 1
            if self.steps < 0 or self.nesting > _MAX_NESTING:
                raise _TooMuchWork
            try:
                yield from keyword(validator, argument, instance, schema) or ()
            finally:
                self.nesting -= 1

        return evaluate


def _validator(schema: Any, registry: SchemaRegistry, patterns: Mapping[str, Any], meter: _Meter) -> Any:
    """A validator of a schema that has no ``$schema`` (the library would change to its own class at one)."""

    def pattern(validator: Any, argument: str, instance: Any, schema: object) -> Iterator[ValidationError]:
        if isinstance(instance, str) and not patterns[argument].search(instance):
            yield ValidationError(f"does not match {argument!r}")

    def pattern_properties(
        validator: Any, argument: Mapping[str, Any], instance: Any, schema: object
    ) -> Iterator[ValidationError]:
        if isinstance(instance, dict):
            for text, subschema in argument.items():
                for name, value in instance.items():
                    if patterns[text].search(name):
                        yield from validator.descend(value, subschema, path=name, schema_path=text)

    def additional_properties(
        validator: Any, argument: Any, instance: Any, schema: Mapping[str, Any]
    ) -> Iterator[ValidationError]:
        if isinstance(instance, dict):
            named, matched = schema.get("properties", {}), schema.get("patternProperties", {})
            for name, value in instance.items():
                if name not in named and not any(patterns[text].search(name) for text in matched):
                    yield from validator.descend(value, argument, path=name)

    keywords = dict(Draft202012Validator.VALIDATORS) | {
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional_properties,
        "uniqueItems": _unique_items,
    }
    metered = {name: meter.metered(keyword) for name, keyword in keywords.items()}
    metered_class = extend(Draft202012Validator, validators=metered)  # type: ignore[no-untyped-call]  # idem
    return metered_class(schema, registry=registry)


def _unique_items(validator: Any, argument: bool, instance: Any, schema: object) -> Iterator[ValidationError]:
    unique = argument and isinstance(instance, list)
    if unique and len({strict_json.canonical(item) for item in instance}) < len(instance):
        yield ValidationError("has an item twice")


def _compile(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


# Without ``$schema``, so that the metaschema too is evaluated by our own keywords.
_METASCHEMA = {
    uri: {key: value for key, value in resource.contents.items() if key != "$schema"}
    for uri, resource in jsonschema_specifications.REGISTRY.items()
    if uri.startswith(_DRAFT)
}


def _against_metaschema(schema: object) -> list[SchemaError]:
    meter = _Meter()
    meter.reset(len(strict_json.canonical(schema)))
    registry: SchemaRegistry = Registry().with_resources(
        (uri, DRAFT202012.create_resource(contents)) for uri, contents in _METASCHEMA.items()
    )
    patterns = {text: _compile(text) for text in (r"^[^#]*#?$", r"^[A-Za-z_][-A-Za-z0-9._]*$")}
    validator = _validator(_METASCHEMA[f"{_DRAFT}schema"], registry, patterns, meter)
    try:
        # Each of the metaschema's vocabularies repeats some faults; the message may quote the whole schema.
        faults = {
            SchemaError(strict_json.pointer(error.absolute_path), "schema.invalid", error.message[:200]): None
            for error in islice(validator.iter_errors(schema), _MAX_ERRORS)
        }
    except _TooMuchWork:
        return [SchemaError("", "schema.too_complex", "takes too much work to check")]
    return list(faults)


def _faults(schema: Any, patterns: dict[str, Any]) -> list[SchemaError]:
    """What the metaschema does not say. Takes ``$schema`` out; puts what it compiles into ``patterns``."""
    pointers = dict(_objects(schema, ""))
    faults: list[SchemaError] = []

    def fault(node: object, key: str, code: str, detail: str) -> None:
        faults.append(SchemaError(f"{pointers[id(node)]}{strict_json.pointer([key])}", code, detail))

    nodes = list(_subschemas(schema))
    known = {id(node) for node in nodes}
    anchors: set[str] = set()
    for node in nodes:
        if node.pop("$schema", None) not in {None, f"{_DRAFT}schema", f"{_DRAFT}schema#"}:
            fault(node, "$schema", "schema.dialect", "only JSON Schema 2020-12 is understood")
        if "$id" in node and node is not schema:
            fault(node, "$id", "schema.unsupported", "only the whole document may have an $id")
        for key in ("$anchor", "$dynamicAnchor"):
            if key in node and node[key] in anchors:
                fault(node, key, "schema.ref", "the anchor is there twice")
            anchors.add(node.get(key, ""))
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    for node in nodes:
        for key in ("$ref", "$dynamicRef"):
            if key in node and not _leads_to(known, resolver, node[key]):
                fault(node, key, "schema.ref", "leads to no subschema of this document")
        named = [("pattern", node["pattern"])] if "pattern" in node else []
        for key, text in named + [("patternProperties", text) for text in node.get("patternProperties", {})]:
            try:
                patterns[text] = _compile(text)
            except re2.error as error:
                reason = error.args[0].decode(errors="replace")
                fault(node, key, "schema.pattern", f"{text[:80]!r} is no RE2 pattern: {reason}")
    with_patterns = any("patternProperties" in node for node in nodes)
    for node in nodes:
        if with_patterns and "unevaluatedProperties" in node:
            detail = "not supported in one document with patternProperties"
            fault(node, "unevaluatedProperties", "schema.unsupported", detail)
    # The library walks a schema in the order of a set.
    return sorted(faults, key=lambda error: (error.pointer, error.code))


def _subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for subresource in DRAFT202012.create_resource(schema).subresources():
            yield from _subschemas(subresource.contents)


def _leads_to(known: set[int], resolver: Any, reference: str) -> bool:
    try:
        target = resolver.lookup(reference).contents
    except (Unresolvable, ValueError):
        return False
    return isinstance(target, bool) or id(target) in known


def _objects(value: Any, pointer: str) -> Iterator[tuple[int, str]]:
    """The pointer of each object in a JSON value, by identity."""
    if isinstance(value, dict):
        yield id(value), pointer
        for key, child in value.items():
            yield from _objects(child, f"{pointer}{strict_json.pointer([key])}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _objects(child, f"{pointer}/{index}")
