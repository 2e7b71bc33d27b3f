"""What a stage does to a record: its op made ready with its parameters, counted, its side effects decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from byteor_cloud.engine.compiler import SIDE_EFFECTS, split_op
from byteor_cloud.engine.replay import dataguard
from byteor_cloud.engine.replay.work import LimitCode, LimitExceeded, RecordOverLimit, Work

type StageOp = Callable[[bytes, Mapping[str, Any] | None], bytes | None]
"""An op of a plugin: takes a payload and the stage's parameters; gives what goes on, ``None`` to drop it.

A mapping of them has the whole op (``key`` or ``key:argument``) as key, the argument bound.
"""

type Apply = Callable[[bytes], bytes | None]


class Decision(StrEnum):
    """Whether a side effect may happen."""

    ALLOW = "Allow"
    DRY_RUN_ONLY = "DryRunOnly"
    REQUIRE_APPROVAL = "RequireApproval"
    DENY = "Deny"


class Effects(Protocol):
    """How side effects are decided and, only after ``ALLOW``, performed. ``op`` is the whole op key.

    An exception from ``perform`` is a stage error; an ``EffectFailed`` says all there is to say. Else, whatever
    comes of it, the record goes on unchanged.
    """

    def decide(self, stage: str, op: str) -> Decision:
        """Whether this stage's side effect may happen."""

    def perform(self, stage: str, op: str, payload: bytes) -> None:
        """Let it happen for one record."""


class DryRun:
    """Nothing leaves the process."""

    def decide(self, stage: str, op: str) -> Decision:
        """Always ``DRY_RUN_ONLY``."""
        return Decision.DRY_RUN_ONLY

    def perform(self, stage: str, op: str, payload: bytes) -> None:
        """Never called, as nothing is allowed."""
        raise AssertionError("a dry run performs nothing")


@dataclass(frozen=True, slots=True)
class Action:
    """A side effect that a record reached, and what was decided about it (audit v1)."""

    action: str
    role: str
    input_lane: str
    output_lane: str
    stage: str
    target: str
    decision: Decision


class Unsupported(ValueError):
    """A spec, an op or parameters that the machine cannot run; the text says which."""


class StageError(Exception):
    """A stage failed on a record, which stops the pipeline."""

    def __init__(self, stage: str, sequence: int, detail: str) -> None:
        super().__init__(f"stage {stage!r} failed on record {sequence}: {detail}")
        self.stage = stage
        self.sequence = sequence
        self.detail = detail


class EffectFailed(Exception):
    """A side effect that was allowed did not succeed; the text says how, for people."""


@dataclass(slots=True)
class Counters:
    """What a stage has done so far."""

    entered: int = 0
    left: int = 0
    dropped: int = 0
    errors: int = 0

    def as_json(self) -> dict[str, int]:
        """The counters as a replay's result names them."""
        return {"in": self.entered, "out": self.left, "dropped": self.dropped, "errors": self.errors}


class Runtime:
    """What the stages of one run share: parameters, plugins, the work done, and the log of side effects, up to a limit.

    ``counters`` has one entry a stage, in the order in which they were made; ``actions`` is in the order
    in which records reached them.
    """

    def __init__(
        self,
        *,
        stage_config: Mapping[str, Any],
        ops: Mapping[str, StageOp],
        effects: Effects,
        max_actions: int,
        work: Work | None = None,
    ) -> None:
        self.work = work or Work()
        self.counters: dict[str, Counters] = {}
        self.actions: list[Action] = []
        self._stage_config = stage_config
        self._ops = ops
        self._effects = effects
        self._max_actions = max_actions

    def stage(self, id: str, op: str, lanes: tuple[str, str]) -> Stage:
        """A stage ready to run; ``Unsupported`` when its op is unknown or its parameters do not fit."""
        if id in self.counters:
            raise Unsupported(f"two stages have the id {id!r}")
        self.counters[id] = Counters()
        return Stage(id, self._prepared(id, op, lanes), self.counters[id])

    def _prepared(self, id: str, op: str, lanes: tuple[str, str]) -> Apply:
        params = self._stage_config.get(id)
        if not isinstance(params, Mapping | None):
            raise Unsupported(f"parameters of stage {id!r}: not an object")
        if op == "identity":
            return self._metered(lambda payload: payload)
        if op in dataguard.OPS:
            try:
                return dataguard.build(op, params, self.work)
            except dataguard.BadParams as error:
                raise Unsupported(f"parameters of stage {id!r}: {error}") from None
        if split_op(op)[0] in SIDE_EFFECTS:
            return self._metered(lambda payload: self._act(payload, id, op, lanes))
        if op in self._ops:
            plugin = self._ops[op]
            return self._metered(lambda payload: plugin(payload, params))
        raise Unsupported(f"stage {id!r} has an op that is not installed: {op!r}")

    def _metered(self, apply: Apply) -> Apply:
        """Count the work of an op that does not count its own."""

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
    """A stage ready to run."""

    def __init__(self, id: str, apply: Apply, counters: Counters) -> None:
        self.id = id
        self._apply = apply
        self._counters = counters

    def process(self, payload: bytes, sequence: int) -> bytes | None:
        """The payload that goes on, ``None`` when the record is dropped; ``StageError`` names the record."""
        self._counters.entered += 1
        try:
            result = self._apply(payload)
            if not isinstance(result, bytes | None):
                raise TypeError(f"the op gave {type(result).__name__}, not bytes or None")
        except LimitExceeded:
            raise
        except RecordOverLimit as error:
            self._counters.errors += 1
            raise StageError(self.id, sequence, f"limit: {error}") from None
        except Exception as error:  # whatever a stranger's op raises is that stage's error, never ours
            self._counters.errors += 1
            name = "" if isinstance(error, dataguard.Rejected | EffectFailed) else f"{type(error).__name__}: "
            raise StageError(self.id, sequence, f"{name}{error}") from error
        if result is None:
            self._counters.dropped += 1
        else:
            self._counters.left += 1
        return result
