from typing import Any

import jsonschema
import pytest

from byteor.engine.compiler import compile_plan, plan_schema


def test_plan_schema_is_valid_2020_12_schema() -> None:
    schema = plan_schema()

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["plan_v", "name", "target"]
    assert schema["properties"]["target"]["enum"] == ["single_ring", "lane_graph"]
    ring = schema["properties"]["single_ring"]["properties"]
    assert (ring["shards"]["default"], ring["shards"]["maximum"]) == (1, 1_024)
    lane = schema["properties"]["lane_graph"]["properties"]["connections"]["items"]["properties"]["lane"]
    assert lane["default"] == {"kind": "events"}
    assert lane["required"] == ["kind"]


def test_plan_schema_accepts_plan_that_compiles(ring: Any, graph: Any) -> None:
    validator = jsonschema.Draft202012Validator(plan_schema())
    both = ring | {"description": "d", "labels": {"a": "b"}, "lane_graph": graph["lane_graph"]}
    both["single_ring"]["shards"] = 1.0
    assert validator.is_valid(both)
    assert compile_plan(both).ok


@pytest.mark.parametrize("wrong", [None, True, 0, -1, 1.5, float("inf"), float("nan"), 10**400, "", "A", [], {}])
@pytest.mark.parametrize("target", ["single_ring", "lane_graph"])
def test_plan_that_violates_plan_schema_in_used_field_does_not_compile(
    wrong: Any, target: str, ring: Any, graph: Any
) -> None:
    validator = jsonschema.Draft202012Validator(plan_schema())
    base = ring if target == "single_ring" else graph
    payload = base[target]
    extra: dict[str, Any] = {"shard_key": "id"} if target == "single_ring" else {"features": []}
    payload |= extra
    first = payload["stages" if target == "single_ring" else "connections"][1]
    for holder in (base, payload, first, payload["stages"][0]):
        for field in [*holder, "unknown"]:
            kept = holder.get(field)
            holder[field] = wrong
            if not validator.is_valid(base):
                assert not compile_plan(base).ok, (field, wrong)
            holder.pop(field)
            if kept is not None:
                holder[field] = kept
