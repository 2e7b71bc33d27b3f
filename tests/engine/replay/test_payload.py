import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteor.engine.replay.payload import MAX_DEPTH, MalformedPayload, encode_payload, parse_payload
from byteor.engine.strict_json import pointer_of

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
def test_canonical_json_preserves_value_and_is_idempotent(value: object) -> None:
    text = encode_payload(value)

    assert json.loads(text) == value
    assert encode_payload(parse_payload(text)) == text


@given(st.binary(max_size=60) | st.text('[]{}:,"\\u0d8e-1.', max_size=60).map(str.encode))
def test_canonical_encoding_of_any_parsed_payload_is_idempotent(data: bytes) -> None:
    try:
        value = parse_payload(data)
    except MalformedPayload:
        return
    try:
        text = encode_payload(value)
    except MalformedPayload:
        return
    assert encode_payload(parse_payload(text)) == text


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "not strict JSON"),
        (b'{"a":1} x', "not strict JSON"),
        (b"\xef\xbb\xbf{}", "not strict JSON"),
        (b'"\xff"', "not strict JSON"),
        ('{"a": 1}'.encode("utf-16"), "not strict JSON"),
        (b'"\x01"', "not strict JSON"),
        (b'{"a":1,"a":1}', "occurs twice"),
        (b'{"x":{"\\u0061":1,"a":2}}', "occurs twice"),
        (b"NaN", "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nests deeper than 64"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nests deeper than 64"),
        (b"[" * 1_000_000, "nests deeper than 64"),
    ],
)
def test_parse_payload_refuses_invalid_ambiguous_or_too_deep_json(payload: bytes, why: str) -> None:
    with pytest.raises(MalformedPayload, match=why):
        parse_payload(payload)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"9007199254740991", b"9007199254740991"),
        (b"-9007199254740991", b"-9007199254740991"),
        (b"1.0", b"1"),
        (b"-0.0", b"0"),
        (b"-0", b"0"),
        (b"9007199254740992", b"9007199254740992"),
        (b"100000000000000000000", b"100000000000000000000"),
        (b"1e20", b"100000000000000000000"),
        (b"1E3", b"1000"),
        (b"1e21", b"1e+21"),
        (b"-1e300", b"-1e+300"),
        (b"333333333.3333333", b"333333333.3333333"),
        (b'"\\ud83d\\ude00"', '"😀"'.encode()),
        (b'"\\u00e9\\u0007"', '"é\\u0007"'.encode()),
        (b' {"b":1,"a":[ ]} ', b'{"a":[],"b":1}'),
        # RFC 8785 sorts by UTF-16 code units: U+1F600 (D83D...) before U+FB33.
        ('{"\ufb33":1,"😀":2}'.encode(), '{"😀":2,"\ufb33":1}'.encode()),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, b"[" * MAX_DEPTH + b"]" * MAX_DEPTH),
    ],
)
def test_encode_payload_follows_rfc_8785(payload: bytes, text: bytes) -> None:
    assert encode_payload(parse_payload(payload)) == text


@pytest.mark.parametrize(
    "payload", [b"9007199254740993", b"1e400", b"1e-400", b"333333333.33333329", b"0.10000000000000000555", b"1" * 900]
)
def test_number_that_does_not_round_trip_through_double_is_parsed_but_not_encoded(payload: bytes) -> None:
    value = parse_payload(payload)

    assert value == Decimal(payload.decode())
    with pytest.raises(MalformedPayload, match="not canonical"):
        encode_payload([value])


@pytest.mark.parametrize("value", [2**53 + 1, float("nan"), "\ud800", {"\ud800": 1}, {1: 2}, object(), b""])
def test_encode_payload_refuses_values_without_canonical_json(value: object) -> None:
    with pytest.raises(MalformedPayload):
        encode_payload(value)


def test_encode_payload_refuses_too_deeply_nested_values() -> None:
    value: object = 1
    for _ in range(MAX_DEPTH):
        value = [value]

    assert encode_payload(value) == json.dumps(value).encode()
    with pytest.raises(MalformedPayload, match="nested deeper"):
        encode_payload([value])


def test_json_pointer_escapes_names() -> None:
    assert pointer_of([]) == ""
    assert pointer_of(["a/b", 0, "~"]) == "/a~1b/0/~0"
