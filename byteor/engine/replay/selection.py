"""Selects and orders the records of a replay.

Each journal is read in sequence order (ties: file order). Several journals are merged by time, then by the order of
the journals, then by position. The time of a record is the highest so far in its journal, so the records of one
journal keep their order. Records are never collected in memory: a journal whose sequences run backwards gets an index
in a temporary file.
"""

from __future__ import annotations

import heapq
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from byteor.engine.replay.journal import JournalReader, Row
from byteor.engine.replay.journal_index import JournalIndex, JournalScan, build_index, scan_journal

_BATCH = 32 * 1024  # records between two calls of a callback


class OrderedJournal:
    """A journal that can be read in sequence order any number of times. Raises BadJournal.

    ``on_count`` is called with the number of records while they are counted and sorted.
    """

    def __init__(self, lane: str, path: Path, files: ExitStack, on_count: Callable[[int], None] | None = None) -> None:
        self.lane = lane
        self.path = path
        self._files = files
        self._index: JournalIndex | None = None
        with path.open("rb") as source:
            self.scan: JournalScan = scan_journal(source, on_count)
        if not self.scan.is_ordered:
            target = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  the ExitStack closes it
            journal = files.enter_context(path.open("rb"))
            build_index(journal, target, on_count)
            self._index = JournalIndex(journal, target)

    def rows(self, first: int = 0) -> Iterator[Row]:
        """Return the records from the position ``first`` on."""
        if self._index is not None:
            return self._index.rows(first)
        source = self._files.enter_context(self.path.open("rb"))
        return islice(JournalReader(source, checks_crc=False).rows(), first, self.scan.records)


class Selection:
    """The selected records of some journals: all, or the last ``last_n`` of the merged records."""

    def __init__(
        self, journals: Sequence[OrderedJournal], last_n: int | None, on_count: Callable[[int], None] | None = None
    ) -> None:
        self.journals = journals
        self.scanned = sum(journal.scan.records for journal in journals)
        self.skipped = 0 if last_n is None else max(0, self.scanned - last_n)
        self.records = self.scanned - self.skipped
        self.payload_bytes = sum(journal.scan.payload_bytes for journal in journals)
        self._selected = [SequenceRanges(is_coarse=len(journals) == 1) for _ in journals]
        self._unselected = [SequenceRanges(is_coarse=len(journals) == 1) for _ in journals]
        self._first_selected: int | None = None
        if self.skipped:
            self._divide(on_count)

    def rows(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the number of the journal, the sequence and the payload of each selected record, in merged order."""
        return islice(self._merged(), self.skipped, None)

    def is_shared(self, sequence: int) -> bool:
        """Return whether both a selected and an unselected record have this sequence."""
        return self._has(self._unselected, sequence) and self._has(self._selected, sequence)

    def is_compared(self, sequence: int) -> bool:
        """Return whether expected frames with this sequence are compared. Without ``last_n``, all are."""
        if not self.skipped or self._has(self._selected, sequence):
            return not self.is_shared(sequence)
        # A sequence that no record has is compared if it may come after the first selected record.
        is_later = self._first_selected is not None and sequence >= self._first_selected
        return is_later and not self._has(self._unselected, sequence)

    def _divide(self, on_count: Callable[[int], None] | None) -> None:
        self.payload_bytes = 0
        for rank, (number, sequence, payload) in enumerate(self._merged()):
            if on_count is not None and rank % _BATCH == 0:
                on_count(rank)
            if rank < self.skipped:
                self._unselected[number].add(sequence)
            else:
                self._selected[number].add(sequence)
                self.payload_bytes += len(payload)
                if self._first_selected is None or sequence < self._first_selected:
                    self._first_selected = sequence

    def _merged(self) -> Iterator[tuple[int, int, bytes]]:
        timed = [_timed(number, journal) for number, journal in enumerate(self.journals)]
        return ((number, sequence, payload) for _, number, _, sequence, payload in heapq.merge(*timed))

    @staticmethod
    def _has(ranges: Sequence[SequenceRanges], sequence: int) -> bool:
        return any(sequence in each for each in ranges)


def _timed(number: int, journal: OrderedJournal) -> Iterator[tuple[int, int, int, int, bytes]]:
    highest = 0
    for position, (_, sequence, unix_ns, payload) in enumerate(journal.rows()):
        highest = max(highest, unix_ns)
        yield highest, number, position, sequence, payload


class SequenceRanges:
    """A set of sequences that were added in ascending order, kept as ranges.

    A coarse set is one range from its first to its last sequence. One range suffices if there is only one journal,
    because its selected records all follow the unselected ones.
    """

    def __init__(self, *, is_coarse: bool = False) -> None:
        self._is_coarse = is_coarse
        self._first, self._last = array("Q"), array("Q")

    def add(self, sequence: int) -> None:
        """Add a sequence that is not lower than the previous one."""
        if self._last and (self._is_coarse or sequence <= self._last[-1] + 1):
            self._last[-1] = sequence
        else:
            self._first.append(sequence)
            self._last.append(sequence)

    def __contains__(self, sequence: int) -> bool:
        at = bisect_right(self._first, sequence) - 1
        return at >= 0 and sequence <= self._last[at]
