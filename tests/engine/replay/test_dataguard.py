"""Tests of the dataguard ops: rejected records, redaction rules and invalid parameters."""

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteor.engine.replay import check_params
from byteor.engine.replay.dataguard import BadParams, ParamError, PayloadRejected, build_guard
from byteor.engine.replay.payload import Message
from tests.engine.replay.params import errors, guard_bytes


def redact(rule: str, value: object) -> Any:
    out = guard_bytes("dataguard_redact", {"rules": [rule]})(json.dumps(value).encode())
    assert out is not None
    return json.loads(out)


# --- rejected records


def test_dataguard_op_without_parameters_has_no_guard() -> None:
    for op in ("dataguard_check", "dataguard_redact", "dataguard_fused"):
        assert build_guard(op, None) is build_guard(op, {}) is None


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"[]", b"1", b'{"a":1,"a":2}', b'{"a":NaN}', b'{"b":1}', b"[" * 10**6]
)
@pytest.mark.parametrize("op", ["dataguard_check", "dataguard_fused"])
def test_on_reject_decides_whether_rejected_record_is_dropped_or_stops_replay(op: str, payload: bytes) -> None:
    params: dict[str, Any] = {"schema": {"required": ["a"]}} | ({"rules": []} if op == "dataguard_fused" else {})

    assert guard_bytes(op, params)(payload) is None
    assert guard_bytes(op, params | {"on_reject": "drop"})(payload) is None
    with pytest.raises(PayloadRejected, match="payload rejected: "):
        guard_bytes(op, params | {"on_reject": "stop"})(payload)


def test_redact_rejects_non_object_payload() -> None:
    assert guard_bytes("dataguard_redact", {"rules": []})(b"[]") is None
    with pytest.raises(PayloadRejected, match="payload rejected: not a JSON object"):
        guard_bytes("dataguard_redact", {"rules": [], "on_reject": "stop"})(b"[]")


def test_dataguard_check_keeps_bytes_and_dataguard_redact_writes_canonical_json() -> None:
    payload = b'{ "b" : 1.50, "a":"\\u00e9" }'

    assert guard_bytes("dataguard_check", {"schema": True})(payload) == payload
    assert guard_bytes("dataguard_redact", {"rules": []})(payload) == '{"a":"é","b":1.5}'.encode()


def test_dataguard_fused_checks_payload_before_redacting_it() -> None:
    guard = guard_bytes("dataguard_fused", {"schema": {"required": ["pin"]}, "rules": ["pin:drop"]})

    assert guard(b'{"pin":1,"x":2}') == b'{"x":2}'
    assert guard(b'{"x":2}') is None


# --- redaction rules


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
def test_redaction_rule_returns_expected_value(rule: str, value: object, result: object) -> None:
    assert redact(rule, value) == result


def test_rules_apply_in_order() -> None:
    guard = guard_bytes("dataguard_redact", {"rules": ["a:truncate=2", "a:hash", "a:truncate=8", "b:drop", "b:hash"]})

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
def test_invalid_rule_is_reported(rule: object) -> None:
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
def test_rule_changes_only_its_field(value: dict[str, Any], action: str) -> None:
    result = redact(f"a:{action}", value)

    assert {name: member for name, member in result.items() if name != "a"} == {
        name: member for name, member in value.items() if name != "a"
    }
    assert ("a" in result) == ("a" in value)
    assert isinstance(result.get("a", ""), str)


# --- invalid parameters


def test_several_parameter_errors_are_reported_together() -> None:
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
    with pytest.raises(BadParams, match="/x: is not a parameter of dataguard_fused; /on_reject: must be drop"):
        guard_bytes("dataguard_fused", params)


@pytest.mark.parametrize(
    ("op", "params", "expected"),
    [
        ("dataguard_check", {"schema": {}}, []),
        ("dataguard_check", {"schema": True, "on_reject": "stop"}, []),
        ("dataguard_check", {}, []),
        ("dataguard_check", {"on_reject": "drop"}, [("/schema", "params.required")]),
        ("dataguard_check", {"schema": {}, "rules": []}, [("/rules", "params.unknown")]),
        ("dataguard_redact", {"schema": {}}, [("/schema", "params.unknown"), ("/rules", "params.required")]),
        ("dataguard_fused", {"schema": {}}, [("/rules", "params.required")]),
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
def test_check_params_returns_expected_errors(op: str, params: object, expected: list[tuple[str, str]]) -> None:
    assert errors(op, params) == expected


def test_error_about_on_reject_lists_valid_values() -> None:
    assert check_params("dataguard_check", {"schema": True, "on_reject": 1}) == [
        ParamError("/on_reject", "params.choice", "must be drop or stop")
    ]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{", "not_json"),
        (b'{"a":NaN}', "not_json"),
        (b"[]", "not_object"),
        (b'{"a":1,"a":2}', "duplicate_name"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "too_deep"),
        (b'{"a":1}', "schema"),
        (b'{"b":"\\ud800"}', "not_canonical"),
        (b'{"b":9007199254740993}', "not_canonical"),
    ],
)
def test_dropped_record_has_reason(payload: bytes, reason: str) -> None:
    guard = build_guard("dataguard_fused", {"schema": {"required": ["b"]}, "rules": []})

    assert guard is not None
    assert guard(Message(payload)) == reason


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        (True, b'{"id":1234567890123456789}'),
        (True, b'{"n":1e20}'),
        ({"properties": {"n": {"multipleOf": 0.01}}}, b'{"n":19.99}'),
    ],
)
def test_numbers_are_checked_as_exact_decimals(schema: object, payload: bytes) -> None:
    assert guard_bytes("dataguard_check", {"schema": schema})(payload) == payload


def test_lone_surrogates_can_be_checked_but_have_no_canonical_form() -> None:
    payload = b'{"a":"x\\ud800","\\udfff":1}'

    for schema in (True, {"properties": {"a": {"maxLength": 2, "pattern": "^x"}}, "minProperties": 2}):
        assert guard_bytes("dataguard_check", {"schema": schema})(payload) == payload
    assert guard_bytes("dataguard_check", {"schema": {"properties": {"a": {"maxLength": 1}}}})(payload) is None
    for rules in ([], ["a:hash"], ["a:truncate=2"]):
        redact = build_guard("dataguard_redact", {"rules": rules})
        assert redact is not None
        assert redact(Message(payload)) == "not_canonical"
    assert guard_bytes("dataguard_redact", {"rules": ["a:truncate=1"]})(b'{"a":"x\\ud800"}') == b'{"a":"x"}'


def test_redaction_does_not_change_value_for_other_stages() -> None:
    guard = build_guard("dataguard_redact", {"rules": ["a.b:drop", "c:hash", "d.e:hash"]})
    message = Message(b'{"a":{"b":1},"c":2,"d":[{"e":3}]}')
    assert guard is not None

    first, second = guard(message), guard(message)

    assert message.value() == {"a": {"b": 1}, "c": 2, "d": [{"e": 3}]}
    assert isinstance(first, Message)
    assert isinstance(second, Message)
    assert first.payload == second.payload
