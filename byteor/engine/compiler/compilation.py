"""The compiler's entry point. It turns a plan into a spec with its KV text, hash and drawing, or into diagnostics."""

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
"""The compiler's version. Change it whenever the same plan may compile to different bytes."""


@dataclass(frozen=True, slots=True)
class Compilation:
    """The result of compiling a plan. If ``ok`` is false, only ``target`` and ``diagnostics`` can be set."""

    ok: bool
    target: PlanTarget | None
    spec: PipelineSpec | None
    spec_kv: str | None
    spec_hash: str | None
    diagnostics: tuple[Diagnostic, ...]
    graph: SpecGraph | None
    dot: str | None

    def to_json(self) -> JsonObject:
        """Return the compilation as JSON data."""
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
    """Compile a parsed plan; ``target`` overrides the plan's own target, and ``ops`` defaults to the built-in ops.

    ``plan`` may be any JSON value. An invalid plan never raises: its problems become diagnostics. If the
    target is valid, only the payload that it names (``single_ring`` or ``lane_graph``) is read.
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
    """Compile the target's payload. Without a valid target, check all payloads in the plan."""
    payloads = {"single_ring": plan.single_ring, "lane_graph": plan.lane_graph}
    if plan.target and payloads[plan.target] is None:
        report.add(
            Code.PLAN_TARGET_MISSING,
            f"/{plan.target}",
            f'The target is "{plan.target}", but the plan has no "{plan.target}".',
            f'Add an object "{plan.target}", or choose the other target.',
        )
    given = [name for name, payload in payloads.items() if payload is not None]
    selected = [name for name in given if plan.target in {None, name}]
    model: SingleRing | LaneGraph | None = None
    if "single_ring" in selected and (ring := RING.read(plan.single_ring, "/single_ring", report)):
        model = compile_ring(ring, ops, report)
    if "lane_graph" in selected and (graph := GRAPH.read(plan.lane_graph, "/lane_graph", report)):
        model = compile_graph(graph, ops, report)
    return model


def _compilation(target: PlanTarget | None, spec: PipelineSpec | None, report: CompileReport) -> Compilation:
    if spec is None:
        return Compilation(False, target, None, None, None, report.diagnostics, None, None)
    kv = encode(spec)
    return Compilation(True, target, spec, kv, spec_hash(kv), report.diagnostics, build_graph(spec), to_dot(spec))
