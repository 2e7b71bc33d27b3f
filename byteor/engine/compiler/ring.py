"""The rules for a single ring, and its lowering, which replaces the stage ids in dependencies with sorted indices."""

from __future__ import annotations

from .diagnostics import Code, CompileReport, nearest_word, quote
from .namespace import declare_names
from .ops import Ops
from .plan import RingPlan, RingStagePlan
from .spec import RingStage, SingleRing

_POINTER = "/single_ring"


def compile_ring(plan: RingPlan, ops: Ops, report: CompileReport) -> SingleRing | None:
    """Check a ring and lower it. Returns None if there is an error."""
    _check_sharding(plan, report)
    stages = plan.stages or ()
    named = [(plan.ingress, f"{_POINTER}/ingress"), (plan.egress, f"{_POINTER}/egress")]
    named += [(stage.id, f"{_POINTER}/stages/{index}/id") for index, stage in enumerate(stages) if stage]
    declare_names([(name, pointer) for name, pointer in named if name], report)
    positions: dict[str, int] = {}
    for index, stage in enumerate(stages):
        if stage and stage.id:
            positions.setdefault(stage.id, index)
    for index, stage in enumerate(stages):
        if report.is_full:
            break
        if stage:
            _check_stage(index, stage, positions, ops, report)
            _check_missing_dependency(index, stages, report)
    if not (
        report.ok
        and plan.ingress
        and plan.egress
        and plan.shards
        and plan.ordering
        and plan.producer
        and plan.scheduling
    ):
        return None
    return SingleRing(
        ingress=plan.ingress,
        egress=plan.egress,
        shards=plan.shards,
        ordering=plan.ordering,
        producer=plan.producer,
        scheduling=plan.scheduling,
        shard_key=plan.shard_key,
        stages=tuple(_lower(stage, positions) for stage in stages if stage),
    )


def _check_sharding(plan: RingPlan, report: CompileReport) -> None:
    if plan.shards is None:
        return
    is_sharded = plan.shards > 1
    if is_sharded and plan.ordering == "strict":
        report.add(
            Code.RING_STRICT_SHARDED,
            f"{_POINTER}/shards",
            f"Strict ordering needs one shard, not {plan.shards}.",
            'Write "shards": 1, or "ordering": "per_key" to keep the order only within each shard key.',
        )
    pointer = f"{_POINTER}/shard_key"
    if is_sharded and plan.shard_key is None and not report.has_diagnostic_at(pointer):
        report.add(
            Code.RING_SHARD_KEY_MISSING,
            pointer,
            f"A ring with {plan.shards} shards needs a shard key.",
            'Add "shard_key": the path of the key in the payload, such as "order.customer_id".',
        )
    if not is_sharded and plan.shard_key is not None:
        report.add(
            Code.PLAN_SCHEMA,
            pointer,
            "A ring with one shard cannot have a shard key.",
            'Remove "shard_key", or write "shards": 2 or more with "ordering": "per_key".',
        )


def _check_stage(index: int, stage: RingStagePlan, positions: dict[str, int], ops: Ops, report: CompileReport) -> None:
    stage_pointer = f"{_POINTER}/stages/{index}"
    if stage.op is not None and not report.has_diagnostic_at(f"{stage_pointer}/op"):
        ops.check(stage.op, f"{stage_pointer}/op", report)
    seen: set[str] = set()
    for number, dependency in enumerate(stage.depends_on or ()):
        pointer = f"{stage_pointer}/depends_on/{number}"
        if dependency is None or report.has_diagnostic_at(pointer):
            continue
        position = positions.get(dependency)
        if dependency in seen:
            report.add(
                Code.RING_DUPLICATE_DEPENDENCY,
                pointer,
                f"The dependency on {quote(dependency)} is already listed.",
                f"Remove this repeated {quote(dependency)}.",
            )
        elif position is None:
            guess = nearest_word(dependency, list(positions)[:index])
            report.add(
                Code.RING_UNKNOWN_DEPENDENCY,
                pointer,
                f"There is no stage with the id {quote(dependency)}.",
                f"Write {quote(guess)}."
                if guess
                else f"Remove {quote(dependency)}, or write the id of an earlier stage.",
            )
        elif dependency == stage.id:
            report.add(
                Code.RING_SELF_DEPENDENCY,
                pointer,
                f"The stage {quote(dependency)} depends on itself.",
                f"Remove {quote(dependency)}, or write the id of an earlier stage.",
            )
        elif position > index:
            report.add(
                Code.RING_FORWARD_DEPENDENCY,
                pointer,
                f"The stage {quote(dependency)} comes later in the list.",
                f"Move the stage {quote(dependency)} above this one, or write the id of an earlier stage.",
            )
        seen.add(dependency)


def _check_missing_dependency(index: int, stages: tuple[RingStagePlan | None, ...], report: CompileReport) -> None:
    stage = stages[index]
    if index == 0 or stage is None or stage.op in {None, "identity"} or stage.depends_on != ():
        return
    before = stages[index - 1]
    example = f'"depends_on": [{quote(before.id)}]' if before and before.id else "the id of an earlier stage"
    report.add(
        Code.RING_MISSING_DEPENDENCY,
        f"{_POINTER}/stages/{index}/depends_on",
        f"A stage with the op {quote(stage.op)} must depend on an earlier stage, unless it is the first.",
        f"Write {example}.",
    )


def _lower(stage: RingStagePlan, positions: dict[str, int]) -> RingStage:
    dependencies = sorted(positions[name] for name in stage.depends_on or () if name)
    return RingStage(stage.id or "", stage.op or "", tuple(dependencies))
