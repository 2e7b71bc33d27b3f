"""The compiler's entry point: a plan becomes a spec with its text, hash and drawing, or a list of errors."""

from __future__ import annotations

from dataclasses import dataclass

from .diagnostics import Code, CompileReport, Diagnostic, JsonObject
from .drawing import to_dot
from .graph import SpecGraph, build_graph
from .kv import encode, spec_hash, spec_to_json
from .lanegraph import compile_graph
from .ops import Ops
from .plan import GRAPH, PLAN, RING, PlanDocument, PlanTarget
from .ring import compile_ring
from .spec import LaneGraph, PipelineSpec, SingleRing

COMPILER_VERSION = "1"
"""The version of the compiler. It must change whenever a plan may compile to other bytes than before."""


@dataclass(frozen=True, slots=True)
class Compilation:
    """The result of compiling a plan. If ``ok`` is false, only ``target`` and ``diagnostics`` are filled."""

    ok: bool
    target: PlanTarget | None
    spec: PipelineSpec | None
    spec_kv: str | None
    spec_hash: str | None
    diagnostics: tuple[Diagnostic, ...]
    graph: SpecGraph | None
    dot: str | None

    def to_json(self) -> JsonObject:
        """Return the compilation as the JSON body of a preview response."""
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
    """Compile a parsed plan; ``target`` overrides the plan's own, and ``ops`` defaults to the built-in ops.

    ``plan`` may be any JSON value: a bad plan never raises, each of its problems is a diagnostic. Of the two payloads
    ``single_ring`` and ``lane_graph``, only the one that the target names is read.
    """
    report = CompileReport()
    if target is not None and isinstance(plan, dict):
        plan = {**plan, "target": target}
    document = PLAN.read(plan, "", report)
    if document is None:
        return _compilation(None, None, report)
    model = _compile_target(document, ops or Ops(), report)
    spec = PipelineSpec(document.name, model) if report.ok and document.name and model else None
    return _compilation(document.target, spec, report)


def _compile_target(plan: PlanDocument, ops: Ops, report: CompileReport) -> SingleRing | LaneGraph | None:
    """Compile the payload of the target. Without a valid target, check every payload that the plan holds."""
    payloads = {"single_ring": plan.single_ring, "lane_graph": plan.lane_graph}
    if plan.target and payloads[plan.target] is None:
        report.add(
            Code.PLAN_TARGET_MISSING,
            f"/{plan.target}",
            f'The target is "{plan.target}", but the plan has no "{plan.target}".',
            f'Add "{plan.target}": {{...}}, or choose the other target.',
        )
    given = [name for name, payload in payloads.items() if payload is not None]
    wanted = [name for name in given if plan.target in {None, name}]
    model: SingleRing | LaneGraph | None = None
    if "single_ring" in wanted and (ring := RING.read(plan.single_ring, "/single_ring", report)):
        model = compile_ring(ring, ops, report)
    if "lane_graph" in wanted and (graph := GRAPH.read(plan.lane_graph, "/lane_graph", report)):
        model = compile_graph(graph, ops, report)
    return model


def _compilation(target: PlanTarget | None, spec: PipelineSpec | None, report: CompileReport) -> Compilation:
    if spec is None:
        return Compilation(False, target, None, None, None, report.diagnostics, None, None)
    kv = encode(spec)
    return Compilation(True, target, spec, kv, spec_hash(kv), report.diagnostics, build_graph(spec), to_dot(spec))
