"""The pipeline compiler, which turns a plan into a spec.

Its only dependency within this project is ``strict_json``.
"""

from .compilation import COMPILER_VERSION, Compilation, compile_plan
from .diagnostics import MAX_DIAGNOSTICS, Code, Diagnostic, Severity
from .diff import SpecChange, SpecDiff, diff_specs
from .drawing import to_dot, to_svg
from .graph import GraphEdge, GraphNode, SpecGraph
from .kv import KvError, decode, encode, spec_hash, spec_to_json, stages_in
from .ops import ENTRY_POINT_GROUP, SIDE_EFFECTS, Ops, OpSummary, StageOp, split_op
from .plan import plan_schema, similar_name
from .positions import Position, locate
from .spec import Endpoint, GraphLane, GraphRole, LaneGraph, PipelineSpec, RingStage, SingleRing
from .syntax import PlanSyntaxError, parse_plan
from .topology import neighbors, topological_order
from .validation import validate_spec
from .writing import write_plan

__all__ = [
    "COMPILER_VERSION",
    "ENTRY_POINT_GROUP",
    "MAX_DIAGNOSTICS",
    "SIDE_EFFECTS",
    "Code",
    "Compilation",
    "Diagnostic",
    "Endpoint",
    "GraphEdge",
    "GraphLane",
    "GraphNode",
    "GraphRole",
    "KvError",
    "LaneGraph",
    "OpSummary",
    "Ops",
    "PipelineSpec",
    "PlanSyntaxError",
    "Position",
    "RingStage",
    "Severity",
    "SingleRing",
    "SpecChange",
    "SpecDiff",
    "SpecGraph",
    "StageOp",
    "compile_plan",
    "decode",
    "diff_specs",
    "encode",
    "locate",
    "neighbors",
    "parse_plan",
    "plan_schema",
    "similar_name",
    "spec_hash",
    "spec_to_json",
    "split_op",
    "stages_in",
    "to_dot",
    "to_svg",
    "topological_order",
    "validate_spec",
    "write_plan",
]
