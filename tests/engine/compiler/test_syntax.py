import json
from typing import Any

import pytest

from byteor.engine.compiler import PlanSyntaxError, parse_plan

HUGE = "1" + "0" * 400


@pytest.mark.parametrize("as_bytes", [False, True])
def test_parse_plan_reads_same_plan_as_python_json_parser(as_bytes: bool, ring: Any) -> None:
    text = json.dumps(ring | {"description": "é𝄞\\u0000 \\\ud834\udd1e"}, indent=2)

    assert parse_plan(text.encode() if as_bytes else text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "Expected a value."),
        ('{"a": 1,\n "b" 2}', 2, 6, 'Expected ":" after the key.'),
        ('{"a": 1,\n "a": 2}', 2, 2, 'The key "a" occurs twice in this object.'),
        (
            '{"a": {"b": 1},\n "c": [{"b": 1}], "\\u0061": 2}',
            2,
            19,
            'The key "a" occurs twice in this object.',
        ),
        ("[1,\n NaN]", 2, 2, "NaN is not a number that all JSON parsers read as the same value."),
        ('{"a": -Infinity}', 1, 7, "-Infinity is not a number that all JSON parsers read as the same value."),
        ('["1", 1e400]', 1, 7, "1e400 is not a number that all JSON parsers read as the same value."),
        (f"[true, {HUGE}]", 1, 8, f"1{'0' * 19} is not a number that all JSON parsers read as the same value."),
        (
            "[1" + "0" * 5_000 + "]",
            1,
            2,
            "10000000000000000000 is not a number that all JSON parsers read as the same value.",
        ),
        ("[" * 65 + "]" * 65, 1, 65, "The text nests deeper than 64 levels."),
        ("[" * 1_000_000, 1, 65, "The text nests deeper than 64 levels."),
        ('{"a":' * 500_000, 1, 321, "The text nests deeper than 64 levels."),
        ('{"a": "x\\u0000"}', 1, 7, "A string must not contain NUL or a lone surrogate."),
        ('{"a": "\\ud834 \\udd1e"}', 1, 7, "A string must not contain NUL or a lone surrogate."),
        ("\ufeff{}", 1, 1, '"\\ufeff" is not valid JSON.'),
        (b'{"a":\n "\xff"}', 2, 3, "This is not UTF-8."),
        ('{"a":\n "\ud800"}', 2, 3, "This is a lone surrogate, not a character."),
    ],
)
def test_parse_plan_reports_first_fault(text: str | bytes, line: int, column: int, message: str) -> None:
    with pytest.raises(PlanSyntaxError) as refusal:
        parse_plan(text)

    assert (refusal.value.line, refusal.value.column, refusal.value.message) == (line, column, message)
    assert str(refusal.value) == f"line {line}, column {column}: {message}"


def test_parse_plan_accepts_maximum_depth() -> None:
    assert parse_plan("[" * 64 + "]" * 64) is not None
    assert parse_plan('{"a":' * 64 + "1" + "}" * 64) is not None
