"""The work of a replay, in units that do not depend on the machine, so that limits have the same effect everywhere.

The work of checking a schema is ``PayloadSchema.keywords`` times the number of nodes in the payload, as ``count_nodes``
counts them. The work of any other stage is 1 + bytes / 1,024, rounded down. A redaction costs one more unit for each
array element that its rules visit.
"""

from __future__ import annotations

from enum import StrEnum

MAX_RECORD = 10**7
MAX_REPLAY = 10**10


class LimitCode(StrEnum):
    """The limits of a replay that can be exceeded."""

    ACTIONS = "limit.actions"
    INPUT = "limit.input"
    RECORDS = "limit.records"
    DELIVERIES = "limit.deliveries"
    WORK = "limit.work"


class LimitExceeded(Exception):
    """Raised when a run exceeds the limit ``code``."""

    def __init__(self, code: LimitCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class RecordOverLimit(Exception):
    """Raised when one record costs more work than allowed, or when its JSON exceeds a limit of ``payload.py``.

    If a stage is processing the record, the stage fails. JSON that nests too deep raises MalformedPayload instead.
    """


class WorkMeter:
    """Counts the units of work of a run and of its current record."""

    def __init__(self, max_record: int = MAX_RECORD, max_run: int = MAX_REPLAY) -> None:
        self.total = 0
        self._record = 0
        self.max_record = max_record
        self._max_run = max_run

    def left(self) -> int:
        """Return how much work the run may still do."""
        return self._max_run - self.total

    def begin_record(self) -> None:
        """Start counting the work of the next input record."""
        self._record = 0

    def spend(self, units: int) -> None:
        """Count work before it is done. Raises RecordOverLimit for one record, or LimitExceeded for the run."""
        self._record += units
        self.total += units
        if self._record > self.max_record:
            raise RecordOverLimit(f"the record costs more than {self.max_record:,} units of work")
        if self.total > self._max_run:
            raise LimitExceeded(LimitCode.WORK, f"the replay needs more than {self._max_run:,} units of work")

    def spend_bytes(self, payload: bytes) -> None:
        """Count the work of a stage for a payload: 1 unit, and another for each 1,024 bytes."""
        self.spend(1 + len(payload) // 1024)

    def pass_stages(self, size: int, stages: int) -> bool:
        """Count the work of stages that pass a payload of this size unchanged.

        If it exceeds a limit, return False and count nothing: the stages must then run one by one, to find the one that
        exceeds the limit.
        """
        units = (1 + size // 1024) * stages
        if self._record + units > self.max_record or self.total + units > self._max_run:
            return False
        self._record += units
        self.total += units
        return True
