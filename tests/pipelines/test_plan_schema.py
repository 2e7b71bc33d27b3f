"""Tests of the route that returns the JSON Schema of plans."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from byteor.engine.compiler import plan_schema
from tests.worlds import PLAN, World, plan

pytestmark = pytest.mark.django_db
PATH = "/api/v1/plan-schema"


def test_schema_equals_compiler_schema_and_validates_plans(world: World) -> None:
    response = world.viewer.api.get(PATH)

    assert response.status_code == 200
    assert response.json() == plan_schema()
    validator = Draft202012Validator(response.json())
    assert validator.is_valid(PLAN)
    assert [list(error.path) for error in validator.iter_errors(plan(shards="four"))] == [["single_ring", "shards"]]


def test_schema_request_returns_304_when_etag_matches(world: World, other: World) -> None:
    first = world.viewer.api.get(PATH)

    again = other.admin.api.get(PATH, If_None_Match=first["ETag"])

    assert first["Cache-Control"] == "private, max-age=3600"
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    assert world.viewer.api.get(PATH, If_None_Match='"another"').status_code == 200
