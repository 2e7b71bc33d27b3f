import json
from typing import Any

import pytest

from byteor_cloud.engine.compiler import PlanSyntaxError, parse_plan

HUGE = "1" + "0" * 400


@pytest.mark.parametrize("as_bytes", [False, True])
def test_json_is_parsed_as_it_is(as_bytes: bool, ring: Any) -> None:
    text = json.dumps(ring | {"description": "é𝄞\\u0000 \\\ud834\udd1e"}, indent=2)

    assert parse_plan(text.encode() if as_bytes else text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "Expected a value."),
        ('{"a": 1,\n "b" 2}', 2, 6, 'Expected ":" after the key.'),
        ('{"a": 1,\n "a": 2}', 2, 2, 'The key "a" comes twice in this object.'),
        (
            '{"a": {"b": 1},\n "c": [{"b": 1}], "\\u0061": 2}',
            2,
            19,
            'The key "a" comes twice in this object.',
        ),
        ("[1,\n NaN]", 2, 2, "NaN is no number that JSON readers agree on."),
        ('{"a": -Infinity}', 1, 7, "-Infinity is no number that JSON readers agree on."),
        ('["1", 1e400]', 1, 7, "1e400 is no number that JSON readers agree on."),
        (f"[true, {HUGE}]", 1, 8, "10000000000000000000 is no number that JSON readers agree on."),
        ("[1" + "0" * 5_000 + "]", 1, 2, "10000000000000000000 is no number that JSON readers agree on."),
        ("[" * 65 + "]" * 65, 1, 65, "Nested deeper than 64 levels."),
        ("[" * 1_000_000, 1, 65, "Nested deeper than 64 levels."),
        ('{"a":' * 500_000, 1, 321, "Nested deeper than 64 levels."),
        ('{"a": "x\\u0000"}', 1, 7, "A string may hold neither NUL nor half a surrogate pair."),
        ('{"a": "\\ud834 \\udd1e"}', 1, 7, "A string may hold neither NUL nor half a surrogate pair."),
        ("\ufeff{}", 1, 1, '"\\ufeff" is no JSON.'),
        (b'{"a":\n "\xff"}', 2, 3, "This is not UTF-8."),
        ('{"a":\n "\ud800"}', 2, 3, "This is half a surrogate pair, no character."),
    ],
)
def test_what_no_plan_may_be_written_in(text: str | bytes, line: int, column: int, message: str) -> None:
    with pytest.raises(PlanSyntaxError) as refusal:
        parse_plan(text)

    assert (refusal.value.line, refusal.value.column, refusal.value.message) == (line, column, message)
    assert str(refusal.value) == f"line {line}, column {column}: {message}"


def test_deep_but_not_too_deep() -> None:
    assert parse_plan("[" * 64 + "]" * 64) is not None
    assert parse_plan('{"a":' * 64 + "1" + "}" * 64) is not None
