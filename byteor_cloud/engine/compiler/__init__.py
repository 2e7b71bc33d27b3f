"""The pipeline compiler: plan in, PipelineSpecV1 out. Uses nothing else of this project."""

from .compilation import COMPILER_VERSION, Compilation, compile_plan
from .diagnostics import MAX_DIAGNOSTICS, Code, Diagnostic, Severity
from .drawing import to_dot
from .graph import Graph, GraphEdge, GraphNode
from .kv import KvError, decode, encode, spec_hash, spec_to_json
from .ops import ENTRY_POINT_GROUP, Ops, StageOp, split_op
from .plan import plan_schema
from .spec import Endpoint, Lane, LaneGraph, PipelineSpec, RingStage, Role, SingleRing

__all__ = [
    "COMPILER_VERSION",
    "ENTRY_POINT_GROUP",
    "MAX_DIAGNOSTICS",
    "Code",
    "Compilation",
    "Diagnostic",
    "Endpoint",
    "Graph",
    "GraphEdge",
    "GraphNode",
    "KvError",
    "Lane",
    "LaneGraph",
    "Ops",
    "PipelineSpec",
    "RingStage",
    "Role",
    "Severity",
    "SingleRing",
    "StageOp",
    "compile_plan",
    "decode",
    "encode",
    "plan_schema",
    "spec_hash",
    "spec_to_json",
    "split_op",
    "to_dot",
]
