"""PipelineSpecV1: what a plan compiles to, and what a spec.kv decodes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RingStage:
    """One stage of a ring; ``depends_on`` holds indices of earlier stages, strictly increasing."""

    id: str
    op: str
    depends_on: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SingleRing:
    """A ring: one ingress, stages in list order on each record, one egress."""

    ingress: str
    egress: str
    shards: int
    ordering: Literal["strict", "per_key"]
    producer: Literal["single"]
    scheduling: Literal["dedicated"]
    shard_key: str | None
    stages: tuple[RingStage, ...]


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane; ``capacity`` only on ``sequenced_slots``, ``consumers`` only on ``fanout_broadcast``."""

    name: str
    kind: Literal["events", "journal", "sequenced_slots", "fanout_broadcast"]
    capacity: int | None = None
    consumers: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An ingress or egress and the index of the lane it writes or reads."""

    name: str
    kind: Literal["ingress", "egress"]
    lane: int


@dataclass(frozen=True, slots=True)
class Role:
    """What runs between lanes; ``op`` only on a stage, ``policy`` only on a merge."""

    name: str
    kind: Literal["stage", "bridge", "router", "merge"]
    rx: tuple[int, ...]
    tx: tuple[int, ...]
    op: str | None = None
    policy: Literal["round_robin"] | None = None


@dataclass(frozen=True, slots=True)
class LaneGraph:
    """A graph of roles joined by lanes; lanes, endpoints and roles are numbered in walk order."""

    on_full: Literal["block", "drop"]
    lanes: tuple[Lane, ...]
    endpoints: tuple[Endpoint, ...]
    roles: tuple[Role, ...]


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """A compiled pipeline: its name and its model."""

    name: str
    model: SingleRing | LaneGraph

    @property
    def stages(self) -> tuple[tuple[str, str], ...]:
        """Id and op of every stage, in order."""
        if isinstance(self.model, SingleRing):
            return tuple((stage.id, stage.op) for stage in self.model.stages)
        return tuple((role.name, role.op or "") for role in self.model.roles if role.kind == "stage")
