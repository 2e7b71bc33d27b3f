"""Stages at run time: prepares ops with their parameters, counts their work, and handles side effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from byteor.engine.compiler import SIDE_EFFECTS, split_op
from byteor.engine.replay import dataguard
from byteor.engine.replay.payload import DropReason, Message
from byteor.engine.replay.work import LimitCode, LimitExceeded, RecordOverLimit, WorkMeter

type StageFunction = Callable[[bytes, Mapping[str, Any] | None], bytes | None]
"""A package's op: accepts a payload and the stage's parameters; returns the new payload, or None to drop the record.

In a mapping of ops, the key is the whole op (``key`` or ``key:argument``), and the argument is already bound.
"""

type Apply = Callable[[Message], Message | DropReason]


type MessageSink = Callable[[int, Message], None]
"""A function that receives the outputs of an egress: the sequence, and the message with its parsed value, if any."""

type MessageSource = Callable[[bytes], Message]
"""A function that returns the message with a record's payload. Several runners can share the message and its value."""

type Sink = Callable[[int, bytes], None]
"""A function that receives an output of an egress: the sequence and the payload."""

type OnDrop = Callable[[str, DropReason], None]
"""A function that receives the id of a stage that dropped a record, and the reason."""


class Watch(Protocol):
    """Follows one record through a pipeline."""

    def run_stage(self, stage: Stage, lane: str, message: Message) -> Message | DropReason:
        """Let a stage process a message, and return its result. ``lane`` is the lane that the stage writes."""

    def show(self, kind: str, id: str, lane: str, message: Message) -> None:
        """Show a message that reached a lane or an egress."""


class Decision(StrEnum):
    """Whether a side effect may happen."""

    ALLOW = "Allow"
    DRY_RUN_ONLY = "DryRunOnly"
    REQUIRE_APPROVAL = "RequireApproval"
    DENY = "Deny"


class Effects(Protocol):
    """Decides on side effects, and performs those that it allows. ``op`` is the whole op, with its argument.

    An exception from ``perform`` is a stage error, except LimitExceeded and MemoryError. The message of an EffectFailed
    becomes the detail of the error. If ``perform`` returns, the record continues unchanged.
    """

    def decide(self, stage: str, op: str) -> Decision:
        """Decide whether the side effect of this stage may happen."""

    def perform(self, stage: str, op: str, payload: bytes) -> None:
        """Perform the side effect for one record."""


class DryRun:
    """Performs no side effects."""

    def decide(self, stage: str, op: str) -> Decision:
        """Return ``DRY_RUN_ONLY`` for every side effect."""
        return Decision.DRY_RUN_ONLY

    def perform(self, stage: str, op: str, payload: bytes) -> None:
        """Raise AssertionError: it is never called, because no side effect is allowed."""
        raise AssertionError("a dry run performs nothing")


@dataclass(frozen=True, slots=True)
class Action:
    """A side effect that a record reached, and the decision about it. The fields are those of the replay audit."""

    action: str
    role: str
    input_lane: str
    output_lane: str
    stage: str
    target: str
    decision: Decision


class Unsupported(ValueError):
    """Raised for a spec, an op or a stage's parameters that cannot be run. The message is the reason."""


class StageFault(StrEnum):
    """The kind of a stage error: a limit of the record, a rejected payload, a failed side effect, or an exception."""

    LIMIT = "limit"
    REJECTED = "rejected"
    EFFECT = "effect"
    EXCEPTION = "exception"


class StageError(Exception):
    """Raised when a stage fails to process a record, which stops the pipeline."""

    def __init__(self, stage: str, sequence: int, detail: str, fault: StageFault) -> None:
        super().__init__()
        self.fault = fault
        self.stage = stage
        self.sequence = sequence
        self.detail = detail
        self.ingress: str | None = None  # where the record entered, if a replay of several ingresses set it

    def __str__(self) -> str:
        entered = f" of {self.ingress!r}" if self.ingress else ""
        return f"stage {self.stage!r} failed on record {self.sequence}{entered}: {self.detail}"


class EffectFailed(Exception):
    """Raised when an allowed side effect fails. The message is a human-readable reason."""


_FAULTS = {dataguard.PayloadRejected: StageFault.REJECTED, EffectFailed: StageFault.EFFECT}


@dataclass(slots=True)
class Drops:
    """The number of records that a stage dropped for one reason, and the first of these records."""

    count: int
    first_sequence: int
    ingress: str | None

    def as_json(self) -> dict[str, Any]:
        """Return JSON data; the ingress is named only if the pipeline has several."""
        counted: dict[str, Any] = {"count": self.count, "first_sequence": self.first_sequence}
        return counted if self.ingress is None else counted | {"ingress": self.ingress}


@dataclass(slots=True)
class StageCounters:
    """The numbers of records at a stage.

    ``unfinished`` counts the records at which the run exceeded a limit of the whole run or ran out of memory. A record
    that exceeds the limit for one record counts as an error.
    """

    entered: int = 0
    errors: int = 0
    unfinished: int = 0
    drops: dict[DropReason, Drops] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        """The number of dropped records."""
        return sum(drops.count for drops in self.drops.values())

    @property
    def left(self) -> int:
        """The number of records that left the stage."""
        return self.entered - self.dropped - self.errors - self.unfinished

    def as_json(self) -> dict[str, Any]:
        """Return the counters with their names in the result of a replay."""
        return {
            "in": self.entered,
            "out": self.left,
            "dropped": self.dropped,
            "errors": self.errors,
            "drops": {str(reason): self.drops[reason].as_json() for reason in sorted(self.drops)},
        }


class StageRuntime:
    """The shared state of the stages of one run: parameters, ops of packages, work, counters and side effects.

    ``counters`` has one entry for each stage, in the order in which the stages were created. ``actions`` has at most
    ``max_actions`` side effects, in the order in which records reached them.
    """

    def __init__(
        self,
        *,
        stage_config: Mapping[str, Any],
        ops: Mapping[str, StageFunction],
        effects: Effects,
        max_actions: int,
        work: WorkMeter | None = None,
        on_drop: OnDrop | None = None,
    ) -> None:
        self.work = work or WorkMeter()
        self._on_drop = on_drop
        self.counters: dict[str, StageCounters] = {}
        self.actions: list[Action] = []
        self._stage_config = stage_config
        self._ops = ops
        self._effects = effects
        self._max_actions = max_actions

    def stage(self, id: str, op: str, lanes: tuple[str, str]) -> Stage:
        """Create a stage. Raises Unsupported if its op is unknown, its parameters are invalid or its id is taken."""
        if id in self.counters:
            raise Unsupported(f"two stages have the id {id!r}")
        self.counters[id] = StageCounters()
        return Stage(id, self._prepared(id, op, lanes), self.counters[id], self.work, self._on_drop)

    def _prepared(self, id: str, op: str, lanes: tuple[str, str]) -> Apply | None:
        """Return the function of an op, or None if the op has no effect on any record."""
        params = self._stage_config.get(id)
        if not isinstance(params, Mapping | None):
            raise Unsupported(f"parameters of stage {id!r}: not an object")
        if op == "identity":
            return None
        if op in dataguard.OPS:
            try:
                return dataguard.build_guard(op, params, self.work)
            except dataguard.BadParams as error:
                raise Unsupported(f"parameters of stage {id!r}: {error}") from None
        if split_op(op)[0] in SIDE_EFFECTS:
            return lambda message: self._act(message, id, op, lanes)
        if op in self._ops:
            return self._plugin(self._ops[op], params)
        raise Unsupported(f"stage {id!r} has an op that is not installed: {op!r}")

    def _plugin(self, op: StageFunction, params: Mapping[str, Any] | None) -> Apply:
        def apply(message: Message) -> Message | DropReason:
            self.work.spend_bytes(message.payload)
            result = op(message.payload, params)
            if result is None:
                return DropReason.OP
            if not isinstance(result, bytes):
                raise TypeError(f"the op returned {type(result).__name__}, not bytes or None")
            return message if result is message.payload else Message(result)

        return apply

    def _act(self, message: Message, stage: str, op: str, lanes: tuple[str, str]) -> Message:
        self.work.spend_bytes(message.payload)
        if len(self.actions) == self._max_actions:
            raise LimitExceeded(LimitCode.ACTIONS, f"the records cause more than {self._max_actions:,} side effects")
        decision = self._effects.decide(stage, op)
        kind, target = split_op(op)
        self.actions.append(Action(kind, stage, *lanes, stage, target or "", decision))
        if decision is Decision.ALLOW:
            self._effects.perform(stage, op, message.payload)
        return message


def drop_output(_sequence: int, _payload: bytes) -> None:
    """Discard the output of an egress."""


class Stage:
    """A stage that is ready to process records. ``passes`` is true if its op has no effect on any record."""

    def __init__(
        self, id: str, apply: Apply | None, counters: StageCounters, work: WorkMeter, on_drop: OnDrop | None = None
    ) -> None:
        self.id = id
        self._on_drop = on_drop
        self.passes = apply is None
        self.counters = counters
        self._work = work
        self._apply = apply or self._pass

    def process(self, message: Message, sequence: int, ingress: str | None = None) -> Message | DropReason:
        """Process a record and return the new message, or why it is dropped.

        Raises StageError, LimitExceeded or MemoryError.
        """
        counters = self.counters
        counters.entered += 1
        try:
            result = self._apply(message)
        except (LimitExceeded, MemoryError):  # limits of the run or of the host are not errors of the stage
            counters.unfinished += 1
            raise
        except RecordOverLimit as error:
            counters.errors += 1
            raise StageError(self.id, sequence, f"limit: {error}", StageFault.LIMIT) from None
        except Exception as error:  # an op of a package may raise anything, which is an error of its stage
            counters.errors += 1
            fault = next((fault for kind, fault in _FAULTS.items() if isinstance(error, kind)), StageFault.EXCEPTION)
            name = f"{type(error).__name__}: " if fault is StageFault.EXCEPTION else ""
            raise StageError(self.id, sequence, f"{name}{error}", fault) from error
        if type(result) is DropReason:
            if (drops := counters.drops.get(result)) is None:
                counters.drops[result] = Drops(1, sequence, ingress)
            else:
                drops.count += 1
            if self._on_drop is not None:
                self._on_drop(self.id, result)
        return result

    def _pass(self, message: Message) -> Message:
        self._work.spend_bytes(message.payload)
        return message
