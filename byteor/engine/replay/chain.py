"""Runs stages that follow each other without a branch: a ring, or a straight path through a graph.

Stages that pass every record unchanged are called only to find the one that exceeds a limit. Otherwise, their work
and their records are counted together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from byteor.engine.replay.journal import Row
from byteor.engine.replay.payload import Message
from byteor.engine.replay.stages import MessageSink, MessageSource, Sink, Stage, drop_output
from byteor.engine.replay.work import WorkMeter


class _Passing:
    """Adjacent stages that pass every record, and the number of records that passed them since the last ``settle``."""

    __slots__ = ("passed", "stages")

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = stages
        self.passed = 0

    def settle(self) -> None:
        for stage in self.stages:
            stage.counters.entered += self.passed
        self.passed = 0


class Chain:
    """A sequence of stages. Its output goes to ``message_sink`` or, if that is None, to ``sink``."""

    def __init__(self, stages: Iterable[Stage], work: WorkMeter, sink: Sink = drop_output) -> None:
        self.sink = sink
        self.message_sink: MessageSink | None = None
        self.message_source: MessageSource = Message
        self._work = work
        self._steps: list[tuple[_Passing, Stage]] = []
        passing: list[Stage] = []
        for stage in stages:
            if stage.passes:
                passing.append(stage)
            else:
                self._steps.append((_Passing(passing), stage))
                passing = []
        self._last = _Passing(passing)

    def run(self, sequence: int, payload: bytes, ingress: str | None = None) -> None:
        """Process a record. Raises StageError or LimitExceeded."""
        self._work.begin_record()
        message = None
        if self._steps:
            message = self.message_source(payload)
            for passing, stage in self._steps:
                if passing.stages:
                    self._pass(passing, message.payload, sequence)
                result = stage.process(message, sequence, ingress)
                if type(result) is not Message:
                    return
                message = result
            payload = message.payload
        if self._last.stages:
            self._pass(self._last, payload, sequence)
        if self.message_sink is None:
            self.sink(sequence, payload)
        else:
            self.message_sink(sequence, message or self.message_source(payload))

    def run_rows(self, rows: Iterable[Row], ingress: str | None = None) -> None:
        """Process many records of a journal."""
        if self._steps or self.message_sink is not None:
            for _, sequence, _, payload in rows:
                self.run(sequence, payload, ingress)
            return
        # Every stage passes every record, so the work of the stages is counted here, without calling ``run`` each time.
        passing, sink, meter = len(self._last.stages), self.sink, self._work
        passed, spent, left = 0, 0, meter.left()
        try:
            for _, sequence, _, payload in rows:
                units = (1 + len(payload) // 1024) * passing
                if spent + units > left or units > meter.max_record:
                    meter.total += spent
                    spent = 0
                    self.run(sequence, payload, ingress)
                else:
                    spent += units
                    passed += 1
                    sink(sequence, payload)
        finally:
            meter.total += spent
            self._last.passed += passed

    def settle(self) -> None:
        """Add the records that were counted together to the counters of their stages."""
        for passing, _ in self._steps:
            passing.settle()
        self._last.settle()

    def _pass(self, passing: _Passing, payload: bytes, sequence: int) -> None:
        if self._work.pass_stages(len(payload), len(passing.stages)):
            passing.passed += 1
            return
        message = Message(payload)
        for stage in passing.stages:  # one of the stages exceeds a limit and raises
            stage.process(message, sequence)
