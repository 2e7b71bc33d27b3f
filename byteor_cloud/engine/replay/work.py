"""The work of a replay, computed from what it processes and never measured: the same on every machine.

A schema costs its keywords times the nodes of the payload; any other stage 1 + bytes / 1,024, and a redaction also one
unit for each place that its rules visit.
"""

from __future__ import annotations

from enum import StrEnum

MAX_RECORD = 10**7
MAX_REPLAY = 10**10


class LimitCode(StrEnum):
    """Which limit of a replay was exceeded."""

    ACTIONS = "limit.actions"
    INPUT = "limit.input"
    RECORDS = "limit.records"
    DELIVERIES = "limit.deliveries"
    WORK = "limit.work"


class LimitExceeded(Exception):
    """A run needs more than a limit allows: the code names the limit, the text says what it is."""

    def __init__(self, code: LimitCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class RecordOverLimit(Exception):
    """One record costs more work than a record may, which is an error of the stage that it is in."""


class Work:
    """Counts the units of work of a run and of the record that is in it."""

    def __init__(self, max_record: int = MAX_RECORD, max_run: int = MAX_REPLAY) -> None:
        self.total = 0
        self._record = 0
        self._max_record = max_record
        self._max_run = max_run

    def begin_record(self) -> None:
        """Start to count for the next input record."""
        self._record = 0

    def spend(self, units: int) -> None:
        """Count work before it is done. Raises RecordOverLimit, or LimitExceeded for the whole run."""
        self._record += units
        self.total += units
        if self._record > self._max_record:
            raise RecordOverLimit(f"the record costs more than {self._max_record:,} units of work")
        if self.total > self._max_run:
            raise LimitExceeded(LimitCode.WORK, f"the replay needs more than {self._max_run:,} units of work")

    def spend_bytes(self, payload: bytes) -> None:
        """Count what a stage costs that only reads and writes its payload."""
        self.spend(1 + len(payload) // 1024)
