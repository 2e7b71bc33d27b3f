"""Tests of payloads as JSON data, which must not lose digits."""

import base64
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from byteor.engine.replay.shown_payload import show_payload

DIGITS = st.text("0123456789", min_size=1, max_size=25)
NUMBERS = st.builds(
    lambda sign, whole, fraction, exponent: sign + (whole.lstrip("0") or "0") + fraction + exponent,
    st.sampled_from(["", "-"]),
    DIGITS,
    st.just("") | DIGITS.map(lambda digits: f".{digits}"),
    st.just("")
    | st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 99)),
)
TEXTS = st.recursive(
    NUMBERS | st.sampled_from(["null", "true", '"1.10"']) | st.floats(allow_nan=False, allow_infinity=False).map(repr),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{' ,'.join(items)}]")
        | st.lists(inner, max_size=4).map(
            lambda items: "{" + ", ".join(f'"{name}" :{item}' for name, item in enumerate(items)) + "}"
        )
    ),
    max_leaves=10,
)


def exact(text: str) -> Any:
    """Return the value with each number as its sign, digits and exponent."""
    return json.loads(
        text, parse_float=lambda number: Decimal(number).as_tuple(), parse_int=lambda number: Decimal(number).as_tuple()
    )


@given(TEXTS)
@example("[1, 1.10]")
@example("-0")
@example("0.1000000000000000055511151231257827")
@example("9007199254740993.5")
def test_shown_json_has_every_digit_unless_payload_bytes_are_included(text: str) -> None:
    shown = show_payload(text.encode(), has_bytes=False)

    if shown["payload_base64"] is None:
        assert exact(json.dumps(shown["json"])) == exact(text)
    else:
        assert base64.b64decode(shown["payload_base64"]).decode() == text


@pytest.mark.parametrize("text", ['{"a": [1, -2.5, 9007199254740993], "1.10": "1e2"}', "0", "1e-07", '"0.10"'])
def test_payload_bytes_can_be_omitted_if_shown_json_is_exact(text: str) -> None:
    assert show_payload(text.encode(), has_bytes=False) == {
        "json": json.loads(text), "payload_base64": None, "truncated": False,
    }  # fmt: skip
    assert show_payload(text.encode())["payload_base64"] is not None
