"""Tests that plans with ``true`` and ``1`` at the same place differ, although ``True == 1`` in Python."""

from __future__ import annotations

from typing import Any

import pytest

from apps.pipelines.services import drafts, versions
from apps.tenancy.services.revisions import is_same_json
from tests.worlds import PLAN, World


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (True, 1, False),
        (False, 0, False),
        (True, True, True),
        (1, 1.0, True),
        ({"a": [True]}, {"a": [1]}, False),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, True),
        ({"a": 1}, {"b": 1}, False),
        ([1], [1, 1], False),
        (None, False, False),
        ("x", "x", True),
    ],
)
def test_json_comparison_is_by_value_and_distinguishes_booleans_from_numbers(
    one: Any, other: Any, expected: bool
) -> None:
    assert is_same_json(one, other) is expected
    assert is_same_json(other, one) is expected


@pytest.mark.django_db
def test_plan_change_from_true_to_1_is_stored_and_can_be_promoted(world: World) -> None:
    draft = drafts.create_draft(
        environment=world.dev, name="d", plan={**PLAN, "plan_v": True}, actor=world.operator.actor
    )
    assert draft.spec_hash is None

    fixed = drafts.update_draft(draft, {"plan": PLAN}, actor=world.operator.actor)
    fixed.refresh_from_db()

    assert fixed.plan.value["plan_v"] is not True
    _, is_new = versions.promote(fixed, actor=world.operator.actor)
    assert is_new
