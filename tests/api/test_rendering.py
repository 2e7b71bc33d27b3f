"""Tests that JSON encoded in pieces equals the output of DRF and the standard library, and that NaN is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.renderers import JSONRenderer
from rest_framework.utils.encoders import JSONEncoder

from byteor_cloud.api.rendering import PausingJSONRenderer, json_pieces

_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(),
    st.just(UUID(int=1)), st.just(datetime(2026, 11, 27, tzinfo=UTC)),
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=40),
        st.tuples(inner, inner),
        st.dictionaries(st.text(), inner, max_size=20),
        st.dictionaries(st.integers(), inner, max_size=3),
    ),
    max_leaves=80,
)


@given(_VALUES)
def test_joined_json_pieces_equal_output_of_json_dumps(value: Any) -> None:
    for sort_keys in (False, True):
        expected = json.dumps(value, cls=JSONEncoder, sort_keys=sort_keys, separators=(",", ":"))

        assert "".join(json_pieces(value, sort_keys=sort_keys)) == expected


@given(_VALUES)
def test_renderer_writes_same_json_as_drf_renderer(value: Any) -> None:
    assert PausingJSONRenderer().render(value) == JSONRenderer().render(value)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        PausingJSONRenderer().render({"a": [float("nan")] * 20})


def test_long_list_is_encoded_in_many_pieces() -> None:
    assert len(list(json_pieces({"plan": {"lane_graph": {"nodes": [{"id": "x"}] * 4000}}}))) > 200
