"""Tests of payload schemas: refused schemas, and the values that valid schemas accept."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from byteor.engine.replay import check_params
from byteor.engine.replay.payload import MalformedPayload, encode_payload, parse_payload
from byteor.engine.replay.schema import PayloadSchema
from tests.engine.replay.params import errors

EXPECTED: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "multipleOf": lambda number, limit: (number / limit).denominator == 1,
    "minimum": lambda number, limit: number >= limit,
    "maximum": lambda number, limit: number <= limit,
    "exclusiveMinimum": lambda number, limit: number > limit,
    "exclusiveMaximum": lambda number, limit: number < limit,
    "const": lambda number, limit: number == limit,
    "enum": lambda number, limit: number == limit,
}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"$ref": "http://elsewhere.example/x"}, [("/$ref", "schema.ref")]),
        ({"$ref": "other.json"}, [("/$ref", "schema.ref")]),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, [("/$ref", "schema.ref")]),
        ({"$dynamicRef": "#nowhere"}, [("/$dynamicRef", "schema.ref")]),
        ({"$ref": "#/$defs/b", "$defs": {"a": {}}}, [("/$ref", "schema.ref")]),
        ({"$ref": "#/prefixItems/x", "prefixItems": [True]}, [("/$ref", "schema.ref")]),
        # The target is not in the position of a schema, so its pattern would not be checked.
        ({"$ref": "#/x", "x": {"pattern": "("}}, [("/$ref", "schema.ref")]),
        ({"$ref": "#/const", "const": {"pattern": "("}}, [("/$ref", "schema.ref")]),
        ({"$id": "http://[", "not": {"$ref": "x"}}, [("/not/$ref", "schema.ref")]),
        ({"$id": "http://a.example/", "not": {"$id": "x"}}, [("/not/$id", "schema.unsupported")]),
        (
            {"$defs": {"a": {"$anchor": "n"}, "b": {"$dynamicAnchor": "n"}}},
            [("/$defs/b/$dynamicAnchor", "schema.ref")],
        ),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, [("/$schema", "schema.dialect")]),
        (
            {"$defs": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "(?!x)"}}},
            [("/$defs/a/$schema", "schema.dialect"), ("/$defs/a/pattern", "schema.pattern")],
        ),
        ({"pattern": "((a{1,100}){1,100}){1,100}"}, [("/pattern", "schema.pattern")]),
        ({"patternProperties": {"(a)\\1": {}}}, [("/patternProperties", "schema.pattern")]),
        ({"patternProperties": {"a": {}}, "allOf": [{"unevaluatedProperties": False}]}, []),
        ({"$ref": "#"}, [("", "schema.ref")]),
        ({"properties": {"a": {"not": {"$ref": "#/properties/a"}}}}, [("/properties/a", "schema.ref")]),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}},
            [("/$defs/a", "schema.ref")],
        ),
        # Here, keywords occur in data or as names of properties, where they have no effect.
        (
            {
                "const": {"$ref": "http://x.example/", "$schema": 5, "$id": "x"},
                "properties": {"$ref": {}, "pattern": {}},
            },
            [],
        ),
        ({"enum": [{"pattern": "("}], "format": "regex"}, []),
    ],
)
def test_schema_check_returns_expected_errors(document: object, expected: list[tuple[str, str]]) -> None:
    assert errors("dataguard_check", {"schema": document}) == [(f"/schema{at}", code) for at, code in expected]


def test_at_most_20_schema_errors_are_reported() -> None:
    assert len(check_params("dataguard_check", {"schema": {"required": list(range(1, 50))}})) == 20


def accepts(document: object, value: object) -> bool:
    return PayloadSchema(document).accepts(value)


@pytest.mark.parametrize(
    ("document", "valid", "invalid"),
    [
        ({"pattern": "^a+$"}, "aa", "b"),
        ({"pattern": "a"}, 5, "b"),
        ({"pattern": "^.$"}, "😀", "ab"),
        ({"pattern": "\x00"}, "a\x00b", "a"),
        ({"patternProperties": {"^x": {"type": "integer"}}}, {"x": 1, "y": "z"}, {"x": "z"}),
        ({"patternProperties": {"^x": False}}, [], {"x": 1}),
        (
            {"additionalProperties": {"type": "integer"}, "properties": {"a": {}}},
            {"a": "", "b": 1},
            {"b": ""},
        ),
        ({"additionalProperties": False, "patternProperties": {"^x|^y$": {}}}, {"x1": 1, "y": 1}, {"y1": 1}),
        ({"additionalProperties": False}, 5, {"a": 1}),
        ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}], [{"a": 1.0}, {"a": 1}]),
        ({"uniqueItems": False}, [1, 1], None),
        ({"uniqueItems": True}, "aa", [0, 0]),
        ({"unevaluatedProperties": False, "allOf": [{"properties": {"a": {}}}]}, {"a": 1}, {"b": 1}),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "number"}}}, 1, "1"),
        ({"$ref": "#n", "$defs": {"n": {"$anchor": "n", "type": "number"}}}, 1, "1"),
        ({"$id": "http://me.example/s", "$ref": "s#/$defs/n", "$defs": {"n": {"type": "number"}}}, 1, "1"),
        (
            {"$dynamicAnchor": "node", "properties": {"kid": {"$dynamicRef": "#node"}}, "required": ["x"]},
            {"x": 1, "kid": {"x": 1}},
            {"x": 1, "kid": {}},
        ),
        ({"$ref": "#/$defs/t", "$defs": {"t": True}, "type": "null"}, None, 1),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "pattern": "a"}, "a", "b"),
        ({"properties": {"$schema": {"type": "string"}}}, {"$schema": "x"}, {"$schema": 1}),
        ({"type": "integer"}, 1.0, 1.5),
        ({"format": "email"}, "no mail", None),
        ({"multipleOf": 0.01}, 19.99, 19.995),
        ({"multipleOf": 1e20}, 3 * 10**20, 10**20 + 1),
        ({"type": "integer", "minimum": 2**53 - 1}, 10**300, 10**300 * -1),
        ({"maximum": 0.1}, Decimal("0.09999999999999999999999999"), Decimal("0.11")),
        ({"dependencies": {"a": ["b"]}, "$recursiveRef": "#"}, {"a": 1}, None),
        ({"enum": [1, "a", {"b": 2}]}, {"b": 2.0}, {"b": 3}),
        (
            {"properties": {"a": {}}, "patternProperties": {"^b": {}}, "unevaluatedProperties": False},
            {"a": 1, "b1": 1},
            {"c": 1},
        ),
    ],
)
def test_schema_accepts_only_valid_values(document: object, valid: object, invalid: object) -> None:
    assert accepts(document, valid)
    assert invalid is None or not accepts(document, invalid)


@st.composite
def number_texts(draw: st.DrawFn) -> str:
    """Draw a number as JSON text. A double cannot represent many of these numbers."""
    near = draw(st.sampled_from([0, 1, 19, 2**53, 2**63, 2**64, 10**20, 10**30]))
    whole = draw(st.sampled_from(["", "-"])) + str(near + draw(st.integers(0, 3)))
    fraction = draw(st.sampled_from(["", ".5", ".25", ".9", ".99", ".01", ".0000000000000000000001"]))
    return whole + fraction + draw(st.sampled_from(["", "e3", "e-3", "e25", "e-25", "e300", "e-400"]))


@given(text=number_texts(), limit=number_texts(), keyword=st.sampled_from([*EXPECTED]))
@settings(max_examples=600)  # only some examples have a usable limit; rejecting the others would fail a health check
@example(text="9007199254740993.5", limit="1", keyword="multipleOf")
@example(text="99999999999999999999.9", limit="1e20", keyword="minimum")
def test_numbers_are_compared_exactly(text: str, limit: str, keyword: str) -> None:
    bound = parse_payload(limit.encode())
    try:
        encode_payload(bound)
    except MalformedPayload:  # stage parameters cannot contain this limit
        return
    if keyword == "multipleOf" and Decimal(limit) <= 0:
        return
    document = {"properties": {"n": {keyword: [bound] if keyword == "enum" else bound}}}

    expected = EXPECTED[keyword](Fraction(Decimal(text)), Fraction(Decimal(limit)))

    assert accepts(document, {"n": parse_payload(text.encode()), "other": True}) is expected


def test_given_schema_is_not_modified() -> None:
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    PayloadSchema(document)
    assert document == {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def test_pattern_runs_in_linear_time() -> None:
    """In a backtracking engine, ``^(a+)+$`` takes 2^n steps, so this test would never finish."""
    evil = "^(a+)+$"
    compiled = PayloadSchema(
        {
            "properties": {"v": {"pattern": evil}},
            "patternProperties": {evil: {}},
            "additionalProperties": {"propertyNames": {"pattern": evil}},
        }
    )
    text = "a" * 200_000

    assert compiled.accepts({"v": text, text: 1})
    assert not compiled.accepts({"v": text + "!"})
    assert compiled.accepts({"b": {text: 1}})
    assert not compiled.accepts({"b": {text + "!": 1}})


def fan_out(levels: int, link: str) -> dict[str, Any]:
    levels_below = {
        f"a{n}": {"allOf": [{link: {"$ref": f"#/$defs/a{n + 1}"}} if link != "$ref" else
                            {"$ref": f"#/$defs/a{n + 1}"}] * 2}
        for n in range(levels)
    }  # fmt: skip
    return {"$ref": "#/$defs/a0", "$defs": levels_below | {f"a{levels}": {"type": "string"}}}


@pytest.mark.parametrize("link", ["$ref", "items", "not"])
def test_schema_that_expands_exponentially_is_refused(link: str) -> None:
    assert 2 * PayloadSchema(fan_out(5, link)).keywords <= PayloadSchema(fan_out(6, link)).keywords
    assert errors("dataguard_check", {"schema": fan_out(40, link)}) == [("/schema", "schema.too_complex")]


def test_long_reference_chain_is_refused() -> None:
    chain: dict[str, Any] = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(300)}
    document = {"$ref": "#/$defs/a0", "$defs": chain | {"a300": {}}}

    assert errors("dataguard_check", {"schema": document}) == [("/schema", "schema.too_complex")]


def test_schema_patterns_share_memory_limit() -> None:
    found = errors("dataguard_check", {"schema": {"allOf": [{"pattern": rf"\pL{{150}}x{n}"} for n in range(300)]}})

    assert len(found) == 20
    assert {code for _, code in found} == {"schema.pattern"}


def test_recursive_schema_applies_to_nested_values() -> None:
    tree = {"type": "object", "properties": {"kid": {"$ref": "#"}}}
    value: dict[str, Any] = {}
    for _ in range(62):
        value = {"kid": value}

    assert accepts(tree, value)
    assert not accepts(tree, {"kid": {"kid": 1}})
