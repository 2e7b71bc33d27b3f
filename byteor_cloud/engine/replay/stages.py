"""Stages at run time. This module prepares ops with their parameters, counts their work and decides on side effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from byteor_cloud.engine.compiler import SIDE_EFFECTS, split_op
from byteor_cloud.engine.replay import dataguard
from byteor_cloud.engine.replay.work import LimitCode, LimitExceeded, RecordOverLimit, WorkMeter

type StageFunction = Callable[[bytes, Mapping[str, Any] | None], bytes | None]
"""An op of a plugin: takes a payload and the stage's parameters; returns the new payload, or None to drop the record.

In a mapping of ops, the key is the whole op (``key`` or ``key:argument``), and the argument is already bound.
"""

type Apply = Callable[[bytes], bytes | None]


class Decision(StrEnum):
    """Whether a side effect may happen."""

    ALLOW = "Allow"
    DRY_RUN_ONLY = "DryRunOnly"
    REQUIRE_APPROVAL = "RequireApproval"
    DENY = "Deny"


class Effects(Protocol):
    """Decides about side effects, and performs those that it allows. ``op`` is the whole op, with its argument.

    An exception from ``perform`` is a stage error; the text of an EffectFailed becomes the error's detail. Otherwise
    the record goes on unchanged.
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
    """A spec, an op or a stage's parameters cannot be run; the text says why."""


class StageError(Exception):
    """A stage failed to process a record, which stops the pipeline."""

    def __init__(self, stage: str, sequence: int, detail: str) -> None:
        super().__init__(f"stage {stage!r} failed on record {sequence}: {detail}")
        self.stage = stage
        self.sequence = sequence
        self.detail = detail


class EffectFailed(Exception):
    """An allowed side effect failed; the text says why, for people."""


@dataclass(slots=True)
class StageCounters:
    """How many records a stage has processed so far."""

    entered: int = 0
    left: int = 0
    dropped: int = 0
    errors: int = 0

    def as_json(self) -> dict[str, int]:
        """Return the counters under the names that they have in the result of a replay."""
        return {"in": self.entered, "out": self.left, "dropped": self.dropped, "errors": self.errors}


class StageRuntime:
    """The shared state of the stages of one run: parameters, plugins, work, counters and the list of side effects.

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
    ) -> None:
        self.work = work or WorkMeter()
        self.counters: dict[str, StageCounters] = {}
        self.actions: list[Action] = []
        self._stage_config = stage_config
        self._ops = ops
        self._effects = effects
        self._max_actions = max_actions

    def stage(self, id: str, op: str, lanes: tuple[str, str]) -> Stage:
        """Create a stage. Raises Unsupported if its op is unknown or its parameters are invalid."""
        if id in self.counters:
            raise Unsupported(f"two stages have the id {id!r}")
        self.counters[id] = StageCounters()
        return Stage(id, self._prepared(id, op, lanes), self.counters[id])

    def _prepared(self, id: str, op: str, lanes: tuple[str, str]) -> Apply:
        params = self._stage_config.get(id)
        if not isinstance(params, Mapping | None):
            raise Unsupported(f"parameters of stage {id!r}: not an object")
        if op == "identity":
            return self._metered(lambda payload: payload)
        if op in dataguard.OPS:
            try:
                return dataguard.build_guard(op, params, self.work)
            except dataguard.BadParams as error:
                raise Unsupported(f"parameters of stage {id!r}: {error}") from None
        if split_op(op)[0] in SIDE_EFFECTS:
            return self._metered(lambda payload: self._act(payload, id, op, lanes))
        if op in self._ops:
            plugin = self._ops[op]
            return self._metered(lambda payload: plugin(payload, params))
        raise Unsupported(f"stage {id!r} has an op that is not installed: {op!r}")

    def _metered(self, apply: Apply) -> Apply:
        """Wrap an op that does not count its own work, so that its work is counted."""

        def metered(payload: bytes) -> bytes | None:
            self.work.spend_bytes(payload)
            return apply(payload)

        return metered

    def _act(self, payload: bytes, stage: str, op: str, lanes: tuple[str, str]) -> bytes:
        if len(self.actions) == self._max_actions:
            raise LimitExceeded(LimitCode.ACTIONS, f"the run needs more than {self._max_actions} actions")
        decision = self._effects.decide(stage, op)
        kind, target = split_op(op)
        self.actions.append(Action(kind, stage, *lanes, stage, target or "", decision))
        if decision is Decision.ALLOW:
            self._effects.perform(stage, op, payload)
        return payload


class Stage:
    """A stage that is ready to process records."""

    def __init__(self, id: str, apply: Apply, counters: StageCounters) -> None:
        self.id = id
        self._apply = apply
        self._counters = counters

    def process(self, payload: bytes, sequence: int) -> bytes | None:
        """Process a record and return the new payload, or None if the record is dropped. Raises StageError."""
        self._counters.entered += 1
        try:
            result = self._apply(payload)
            if not isinstance(result, bytes | None):
                raise TypeError(f"the op returned {type(result).__name__}, not bytes or None")
        except LimitExceeded:
            raise
        except RecordOverLimit as error:
            self._counters.errors += 1
            raise StageError(self.id, sequence, f"limit: {error}") from None
        except Exception as error:  # an op of a package may raise anything, which is an error of its stage
            self._counters.errors += 1
            name = "" if isinstance(error, dataguard.PayloadRejected | EffectFailed) else f"{type(error).__name__}: "
            raise StageError(self.id, sequence, f"{name}{error}") from error
        if result is None:
            self._counters.dropped += 1
        else:
            self._counters.left += 1
        return result
