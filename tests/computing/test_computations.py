"""Tests of the size of results that computations return for requests."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from byteor.engine.compiler import compile_plan
from byteor_cloud.computing import computations

MIB = 1024 * 1024


def chain(stages: int, op: str) -> dict[str, Any]:
    """Return a plan whose stages have the longest possible ids."""
    names = [f"s{number:05}".ljust(63, "x") for number in range(stages)]
    connections = [{"from": one, "to": other} for one, other in pairwise(["in", *names, "out"])]
    graph = {
        "ingress": ["in"],
        "egress": ["out"],
        "stages": [{"id": name, "op": op} for name in names],
        "connections": connections,
    }
    return {"plan_v": 1, "name": "large", "target": "lane_graph", "lane_graph": graph}


def test_largest_previews_and_diffs_are_truncated_and_drawing_is_omitted() -> None:
    plan = chain(3_900, "http_post:http://127.0.0.1:9000/".ljust(800, "u"))
    assert 3 * MIB < len(json.dumps(plan)) <= 4 * MIB
    compilation = compile_plan(plan)
    assert compilation.spec_kv is not None
    old = compile_plan(chain(1, "identity")).spec_kv
    assert old is not None

    preview = json.loads(computations.preview(plan, None))
    diff = computations.diff_versions("id", old, compilation.spec_kv)

    assert len(json.dumps(preview)) <= 4 * MIB < len(compilation.spec_kv)
    assert (preview["ok"], preview["truncated"], preview["spec_hash"]) == (True, True, compilation.spec_hash)
    assert len(diff) <= 4 * MIB
    cut = json.loads(diff)
    assert cut["truncated"] is True
    assert 1_000 < len(cut["changes"]) < 3_900
    assert cut["unified"].startswith("---")
    assert computations.draw(compilation.spec_kv) is None
    text = computations.preview_text(json.dumps(plan).encode(), None, old)
    assert text["diff"].truncated
    assert len(text["spec_kv"]) <= 4 * MIB


def test_truncated_preview_contains_only_complete_parts() -> None:
    plan = chain(1_500, "http_post:http://127.0.0.1:9000/".ljust(600, "u"))
    whole = compile_plan(plan).to_json()
    assert len(json.dumps(whole)) > 4 * MIB

    preview = json.loads(computations.preview(plan, None))

    assert preview["truncated"] is True
    parts = [name for name in ("spec_kv", "spec", "graph", "dot") if preview[name] is not None]
    assert parts[0] == "spec_kv"
    assert len(parts) < 4
    assert all(preview[name] == whole[name] for name in parts)
