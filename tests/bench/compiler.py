"""The benchmark of the compiler: the time of one compilation, and its growth with the number of stages."""

from __future__ import annotations

import time
from typing import Any

from byteor.engine.compiler import compile_plan

RING = {
    "plan_v": 1,
    "name": "bench",
    "target": "single_ring",
    "single_ring": {"ingress": "in", "egress": "out", "stages": [{"id": f"s{n}", "op": "identity"} for n in range(4)]},
}


def graph(stages: int, connections: int) -> dict[str, Any]:
    """Return a plan in which each stage feeds the next ``connections // stages`` stages (at least one).

    Near the end, there are fewer. The last stage feeds the egress.
    """
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


def _best_ms(plan: dict[str, Any], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        compilation = compile_plan(plan)
        best = min(best, time.perf_counter() - began)
        assert compilation.ok, compilation.diagnostics[:2]
    return best * 1000


def run() -> None:
    """Print the shortest time of several compilations, and its growth each time the number of stages doubles."""
    print(f"  compiler   single ring            {_best_ms(RING, 200):8.3f} ms  (goal: under 1 ms)")
    print(f"  compiler   lane graph, 40 stages  {_best_ms(graph(40, 160), 50):8.3f} ms  (goal: under 5 ms)")
    previous_ms = None
    for stages in (256, 512, 1024, 2048, 4096):
        time_ms = _best_ms(graph(stages, stages * 4), 3)
        growth = f"  x{time_ms / previous_ms:.2f}" if previous_ms else ""
        print(f"  compiler   {stages:>4} stages            {time_ms:8.1f} ms{growth}")
        previous_ms = time_ms
