"""The fields of a plan. Their declarations are used to read a plan and to generate its JSON Schema."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from .diagnostics import Code, JsonObject
from .plan_fields import Choice, Deferred, Integer, ListOf, Object, PlanField, PlanLabels, PlanText, required

type PlanTarget = Literal["single_ring", "lane_graph"]
type LaneKind = Literal["events", "journal", "sequenced_slots", "fanout_broadcast"]
type Ordering = Literal["strict", "per_key"]
type OnFull = Literal["block", "drop"]
type Feature = Literal["journal", "sequenced_slots"]

MAX_RING_STAGES = 4
MAX_SHARDS = 1_024
MAX_GRAPH_STAGES = 4_096
MAX_CONNECTIONS = 16_384
MAX_CAPACITY = 1_048_576
MAX_FANOUT_CONSUMERS = 4


def similar_name(text: str) -> str:
    """Return a valid name that resembles the text, without accents. It is ``name`` if no letter from a to z is left."""
    plain = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", text[:200].lower()))
    slug = re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-_")
    return re.sub(r"^[^a-z]+", "", slug)[:63] or "name"


NAME = PlanText(
    expected="a name of 1 to 63 lowercase letters, digits, _ and -, starting with a letter",
    example="quotes",
    pattern="[a-z][a-z0-9_-]{0,62}",
    max_length=63,
    suggest=similar_name,
)
REFERENCE = PlanText(expected="the id of a stage", example="decode", pattern=r"[\x20-\x7e]+", max_length=63)
CONNECTED = replace(REFERENCE, expected="the name of an ingress, stage or egress")
OP = PlanText(
    expected="an op of at most 4,096 printable ASCII characters",
    example="identity",
    pattern=r"[\x20-\x7e]+",
    max_length=4_096,
)
SHARD_KEY = PlanText(
    expected="a path into a JSON payload: at most 63 letters, digits, _ and ., starting with a letter or _",
    example="order.customer_id",
    pattern=r"[A-Za-z_][A-Za-z0-9_.]{0,62}",
    max_length=63,
)
# Most control characters and all surrogates are refused. PostgreSQL and UTF-8 encoders reject some of them.
DESCRIPTION = PlanText(
    expected="a string of at most 4,096 characters, without control characters except tabs and newlines",
    example="Normalizes quotes.",
    pattern=r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]*",
    max_length=4_096,
)
LABELS = PlanLabels(
    key=PlanText(
        expected="a label key of at most 63 characters: letters and digits, with . _ / - only between them",
        example="team",
        pattern=r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?",
        max_length=63,
    ),
    value=PlanText(
        expected="a string of at most 255 characters, without control characters",
        example="pricing",
        pattern=r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*",
        max_length=255,
    ),
    maximum=64,
)


EARLIER_STAGES = ListOf(
    item=REFERENCE,
    expected="ids of earlier stages",
    hint='Write the ids of earlier stages, such as ["decode"], never their positions.',
)
SHARDS = Integer(expected="the number of shards", minimum=1, maximum=MAX_SHARDS, code=Code.RING_SHARDS)
PRODUCER = Choice(expected="the kind of producer", options=("single",), code=Code.RING_PRODUCER)
SCHEDULING = Choice(expected="the kind of scheduling", options=("dedicated",), code=Code.RING_SCHEDULING)
MISPLACED_PARAMS = {"params": "Remove it; the parameters of a stage belong in the config bundle."}


@dataclass(frozen=True, slots=True)
class RingStagePlan:
    """A stage of a ring. Missing required fields and unreadable fields are None."""

    id: Annotated[str | None, required(NAME)]
    op: Annotated[str | None, required(OP)]
    depends_on: Annotated[tuple[str | None, ...] | None, PlanField(EARLIER_STAGES, [])]


RING_STAGES = ListOf(
    item=Object(RingStagePlan, "a stage of a ring", misplaced=MISPLACED_PARAMS),
    expected="stages",
    hint='Write at least one stage, such as [{"id": "decode", "op": "identity"}].',
    minimum=1,
    maximum=MAX_RING_STAGES,
    too_few=Code.RING_NO_STAGES,
    too_many=Code.RING_TOO_MANY_STAGES,
)


@dataclass(frozen=True, slots=True)
class RingPlan:
    """A single ring. A missing ``ingress``, ``egress`` or ``shard_key`` and unreadable fields are None."""

    ingress: Annotated[str | None, required(NAME)]
    egress: Annotated[str | None, required(NAME)]
    shards: Annotated[int | None, PlanField(SHARDS, 1)]
    shard_key: Annotated[str | None, PlanField(SHARD_KEY)]
    ordering: Annotated[
        Ordering | None, PlanField(Choice(expected="the kind of ordering", options=("strict", "per_key")), "strict")
    ]
    producer: Annotated[Literal["single"] | None, PlanField(PRODUCER, "single")]
    scheduling: Annotated[Literal["dedicated"] | None, PlanField(SCHEDULING, "dedicated")]
    stages: Annotated[tuple[RingStagePlan | None, ...] | None, PlanField(RING_STAGES, [])]


@dataclass(frozen=True, slots=True)
class GraphStagePlan:
    """A stage of a lane graph. Missing required fields and unreadable fields are None."""

    id: Annotated[str | None, required(NAME)]
    op: Annotated[str | None, required(OP)]


LANE_KIND = Choice(expected="a kind of lane", options=("events", "journal", "sequenced_slots", "fanout_broadcast"))
CAPACITY = Integer(
    expected="the number of slots of the lane", minimum=1, maximum=MAX_CAPACITY, code=Code.GRAPH_SLOTS_CAPACITY
)


@dataclass(frozen=True, slots=True)
class LanePlan:
    """The lane of a connection. A missing ``kind``, an absent ``capacity`` and unreadable fields are None."""

    kind: Annotated[LaneKind | None, required(LANE_KIND)]
    capacity: Annotated[int | None, PlanField(CAPACITY)]


LANE = Object(
    LanePlan,
    "a lane",
    misplaced={"consumers": "Remove it; the number of consumers follows from the connections."},
)


@dataclass(frozen=True, slots=True)
class ConnectionPlan:
    """A connection. Missing required fields and unreadable fields are None."""

    source: Annotated[str | None, required(CONNECTED, name="from")]
    target: Annotated[str | None, required(CONNECTED, name="to")]
    lane: Annotated[LanePlan | None, PlanField(LANE, {"kind": "events"})]


FEATURES = ListOf(
    item=Choice(expected="a lane kind to enable", options=("journal", "sequenced_slots")),
    expected="features",
    hint='Write a list of the lane kinds to enable, such as ["journal"].',
)
INGRESSES, EGRESSES = (
    ListOf(
        item=NAME,
        expected=f"{side} names",
        hint=f'Write at least one name, such as ["{example}"], and connect it.',
        minimum=1,
        too_few=Code.GRAPH_BOUNDARY_UNCONNECTED,
    )
    for side, example in (("ingress", "in"), ("egress", "out"))
)
GRAPH_STAGES = ListOf(
    item=Object(
        GraphStagePlan,
        "a stage of a lane graph",
        misplaced={
            "depends_on": 'Remove it, and describe the order of the stages in "connections".',
            **MISPLACED_PARAMS,
        },
    ),
    expected="stages",
    hint='Write a list such as [{"id": "decode", "op": "identity"}].',
    maximum=MAX_GRAPH_STAGES,
    too_many=Code.GRAPH_TOO_LARGE,
)
CONNECTIONS = ListOf(
    item=Object(ConnectionPlan, "a connection"),
    expected="connections",
    hint='Write a list such as [{"from": "in", "to": "decode"}].',
    maximum=MAX_CONNECTIONS,
    too_many=Code.GRAPH_TOO_LARGE,
)


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """A lane graph. Unreadable fields are None."""

    on_full: Annotated[
        OnFull | None,
        PlanField(Choice(expected="the policy for full lanes", options=("block", "drop")), "block"),
    ]
    features: Annotated[tuple[Feature | None, ...] | None, PlanField(FEATURES, [])]
    ingress: Annotated[tuple[str | None, ...] | None, PlanField(INGRESSES, [])]
    egress: Annotated[tuple[str | None, ...] | None, PlanField(EGRESSES, [])]
    stages: Annotated[tuple[GraphStagePlan | None, ...] | None, PlanField(GRAPH_STAGES, [])]
    connections: Annotated[tuple[ConnectionPlan | None, ...] | None, PlanField(CONNECTIONS, [])]


RING = Object(RingPlan, "a single ring")
GRAPH = Object(GraphPlan, "a lane graph")
PLAN_V = Integer(expected="the version of the plan format", minimum=1, maximum=1)
TARGET = Choice(expected="the model of the pipeline", options=("single_ring", "lane_graph"))


@dataclass(frozen=True, slots=True)
class PlanDocument:
    """A plan. Absent and unreadable fields are None. ``single_ring`` and ``lane_graph`` are read later."""

    plan_v: Annotated[int | None, required(PLAN_V)]
    name: Annotated[str | None, required(NAME)]
    target: Annotated[PlanTarget | None, required(TARGET, missing=Code.PLAN_TARGET_MISSING)]
    description: Annotated[str | None, PlanField(DESCRIPTION)]
    labels: Annotated[dict[str, str] | None, PlanField(LABELS)]
    single_ring: Annotated[object, PlanField(Deferred(RING))]
    lane_graph: Annotated[object, PlanField(Deferred(GRAPH))]


PLAN = Object(PlanDocument, "a plan")


def plan_schema() -> JsonObject:
    """Return the JSON Schema (2020-12) of a plan."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ByteOr pipeline plan",
        **PLAN.schema(),
    }
