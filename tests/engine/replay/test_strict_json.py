import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteor_cloud.engine.replay import strict_json
from byteor_cloud.engine.replay.strict_json import MAX_DEPTH, Malformed, canonical, parse, pointer

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-(2**53) + 1, 2**53 - 1)
    | st.floats(1e21, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
)


@given(values)
def test_canonical_json_is_a_fixed_point_and_means_the_same(value: object) -> None:
    text = canonical(value)

    assert parse(text) == value
    assert canonical(parse(text)) == text


@given(st.binary(max_size=60) | st.text('[]{}:,"\\u0d8e-1.', max_size=60).map(str.encode))
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    try:
        value = parse(data)
    except Malformed:
        return
    assert canonical(parse(canonical(value))) == canonical(value)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "not JSON"),
        (b'{"a":1} x', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'"\xff"', "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b'"\x01"', "not JSON"),
        (b'{"a":1,"a":1}', "a duplicate key"),
        (b'{"x":{"\\u0061":1,"a":2}}', "a duplicate key"),
        (b"NaN", "NaN is no JSON"),
        (b"[-Infinity]", "-Infinity is no JSON"),
        (b'"\\ud800"', "a lone surrogate"),
        (b'{"\\udfff":1}', "a lone surrogate"),
        (b"9007199254740992", "an integer beyond"),
        (b"-9007199254740992", "an integer beyond"),
        (b"1" * 10_000, "an integer beyond"),
        (b"1e18", "an integer beyond"),
        (b"[-9007199254740992.0]", "an integer beyond"),
        (b"1e400", "a number beyond the range of a double"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper than 64"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested deeper than 64"),
        (b"[" * 1_000_000, "nested deeper than 64"),
    ],
)
def test_what_strict_json_refuses(payload: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse(payload)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"9007199254740991", b"9007199254740991"),
        (b"-9007199254740991", b"-9007199254740991"),
        (b"1.0", b"1"),
        (b"-0.0", b"0"),
        (b"-0", b"0"),
        (b"1e-400", b"0"),
        (b"1E3", b"1000"),
        (b"1e21", b"1e+21"),
        (b"-1e300", b"-1e+300"),
        (b"333333333.33333329", b"333333333.3333333"),
        (b'"\\ud83d\\ude00"', '"😀"'.encode()),
        (b'"\\u00e9\\u0007"', '"é\\u0007"'.encode()),
        (b' {"b":1,"a":[ ]} ', b'{"a":[],"b":1}'),
        # RFC 8785 sorts by UTF-16 code units: U+1F600 (D83D...) before U+FB33.
        ('{"\ufb33":1,"😀":2}'.encode(), '{"😀":2,"\ufb33":1}'.encode()),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, b"[" * MAX_DEPTH + b"]" * MAX_DEPTH),
    ],
)
def test_what_it_takes_and_how_rfc_8785_writes_it(payload: bytes, text: bytes) -> None:
    assert canonical(parse(payload)) == text


@pytest.mark.parametrize("value", [2**53, 1e18, float("nan"), "\ud800", {"\ud800": 1}, {1: 2}, object(), b""])
def test_what_has_no_canonical_json(value: object) -> None:
    with pytest.raises(Malformed):
        canonical(value)


def test_a_value_nested_too_deep_has_none_either() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH):
        value = [value]

    assert canonical(value) == json.dumps(value).encode()
    with pytest.raises(Malformed, match="nested deeper"):
        strict_json.canonical([value])


def test_pointers_are_escaped() -> None:
    assert pointer([]) == ""
    assert pointer(["a/b", 0, "~"]) == "/a~1b/0/~0"
