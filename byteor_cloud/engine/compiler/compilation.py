"""Compiling: a plan in, a spec with its text, hash and drawing out, or every reason why not."""

from __future__ import annotations

from dataclasses import dataclass

from .diagnostics import Code, Diagnostic, Json, Report
from .drawing import to_dot
from .graph import Graph, graph_of
from .kv import encode, spec_hash, spec_to_json
from .lanegraph import compile_graph
from .ops import Ops
from .plan import GRAPH, PLAN, RING, Plan, Target
from .ring import compile_ring
from .spec import LaneGraph, PipelineSpec, SingleRing

COMPILER_VERSION = "1"
"""Changes whenever the same plan may compile to other bytes."""


@dataclass(frozen=True, slots=True)
class Compilation:
    """What became of a plan; unless ``ok``, only ``target`` and ``diagnostics`` say something."""

    ok: bool
    target: Target | None
    spec: PipelineSpec | None
    spec_kv: str | None
    spec_hash: str | None
    diagnostics: tuple[Diagnostic, ...]
    graph: Graph | None
    dot: str | None

    def to_json(self) -> Json:
        """Give the compilation as plain JSON data, as a preview answers it."""
        return {
            "ok": self.ok,
            "target": self.target,
            "spec_kv": self.spec_kv,
            "spec_hash": self.spec_hash,
            "spec": self.spec and spec_to_json(self.spec),
            "diagnostics": [diagnostic.to_json() for diagnostic in self.diagnostics],
            "graph": self.graph and self.graph.to_json(),
            "dot": self.dot,
        }


def compile_plan(plan: object, *, target: str | None = None, ops: Ops | None = None) -> Compilation:
    """Compile a parsed plan of any shape; ``target`` overrides the plan's; ``ops`` defaults to the built-in.

    Never raises on a bad plan: every problem is a diagnostic. The payload that is not the target is not read.
    """
    report = Report()
    if target is not None and isinstance(plan, dict):
        plan = {**plan, "target": target}
    document = PLAN.read(plan, "", report)
    if document is None:
        return _answer(None, None, report)
    model = _compile_target(document, ops or Ops(), report)
    spec = PipelineSpec(document.name, model) if report.ok and document.name and model else None
    return _answer(document.target, spec, report)


def _compile_target(plan: Plan, ops: Ops, report: Report) -> SingleRing | LaneGraph | None:
    """Compile the payload of the target; without a valid target, check whatever payload there is."""
    payloads = {"single_ring": plan.single_ring, "lane_graph": plan.lane_graph}
    if plan.target and payloads[plan.target] is None:
        report.add(
            Code.PLAN_TARGET_MISSING,
            f"/{plan.target}",
            f'The target is "{plan.target}", but the plan holds no "{plan.target}".',
            f'Add "{plan.target}": {{...}}, or write another target.',
        )
    given = [name for name, payload in payloads.items() if payload is not None]
    wanted = [name for name in given if plan.target in {None, name}]
    model: SingleRing | LaneGraph | None = None
    if "single_ring" in wanted and (ring := RING.read(plan.single_ring, "/single_ring", report)):
        model = compile_ring(ring, ops, report)
    if "lane_graph" in wanted and (graph := GRAPH.read(plan.lane_graph, "/lane_graph", report)):
        model = compile_graph(graph, ops, report)
    return model


def _answer(target: Target | None, spec: PipelineSpec | None, report: Report) -> Compilation:
    if spec is None:
        return Compilation(False, target, None, None, None, report.diagnostics, None, None)
    kv = encode(spec)
    return Compilation(True, target, spec, kv, spec_hash(kv), report.diagnostics, graph_of(spec), to_dot(spec))
