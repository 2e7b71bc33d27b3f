"""What compiling costs, and how it grows."""

from __future__ import annotations

import time
from typing import Any

from byteor_cloud.engine.compiler import compile_plan

RING = {
    "plan_v": 1,
    "name": "bench",
    "target": "single_ring",
    "single_ring": {"ingress": "in", "egress": "out", "stages": [{"id": f"s{n}", "op": "identity"} for n in range(4)]},
}


def _graph(stages: int, connections: int) -> dict[str, Any]:
    """A layered graph: each stage feeds the next ones, four connections a stage."""
    ids = [f"s{n}" for n in range(stages)]
    fan = max(1, connections // stages)
    links = [
        {"from": ids[n], "to": ids[n + step]} for n in range(stages) for step in range(1, fan + 1) if n + step < stages
    ]
    links += [{"from": "in", "to": ids[0]}, {"from": ids[-1], "to": "out"}]
    return {
        "plan_v": 1,
        "name": "bench",
        "target": "lane_graph",
        "lane_graph": {
            "ingress": ["in"],
            "egress": ["out"],
            "stages": [{"id": stage, "op": "identity"} for stage in ids],
            "connections": links,
        },
    }


def _best(plan: dict[str, Any], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        compilation = compile_plan(plan)
        best = min(best, time.perf_counter() - began)
        assert compilation.ok, compilation.diagnostics[:2]
    return best * 1000


def run() -> None:
    """Print the best of several rounds, and the growth from step to step."""
    print(f"  compiler   single ring            {_best(RING, 200):8.3f} ms  (wanted: under 1)")
    print(f"  compiler   lane graph, 40 stages  {_best(_graph(40, 160), 50):8.3f} ms  (wanted: under 5)")
    before = None
    for stages in (256, 512, 1024, 2048, 4096):
        took = _best(_graph(stages, stages * 4), 3)
        growth = f"  x{took / before:.2f}" if before else ""
        print(f"  compiler   {stages:>4} stages            {took:8.1f} ms{growth}")
        before = took
