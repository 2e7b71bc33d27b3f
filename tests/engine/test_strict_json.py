"""Tests of the strict JSON reader: accepted and refused texts, messages, and a cost proportional to the size."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteor.engine.strict_json import MAX_POINTER, JsonFault, JsonLimits, MalformedJson, read, read_object

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
)


def exact(value: Any) -> Any:
    """Replace all numbers with decimals. Booleans are not numbers."""
    if isinstance(value, dict):
        return {name: exact(member) for name, member in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    return Decimal(repr(value)) if type(value) in {int, float} else value


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_random_json_value_is_read_as_python_reads_it(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)

    assert read(text.encode(), JsonLimits()) == json.loads(text) == value
    assert exact(read(text, JsonLimits(decimal=True))) == exact(json.loads(text, parse_float=Decimal))


@given(st.text('[]{}:,"\\u0d8eE-1.+ ntrufalse\n\x01é', max_size=40))
def test_refused_random_text_gets_specific_message_and_line(text: str) -> None:
    try:
        value = read(text, JsonLimits())
    except MalformedJson as error:
        refused = error
    else:
        assert json.loads(text) == value
        return
    assert refused.message != "This is not valid JSON."  # this is the message if only Python's scanner refuses the text
    assert 1 <= refused.line <= text.count("\n") + 1


@pytest.mark.parametrize(
    ("text", "fault", "line", "column", "pointer", "message"),
    [
        ("[1,]", JsonFault.SYNTAX, 1, 4, "/1", "Expected a value."),
        ("[1 2]", JsonFault.SYNTAX, 1, 4, "/0", 'Expected "," or "]".'),
        ('{"a":1,}', JsonFault.SYNTAX, 1, 8, "", "Expected a key in double quotes."),
        ('{"a":1]', JsonFault.SYNTAX, 1, 7, "/a", 'Expected "," or "}".'),
        ("{1:2}", JsonFault.SYNTAX, 1, 2, "", 'Expected a key in double quotes or "}".'),
        ("1 2", JsonFault.SYNTAX, 1, 3, "", "Expected nothing after the value."),
        ("01", JsonFault.SYNTAX, 1, 1, "", '"01" is not valid JSON.'),
        ("'a'", JsonFault.SYNTAX, 1, 1, "", '"\'" is not valid JSON.'),
        ('["abc', JsonFault.SYNTAX, 1, 2, "/0", "This string has no closing quote."),
        ('"a\\x"', JsonFault.SYNTAX, 1, 3, "", "This is not a JSON escape sequence."),
        ('"a\tb"', JsonFault.SYNTAX, 1, 3, "",
         "A string must not contain a control character; write it as an escape sequence."),
        ('{"x/~":\n {"a":1,"a":2}}', JsonFault.DUPLICATE_NAME, 2, 9, "/x~1~0",
         'The key "a" occurs twice in this object.'),
        ('{"a": {"\\u0000": 1}}', JsonFault.CHARACTER, 1, 8, "/a",
         "A string must not contain NUL or a lone surrogate."),
        ('[{"a": "\\udc00"}]', JsonFault.CHARACTER, 1, 8, "/0/a",
         "A string must not contain NUL or a lone surrogate."),
        ("[1,[[2]]]", JsonFault.DEPTH, 1, 5, "/1/0", "The text nests deeper than 2 levels."),
        ("[1,2,3,4,5,6,7]", JsonFault.VALUES, 1, 13, "", "The text has more than 6 commas and opening brackets."),
        ('{"a": ' + "9" * 500 + "}", JsonFault.NUMBER, 1, 7, "/a",
         "99999999999999999999 is not a number that all JSON parsers read as the same value."),
    ],
)  # fmt: skip
def test_read_reports_kind_position_and_message_of_fault(
    text: str, fault: JsonFault, line: int, column: int, pointer: str, message: str
) -> None:
    with pytest.raises(MalformedJson) as refused:
        read(text, JsonLimits(max_depth=2, max_values=6))

    error = refused.value
    assert (error.fault, error.line, error.column, error.pointer, error.message) == (
        fault, line, column, pointer, message,
    )  # fmt: skip


def test_text_over_byte_limit_is_refused() -> None:
    with pytest.raises(MalformedJson, match="longer than 3 bytes"):
        read(b"[1, 2]", JsonLimits(max_bytes=3))


def test_read_object_refuses_list() -> None:
    with pytest.raises(MalformedJson, match="must be a JSON object"):
        read_object(b"[]", JsonLimits())


def test_commas_in_strings_do_not_count_as_values() -> None:
    assert read('["' + "," * 100 + '"]', JsonLimits(max_values=1)) == ["," * 100]


@pytest.mark.parametrize("word", ["1e1001", "1e-1001", "1" * 1001, "0." + "1" * 1001, "1e" + "9" * 5000])
def test_decimal_number_with_too_many_digits_or_large_exponent_is_refused(word: str) -> None:
    with pytest.raises(MalformedJson, match="is not a number"):
        read(word, JsonLimits(decimal=True))


def test_long_json_pointer_in_error_is_shortened_to_ancestor() -> None:
    long = json.dumps({"a": {"b" * 5000: [0, "\0"]}})

    with pytest.raises(MalformedJson) as refused:
        read(long, JsonLimits())
    assert refused.value.pointer == "/a"
    assert len(refused.value.pointer) <= MAX_POINTER


SHAPES: dict[str, Callable[[int], str]] = {
    "a long key above a long list": lambda n: json.dumps({"k" * n: list(range(n // 4))}),
    "empty lists": lambda n: "[" + "[]," * (n // 3) + "[]]",
    "empty objects": lambda n: json.dumps({str(i): {} for i in range(n // 12)}),
    "small objects": lambda n: json.dumps([{"a": i, "b": "x"} for i in range(n // 20)]),
    "long strings": lambda n: json.dumps(["x" * (n // 8)] * 8),
    "escapes": lambda n: json.dumps(["é\n" * (n // 64)] * 8),
    "surrogate pairs": lambda n: json.dumps(["😀" * (n // 96)] * 8),
    "floats": lambda n: json.dumps([i / 7 for i in range(n // 20)]),
    "big numbers": lambda n: "[" + ",".join(["9" * 300] * (n // 300)) + "]",
    "deep": lambda n: "[" + ",".join(["[" * 60 + "]" * 60] * (n // 121)) + "]",
}


def cost(text: bytes) -> tuple[int, int]:
    """Return the peak memory and the number of function calls for reading or refusing text."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    tracemalloc.start()
    sys.setprofile(count)
    try:
        read(text, JsonLimits())
    except MalformedJson:
        pass
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, calls


@pytest.mark.parametrize("end", ["", "x", ',"\\ud800"]'])
@pytest.mark.parametrize("shape", SHAPES)
def test_memory_and_calls_are_proportional_to_text_size(shape: str, end: str) -> None:
    def text(size: int) -> bytes:
        made = SHAPES[shape](size)
        return (made[:-1] + end if end.startswith(",") else made + end).encode()

    small, large = text(5_000), text(10_000)
    (peak, calls), (more_peak, more_calls) = cost(small), cost(large)

    ratio = len(large) / len(small)
    assert more_peak <= 1.3 * ratio * peak
    assert more_calls <= 1.1 * ratio * calls + 100
    assert more_peak < 64 * len(large)


@pytest.mark.parametrize("made", [b"[" + b"[]," * 1_400_000 + b"1]", b"{" + b'"a":{},' * 500_000 + b'"b":1}'])
def test_too_many_values_are_refused_before_parsing(made: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(MalformedJson, match="more than 250,000 commas and opening brackets"):
        read(made, JsonLimits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2.5 * len(made)
