"""JSON Schema 2020-12 for untrusted schemas and payloads: without remote references, and with a predictable cost.

The ``jsonschema_rs`` library accepts decimal numbers of any size, but rounds some of them to doubles before it compares
them. Therefore, ``schema_numbers`` compares ``Decimal`` numbers. This module also adds restrictions:

- Patterns run in linear time (Rust's ``regex``), and the memory of all patterns together is bounded. A pattern that
  this engine refuses, such as one with look-around, is an error of the schema.
- A ``$ref`` or ``$dynamicRef`` must lead to a subschema of the same document, and must not lead back to itself without
  going deeper into the value. Nothing is fetched.
- ``$schema`` may only name 2020-12; only the root may have an ``$id``; each anchor must be unique.
- Keywords that 2020-12 does not define are removed, because the library would apply some of older drafts. ``format``
  and ``content…`` are annotations, which is the default of the standard.
- ``PayloadSchema.keywords`` is the cost of the schema for each node of a value: the number of its keywords. Keywords
  behind a reference are counted at each reference, except one that leads back to an enclosing schema. An ``enum`` or
  ``const`` counts as ``_weight`` says. In a recursive schema, the library caches its results, so the product of
  keywords and nodes bounds the library's work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any, NoReturn
from urllib.parse import unquote, urldefrag, urljoin

from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

from byteor.engine.replay import payload
from byteor.engine.replay.schema_numbers import EXACT_KEYWORDS
from byteor.engine.strict_json import pointer_of, quote_text

MAX_KEYWORDS = 1_000_000
MAX_CHAIN = 256
"""The maximum length of a chain of nested subschemas and references."""

_DRAFT = "https://json-schema.org/draft/2020-12/"
_MAX_ERRORS = 20
_MAX_PATTERN_BYTES = 256 * 1024  # the maximum memory of one compiled pattern
_MAX_PATTERNS_BYTES = 32 * 1024 * 1024  # the maximum memory of all compiled patterns together

# Keywords with a subschema that applies to the same value as the schema itself.
_SAME_VALUE = frozenset({"not", "if", "then", "else", "allOf", "anyOf", "oneOf", "dependentSchemas"})
# Keywords whose value is a subschema, a list of subschemas, or an object of subschemas.
_ONE = frozenset(
    {"not", "if", "then", "else", "additionalProperties", "contains", "items", "propertyNames", "contentSchema",
     "unevaluatedItems", "unevaluatedProperties"}
)  # fmt: skip
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_SURROGATE = re.compile("[\ud800-\udfff]")
_REFERENCES = ("$ref", "$dynamicRef")
# Keywords with subschemas that apply only where a reference leads to them. They are counted only there.
_APART = frozenset({"$defs", "definitions", "contentSchema"})
_ASSERTIONS = frozenset(
    {"type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength",
     "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains", "maxProperties",
     "minProperties", "required", "dependentRequired"}
)  # fmt: skip
_KNOWN = _ONE | _LISTS | _MAPS | _ASSERTIONS | {*_REFERENCES, "$id", "$anchor", "$dynamicAnchor"}


@dataclass(frozen=True, slots=True)
class SchemaError:
    """One fault of a schema: a JSON Pointer into it, a stable code and a message."""

    pointer: str
    code: str
    detail: str


class BadSchema(ValueError):
    """Raised for a schema that cannot be used. ``errors`` are its faults, up to a maximum number."""

    def __init__(self, errors: list[SchemaError]) -> None:
        super().__init__("; ".join(f"{error.pointer or '/'}: {error.detail}" for error in errors))
        self.errors = errors


class PayloadSchema:
    """A compiled schema. Raises BadSchema if it is invalid, too complex, or violates a restriction of the module."""

    def __init__(self, document: object) -> None:
        schema = payload.parse_payload(
            payload.encode_payload(document)
        )  # a copy with decimal numbers, which is modified below
        if faults := _against_metaschema(schema):
            raise BadSchema(faults)
        nodes = list(_subschemas(schema))
        graph = _ReferenceGraph(schema, nodes)
        options = _pattern_options(nodes)
        if faults := _dialect_faults(nodes) + graph.faults + _pattern_faults(nodes, options):
            raise BadSchema(sorted(faults, key=lambda error: (error.pointer, error.code))[:_MAX_ERRORS])
        self.keywords = graph.count_keywords()
        for node in nodes:
            for keyword in node.value.keys() - _KNOWN:
                del node.value[keyword]
        self._schema, self._options = schema, options
        self._compares_numbers = any(not EXACT_KEYWORDS.keys().isdisjoint(node.value) for node in nodes)
        self._validator = _compiled(schema, options)

    def accepts(self, value: object) -> bool:
        """Return whether a value, which may contain ``Decimal`` numbers and lone surrogates, conforms to the schema."""
        is_exact = self._compares_numbers and payload.has_decimal(value)
        validator = self._exact_validator if is_exact else self._validator
        try:
            return validator.is_valid(value)
        except UnicodeEncodeError:
            return validator.is_valid(_without_surrogates(value))

    @cached_property
    def _exact_validator(self) -> Draft202012Validator:
        """The validator for values with a ``Decimal``, which takes longer for each number."""
        return _compiled(self._schema, self._options, keywords=EXACT_KEYWORDS)


def _without_surrogates(value: Any) -> Any:
    """Replace each lone surrogate with a private-use character, so that lengths stay the same."""
    if isinstance(value, str):
        return _SURROGATE.sub(lambda found: chr(0x10F000 - 0xD800 + ord(found[0])), value)
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(member) for name, member in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class _Subschema:
    """A subschema that is an object. ``parts`` is its path from the enclosing subschema ``above``."""

    value: dict[str, Any]
    above: _Subschema | None
    parts: tuple[str | int, ...]

    def pointer(self, *parts: str | int) -> str:
        """Return the JSON Pointer of this subschema, or of a place inside it."""
        paths, node = [self.parts], self.above
        while node is not None:
            paths.append(node.parts)
            node = node.above
        return pointer_of(part for path in (*reversed(paths), parts) for part in path)


def _subschemas(schema: Any) -> Iterator[_Subschema]:
    """Yield the subschemas that are objects, each after the one that contains it."""
    waiting = [_Subschema(schema, None, ())] if isinstance(schema, dict) else []
    while waiting:
        node = waiting.pop()
        yield node
        below = [_Subschema(child, node, parts) for parts, child in _children(node.value) if isinstance(child, dict)]
        waiting += reversed(below)


def _children(schema: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    for keyword, value in schema.items():
        if keyword in _ONE:
            yield (keyword,), value
        elif keyword in _LISTS:
            yield from (((keyword, index), child) for index, child in enumerate(value))
        elif keyword in _MAPS:
            yield from (((keyword, name), child) for name, child in value.items())


def _refuse_retrieval(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is not part of the schema")


def _compiled(schema: Any, options: RegexOptions, keywords: dict[str, Any] | None = None) -> Draft202012Validator:
    return Draft202012Validator(
        schema,
        pattern_options=options,
        retriever=_refuse_retrieval,
        validate_formats=False,
        mask="the value",
        keywords=keywords,
    )


_METASCHEMA = _compiled({"$ref": f"{_DRAFT}schema"}, RegexOptions())


def _against_metaschema(schema: object) -> list[SchemaError]:
    # Several vocabularies of the metaschema report the same fault, so duplicates are removed.
    faults = {
        SchemaError(pointer_of(error.instance_path), "schema.invalid", error.message[:200]): None
        for error in islice(_METASCHEMA.iter_errors(schema), 4 * _MAX_ERRORS)
    }
    return list(faults)[:_MAX_ERRORS]


def _dialect_faults(nodes: list[_Subschema]) -> list[SchemaError]:
    faults: list[SchemaError] = []
    anchors: set[str] = set()
    for node in nodes:
        schema = node.value
        if schema.get("$schema") not in {None, f"{_DRAFT}schema", f"{_DRAFT}schema#"}:
            detail = "only JSON Schema 2020-12 is supported"
            faults.append(SchemaError(node.pointer("$schema"), "schema.dialect", detail))
        if "$id" in schema and node.above is not None:
            detail = "only the root of the schema may have an $id"
            faults.append(SchemaError(node.pointer("$id"), "schema.unsupported", detail))
        for keyword in ("$anchor", "$dynamicAnchor"):
            if keyword in schema and schema[keyword] in anchors:
                faults.append(SchemaError(node.pointer(keyword), "schema.ref", "the anchor is defined twice"))
            anchors.add(schema.get(keyword, ""))
    return faults


def _pattern_options(nodes: list[_Subschema]) -> RegexOptions:
    count = sum(("pattern" in node.value) + len(node.value.get("patternProperties", ())) for node in nodes)
    limit = min(_MAX_PATTERN_BYTES, _MAX_PATTERNS_BYTES // max(count, 1))
    return RegexOptions(size_limit=limit, dfa_size_limit=limit)


def _pattern_faults(nodes: list[_Subschema], options: RegexOptions) -> list[SchemaError]:
    faults: list[SchemaError] = []
    for node in nodes:
        named = [("pattern", node.value["pattern"])] if "pattern" in node.value else []
        named += [("patternProperties", text) for text in node.value.get("patternProperties", ())]
        for keyword, text in named:
            try:
                _compiled({"pattern": text}, options)
            except ValidationError:
                detail = (
                    f"{quote_text(text, 80)} is not a pattern that can run in linear time and bounded memory "
                    "(no look-around, no back-references, no huge repetitions)"
                )
                faults.append(SchemaError(node.pointer(keyword), "schema.pattern", detail))
                if len(faults) == _MAX_ERRORS:
                    return faults
    return faults


class _ReferenceGraph:
    """The graph of a document's subschemas and their references."""

    def __init__(self, schema: Any, nodes: list[_Subschema]) -> None:
        self.faults: list[SchemaError] = []
        self._schema = schema
        self._known = {id(node.value) for node in nodes}
        self._base = schema.get("$id", "") if isinstance(schema, dict) else ""
        self._anchors = {
            node.value[keyword]: node.value for node in nodes for keyword in ("$anchor", "$dynamicAnchor")
            if keyword in node.value
        }  # fmt: skip
        self._targets: dict[int, list[Any]] = {}
        for node in nodes:
            self._targets[id(node.value)] = []
            for keyword in _REFERENCES:
                if keyword in node.value:
                    self._add_reference(node, keyword)
        self._check_cycles(nodes)

    def _add_reference(self, node: _Subschema, keyword: str) -> None:
        target = self._target(node.value[keyword])
        if isinstance(target, bool) or id(target) in self._known:
            self._targets[id(node.value)].append(target)
        else:
            detail = "does not lead to a subschema of this document"
            self.faults.append(SchemaError(node.pointer(keyword), "schema.ref", detail))

    def _target(self, reference: str) -> Any:
        """Return the value that a reference leads to, or None if it does not lead to a value in this document."""
        try:
            uri, fragment = urldefrag(urljoin(self._base, reference))
            if uri != urldefrag(self._base)[0]:
                return None
            fragment = unquote(fragment, errors="strict")
        except ValueError:
            return None
        if not fragment.startswith("/"):
            return self._anchors.get(fragment) if fragment else self._schema
        place = self._schema
        for part in fragment.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(place, list):
                index = int(name) if name.isascii() and name.isdigit() and len(name) < 9 else len(place)
                place = place[index] if index < len(place) else None
            else:
                place = place.get(name) if isinstance(place, dict) else None
        return place

    def _check_cycles(self, nodes: list[_Subschema]) -> None:
        by_id = {id(node.value): node for node in nodes}
        same_value = {
            number: [id(child) for parts, child in _children(node.value) if parts[0] in _SAME_VALUE]
            + [id(target) for target in self._targets[number]]
            for number, node in by_id.items()
        }
        try:
            TopologicalSorter(same_value).prepare()
        except CycleError as error:
            cycle = [by_id[number] for number in error.args[1]]
            # The sorter starts a cycle at any node. Report the smallest pointer, so that the error is always the same.
            first = min(cycle, key=lambda node: node.pointer())
            detail = "refers to itself endlessly; a recursive reference must apply to a property or item of the value"
            self.faults.append(SchemaError(first.pointer(), "schema.ref", detail))

    def count_keywords(self) -> int:
        """Count the keywords that apply to each node of a value. Raises BadSchema if the schema is too complex."""
        counts: dict[int, int] = {}
        count, length = self._expanded(self._schema, counts, {}, set(), 0)
        if count > MAX_KEYWORDS or length > MAX_CHAIN:
            detail = "its references lead to too many keywords, or form a chain that is too long"
            raise BadSchema([SchemaError("", "schema.too_complex", detail)])
        return max(count, 1)

    def _expanded(
        self, schema: Any, counts: dict[int, int], lengths: dict[int, int], above: set[int], depth: int
    ) -> tuple[int, int]:
        """Return the number of keywords in a subschema and its references, and the length of its longest chain."""
        number = id(schema)
        if isinstance(schema, bool) or number in above:
            return 0, 0
        if depth > MAX_CHAIN:
            return 1, 1 + MAX_CHAIN
        if number not in counts:
            above.add(number)
            count, length = 0, 0
            for keyword in schema.keys() & _KNOWN - _APART:
                weighed = keyword in {"enum", "const"}
                count += _weight(schema[keyword]) if weighed else 1
            on = [child for parts, child in _children(schema) if parts[0] not in _APART]
            for child in on + self._targets[number]:
                more, farther = self._expanded(child, counts, lengths, above, depth + 1)
                count, length = min(count + more, MAX_KEYWORDS + 1), max(length, farther + 1)
            above.discard(number)
            counts[number], lengths[number] = count, length
        return counts[number], lengths[number]


def _weight(allowed: Any) -> int:
    """Return the cost of an ``enum`` or ``const``. The library compares with each value, but hashes strings."""
    options = allowed if isinstance(allowed, list) else [allowed]
    if all(isinstance(option, str) for option in options):
        return 1
    # A ``float`` among the options counts as 50 nodes, like a long number, because comparing it takes as long.
    # ``count_nodes`` counts it as one.
    return payload.count_nodes(allowed) + 49 * sum(isinstance(option, float) for option in options)
