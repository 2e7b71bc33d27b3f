import json
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteor_cloud.engine.replay import check_params
from byteor_cloud.engine.replay.dataguard import BadParams, ParamError, Rejected, build
from byteor_cloud.engine.replay.schema import Schema
from byteor_cloud.engine.replay.work import RecordOverLimit, Work


def errors(op: str, params: object) -> list[tuple[str, str]]:
    return [(error.pointer, error.code) for error in check_params(op, params)]


def redact(rule: str, value: object) -> Any:
    out = build("dataguard_redact", {"rules": [rule]})(json.dumps(value).encode())
    assert out is not None
    return json.loads(out)


# --- rejecting


def test_without_parameters_a_record_passes_unchanged() -> None:
    for op in ("dataguard_check", "dataguard_redact", "dataguard_fused"):
        assert build(op, None)(b"\xff no JSON") == b"\xff no JSON"


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"[]", b"1", b'{"a":1,"a":2}', b'{"a":NaN}', b'{"b":1}', b"[" * 10**6]
)
@pytest.mark.parametrize("op", ["dataguard_check", "dataguard_fused"])
def test_a_payload_is_rejected_as_on_reject_says(op: str, payload: bytes) -> None:
    params: dict[str, Any] = {"schema": {"required": ["a"]}} | ({"rules": []} if op == "dataguard_fused" else {})

    assert build(op, params)(payload) is None
    assert build(op, params | {"on_reject": "drop"})(payload) is None
    with pytest.raises(Rejected, match="payload rejected: "):
        build(op, params | {"on_reject": "stop"})(payload)


def test_redact_rejects_what_is_no_object() -> None:
    assert build("dataguard_redact", {"rules": []})(b"[]") is None
    with pytest.raises(Rejected, match="payload rejected: no JSON object"):
        build("dataguard_redact", {"rules": [], "on_reject": "stop"})(b"[]")


def test_check_passes_the_very_bytes_and_redact_writes_canonical_json() -> None:
    payload = b'{ "b" : 1.50, "a":"\\u00e9" }'

    assert build("dataguard_check", {"schema": True})(payload) == payload
    assert build("dataguard_redact", {"rules": []})(payload) == '{"a":"é","b":1.5}'.encode()


def test_fused_checks_first_and_what_was_there_before_redaction() -> None:
    guard = build("dataguard_fused", {"schema": {"required": ["pin"]}, "rules": ["pin:drop"]})

    assert guard(b'{"pin":1,"x":2}') == b'{"x":2}'
    assert guard(b'{"x":2}') is None


# --- rules


@pytest.mark.parametrize(
    ("rule", "value", "result"),
    [
        ("a:drop", {"a": 1, "b": 2}, {"b": 2}),
        ("a.b:drop", {"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}),
        ("a.b:drop", {"a": 1}, {"a": 1}),
        ("a.b:drop", {"b": 1}, {"b": 1}),
        ("a.b:drop", {"a": [{"b": 1}, [{"b": 2, "c": 3}], 4]}, {"a": [{}, [{"c": 3}], 4]}),
        (r"a\.b:drop", {"a.b": 1, "a": {"b": 1}}, {"a": {"b": 1}}),
        (r"a\:b\\:drop", {"a:b\\": 1}, {}),
        ("é 1.ü:drop", {"é 1": {"ü": 1}}, {"é 1": {}}),
        ("a:replace_with=***", {"a": {"deep": 1}}, {"a": "***"}),
        ("a:replace_with=", {"a": 1}, {"a": ""}),
        ("a:replace_with=x:y=\n", {"a": None}, {"a": "x:y=\n"}),
        ("a:hash", {"a": "ann"}, {"a": sha256(b'"ann"').hexdigest()}),
        ("a:hash", {"a": {"y": 1.0, "x": []}}, {"a": sha256(b'{"x":[],"y":1}').hexdigest()}),
        ("a:mask=4:2:*", {"a": "4111222233334444"}, {"a": "4111**********44"}),
        ("a:mask=0:0:#", {"a": "abc"}, {"a": "###"}),
        ("a:mask=1:0:#", {"a": "abc"}, {"a": "a##"}),
        ("a:mask=0:1:#", {"a": "abc"}, {"a": "##c"}),
        ("a:mask=2:1:#", {"a": "abc"}, {"a": "###"}),
        ("a:mask=9:9:#", {"a": "abc"}, {"a": "###"}),
        ("a:mask=1:1:#", {"a": ""}, {"a": ""}),
        ("a:mask=1:1::", {"a": "abc"}, {"a": "a:c"}),
        ("a:mask=1:1:😀", {"a": "äöüß"}, {"a": "ä😀😀ß"}),
        ("a:mask=2:1:#", {"a": 123456}, {"a": "12###6"}),
        ("a:mask=0:0:#", {"a": None}, {"a": "####"}),
        ("a:mask=0:0:#", {"a": ["b"]}, {"a": "#####"}),
        ("a:truncate=2", {"a": "äöü"}, {"a": "äö"}),
        ("a:truncate=0", {"a": "abc"}, {"a": ""}),
        ("a:truncate=9", {"a": "abc"}, {"a": "abc"}),
        ("a:truncate=2", {"a": 123}, {"a": "12"}),
        ("a:truncate=9", {"a": [1, 2]}, {"a": "[1,2]"}),
    ],
)
def test_rules(rule: str, value: object, result: object) -> None:
    assert redact(rule, value) == result


def test_rules_apply_in_order() -> None:
    guard = build("dataguard_redact", {"rules": ["a:truncate=2", "a:hash", "a:truncate=8", "b:drop", "b:hash"]})

    assert guard(b'{"a":"abc","b":1}') == b'{"a":"%s"}' % sha256(b'"ab"').hexdigest()[:8].encode()


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "a",
        "a:",
        ":drop",
        "a.:drop",
        ".a:drop",
        "a..b:drop",
        "a:keep",
        "a:drop ",
        "a:drop=1",
        "a:hash:x",
        "a:b:drop",
        r"a\n:drop",
        "a\\",
        "a:mask",
        "a:mask=1:2",
        "a:mask=1:2:",
        "a:mask=1:2:xx",
        "a:mask=-1:2:x",
        "a:mask=1.5:2:x",
        "a:truncate",
        "a:truncate=",
        "a:truncate=-1",
        "a:truncate=1234567890",
        "a:truncate=٣",
        5,
        None,
    ],
)
def test_rules_that_are_none(rule: object) -> None:
    assert errors("dataguard_redact", {"rules": ["a:drop", rule]}) == [("/rules/1", "rule.invalid")]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text("ab", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(st.sampled_from("abc"), json_values),
    st.sampled_from(["mask=1:1:#", "hash", "truncate=2"]),
)
def test_a_redaction_touches_its_field_only(value: dict[str, Any], action: str) -> None:
    result = redact(f"a:{action}", value)

    assert {name: member for name, member in result.items() if name != "a"} == {
        name: member for name, member in value.items() if name != "a"
    }
    assert ("a" in result) == ("a" in value)
    assert isinstance(result.get("a", ""), str)


# --- parameters


def test_all_errors_of_parameters_are_told_at_once() -> None:
    params = {
        "schema": {
            "properties": {"a/b": {"pattern": "(?=x)"}},
            "not": {"$ref": "http://elsewhere.example/x"},
        },
        "rules": ["a", "a:drop", "b:keep"],
        "on_reject": "explode",
        "x": 1,
    }

    assert errors("dataguard_fused", params) == [
        ("/x", "params.unknown"),
        ("/on_reject", "params.choice"),
        ("/schema/not/$ref", "schema.ref"),
        ("/schema/properties/a~1b/pattern", "schema.pattern"),
        ("/rules/0", "rule.invalid"),
        ("/rules/2", "rule.invalid"),
    ]
    with pytest.raises(BadParams, match="/x: dataguard_fused has no such parameter; /on_reject: must be drop"):
        build("dataguard_fused", params)


@pytest.mark.parametrize(
    ("op", "params", "expected"),
    [
        ("dataguard_check", {"schema": {}}, []),
        ("dataguard_check", {"schema": True, "on_reject": "stop"}, []),
        ("dataguard_check", {}, [("/schema", "params.required")]),
        ("dataguard_check", {"schema": {}, "rules": []}, [("/rules", "params.unknown")]),
        ("dataguard_redact", {"schema": {}}, [("/schema", "params.unknown"), ("/rules", "params.required")]),
        ("dataguard_fused", {}, [("/schema", "params.required"), ("/rules", "params.required")]),
        ("dataguard_redact", {"rules": "a:drop"}, [("/rules", "params.type")]),
        ("dataguard_redact", {"rules": [], "on_reject": None}, [("/on_reject", "params.choice")]),
        ("dataguard_redact", {"rules": [], "on_reject": []}, [("/on_reject", "params.choice")]),
        ("dataguard_redact", [], [("", "params.type")]),
        ("dataguard_redact", {"rules": [float("nan")]}, [("", "params.json")]),
        ("dataguard_check", {"schema": {"maximum": 2**60 + 1}}, [("", "params.json")]),
        ("dataguard_check", {"schema": {"maximum": 1e18}}, []),
        ("dataguard_redact", {"rules": ["a:replace_with=" + "x" * 65536]}, [("", "params.too_large")]),
        ("dataguard_check", {"schema": 5}, [("/schema", "schema.invalid")]),
        ("dataguard_check", {"schema": {"type": "text"}}, [("/schema/type", "schema.invalid")]),
        (
            "dataguard_check",
            {"schema": {"items": {"minLength": -1}}},
            [("/schema/items/minLength", "schema.invalid")],
        ),
        ("dataguard_redact", None, []),
        ("identity", {"any": "thing"}, []),
        ("http_post:http://x", 5, []),
    ],
)
def test_parameters(op: str, params: object, expected: list[tuple[str, str]]) -> None:
    assert errors(op, params) == expected


def test_an_error_of_parameters_says_what_to_write() -> None:
    assert check_params("dataguard_check", {"schema": True, "on_reject": 1}) == [
        ParamError("/on_reject", "params.choice", "must be drop or stop")
    ]


# --- schemas


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"$ref": "http://elsewhere.example/x"}, [("/$ref", "schema.ref")]),
        ({"$ref": "other.json"}, [("/$ref", "schema.ref")]),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, [("/$ref", "schema.ref")]),
        ({"$dynamicRef": "#nowhere"}, [("/$dynamicRef", "schema.ref")]),
        ({"$ref": "#/$defs/b", "$defs": {"a": {}}}, [("/$ref", "schema.ref")]),
        ({"$ref": "#/prefixItems/x", "prefixItems": [True]}, [("/$ref", "schema.ref")]),
        # What it leads to is not known to be a schema, and its pattern would not have been compiled.
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
        # Data, not schemas.
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
def test_schemas_that_are_refused(document: object, expected: list[tuple[str, str]]) -> None:
    assert errors("dataguard_check", {"schema": document}) == [(f"/schema{at}", code) for at, code in expected]


def test_many_errors_of_a_schema_are_cut() -> None:
    assert len(check_params("dataguard_check", {"schema": {"required": list(range(1, 50))}})) == 20


def accepts(document: object, value: object) -> bool:
    return Schema(document).accepts(value)


@pytest.mark.parametrize(
    ("document", "good", "bad"),
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
def test_schemas(document: object, good: object, bad: object) -> None:
    assert accepts(document, good)
    assert bad is None or not accepts(document, bad)


def test_the_callers_schema_is_left_as_it_is() -> None:
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    Schema(document)
    assert document == {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def test_a_pattern_reads_a_text_once() -> None:
    """(a+)+$ takes 2^n steps in an engine that backtracks: this would not end."""
    evil = "^(a+)+$"
    compiled = Schema(
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


# --- work


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
def test_what_a_schema_costs_a_node(document: object, keywords: int) -> None:
    assert Schema(document).keywords == keywords


def fan_out(levels: int, link: str) -> dict[str, Any]:
    levels_below = {
        f"a{n}": {"allOf": [{link: {"$ref": f"#/$defs/a{n + 1}"}} if link != "$ref" else
                            {"$ref": f"#/$defs/a{n + 1}"}] * 2}
        for n in range(levels)
    }  # fmt: skip
    return {"$ref": "#/$defs/a0", "$defs": levels_below | {f"a{levels}": {"type": "string"}}}


@pytest.mark.parametrize("link", ["$ref", "items", "not"])
def test_references_that_multiply_are_counted_and_refused(link: str) -> None:
    assert 2 * Schema(fan_out(5, link)).keywords <= Schema(fan_out(6, link)).keywords
    assert errors("dataguard_check", {"schema": fan_out(40, link)}) == [("/schema", "schema.too_complex")]


def test_references_that_lead_on_without_end_are_refused() -> None:
    chain: dict[str, Any] = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(300)}
    document = {"$ref": "#/$defs/a0", "$defs": chain | {"a300": {}}}

    assert errors("dataguard_check", {"schema": document}) == [("/schema", "schema.too_complex")]


@pytest.mark.parametrize("op", ["dataguard_check", "dataguard_fused"])
def test_a_record_over_the_limit_of_work_is_no_drop(op: str) -> None:
    params: dict[str, Any] = {"schema": {"properties": {"a": {"items": {"type": "integer"}}}}} | (
        {"rules": []} if op == "dataguard_fused" else {}
    )
    payload = json.dumps({"a": [1] * 98}).encode()  # 100 nodes, 3 keywords

    assert build(op, params, Work(max_record=300))(payload) is not None
    with pytest.raises(RecordOverLimit):
        build(op, params, Work(max_record=299))(payload)


def test_the_work_of_a_redaction_grows_with_the_places_that_it_visits() -> None:
    def work(items: int) -> int:
        spent = Work()
        build("dataguard_redact", {"rules": ["a.b:drop"] * 10}, spent)(json.dumps({"a": [{}] * items}).encode())
        return spent.total

    assert 1.9 < work(2000) / work(1000) < 2.1


def test_a_record_of_more_values_than_any_limit_is_no_drop() -> None:
    with pytest.raises(RecordOverLimit):
        build("dataguard_check", {"schema": True})(b"[" + b"[]," * 1_000_000 + b"[]]")


def test_patterns_of_a_schema_share_a_bound_of_memory() -> None:
    found = errors("dataguard_check", {"schema": {"allOf": [{"pattern": rf"\pL{{150}}x{n}"} for n in range(300)]}})

    assert len(found) == 20
    assert {code for _, code in found} == {"schema.pattern"}


def test_a_recursive_schema_reads_payloads_down_to_the_deepest() -> None:
    tree = {"type": "object", "properties": {"kid": {"$ref": "#"}}}
    value: dict[str, Any] = {}
    for _ in range(62):
        value = {"kid": value}

    assert accepts(tree, value)
    assert not accepts(tree, {"kid": {"kid": 1}})
