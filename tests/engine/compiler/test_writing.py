import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byteor.engine.compiler import parse_plan, write_plan

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.plan.json"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "stages", "é", '"']) | st.text(), inner),
    max_leaves=12,
)


def test_members_are_written_in_plan_schema_order() -> None:
    # The outer keys are in the order of a PostgreSQL jsonb column: shorter keys first.
    plan = {
        "x": 1,
        "name": "fan",
        "plan_v": 1,
        "target": "lane_graph",
        "lane_graph": {
            "egress": ["out"],
            "stages": [{"op": "identity", "id": "a", "note": {"b": 1, "a": []}}],
            "ingress": ["in"],
            "connections": [
                {"to": "a", "from": "in"},
                {"to": "out", "from": "a", "lane": {"capacity": 8, "kind": "sequenced_slots"}},
            ],
        },
    }

    assert (
        write_plan(plan)
        == """\
{
  "plan_v": 1,
  "name": "fan",
  "target": "lane_graph",
  "lane_graph": {
    "ingress": ["in"],
    "egress": ["out"],
    "stages": [
      {"id": "a", "op": "identity", "note": {"b": 1, "a": []}}
    ],
    "connections": [
      {"from": "in", "to": "a"},
      {"from": "a", "to": "out", "lane": {"kind": "sequenced_slots", "capacity": 8}}
    ]
  },
  "x": 1
}
"""
    )


def test_long_object_is_split_into_lines() -> None:
    assert write_plan({"labels": {"a": "x" * 60, "b": "y" * 40}}) == (
        '{\n  "labels": {\n    "a": "' + "x" * 60 + '",\n    "b": "' + "y" * 40 + '"\n  }\n}\n'
    )


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_written_golden_plan_parses_to_same_plan(path: Path) -> None:
    plan: Any = json.loads(path.read_text())

    assert parse_plan(write_plan(plan)) == plan


@given(VALUES)
def test_written_random_json_value_parses_to_same_value(value: Any) -> None:
    text = write_plan(value)

    assert json.loads(text) == value
    assert write_plan(json.loads(text)) == text
