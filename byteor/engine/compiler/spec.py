"""The spec of a pipeline: the result of compiling a plan, and of decoding a ``spec.kv``.

The docstrings below describe a valid spec. Decoding does not check their rules; ``validate_spec`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RingStage:
    """One stage of a ring. ``depends_on`` has the indices of earlier stages, in strictly increasing order."""

    id: str
    op: str
    depends_on: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SingleRing:
    """A ring: one ingress, stages that process each record one after the other, and one egress."""

    ingress: str
    egress: str
    shards: int
    ordering: Literal["strict", "per_key"]
    producer: Literal["single"]
    scheduling: Literal["dedicated"]
    shard_key: str | None
    stages: tuple[RingStage, ...]


@dataclass(frozen=True, slots=True)
class GraphLane:
    """A lane. Only the kind ``sequenced_slots`` has a ``capacity``, and only ``fanout_broadcast`` has ``consumers``."""

    name: str
    kind: Literal["events", "journal", "sequenced_slots", "fanout_broadcast"]
    capacity: int | None = None
    consumers: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An ingress or egress, with the index of the lane that it writes or reads."""

    name: str
    kind: Literal["ingress", "egress"]
    lane: int


@dataclass(frozen=True, slots=True)
class GraphRole:
    """A stage, bridge, router or merge: it reads the lanes ``rx`` and writes the lanes ``tx``.

    Only a stage has an ``op``, and only a merge has a ``policy``.
    """

    name: str
    kind: Literal["stage", "bridge", "router", "merge"]
    rx: tuple[int, ...]
    tx: tuple[int, ...]
    op: str | None = None
    policy: Literal["round_robin"] | None = None


@dataclass(frozen=True, slots=True)
class LaneGraph:
    """A graph of roles that are connected by lanes.

    The compiler numbers lanes, endpoints and roles in the order in which it walks from the ingresses to the egresses.
    """

    on_full: Literal["block", "drop"]
    lanes: tuple[GraphLane, ...]
    endpoints: tuple[Endpoint, ...]
    roles: tuple[GraphRole, ...]


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """A compiled pipeline: its name and its model."""

    name: str
    model: SingleRing | LaneGraph

    @property
    def stages(self) -> tuple[tuple[str, str], ...]:
        """The id and op of every stage, in the order of the spec."""
        if isinstance(self.model, SingleRing):
            return tuple((stage.id, stage.op) for stage in self.model.stages)
        return tuple((role.name, role.op or "") for role in self.model.roles if role.kind == "stage")
