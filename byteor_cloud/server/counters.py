"""The counters and histograms of gunicorn's processes, in memory that all of them share.

prometheus_client itself uses memory-mapped files, and writing to such a file kills the process with SIGBUS when the
disk is full. This memory is mapped before gunicorn forks and has no file. Each process has its own part, so that no
process waits for a lock that a killed process held. A scrape returns the sums over all parts.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, override

import structlog
from gevent.monkey import get_original
from prometheus_client import REGISTRY, CollectorRegistry, values
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

PART_BYTES = 8 << 20  # address space only: the kernel allocates memory as series are added
_NUMBER = struct.Struct("=q")
_VALUE_BYTES = 8
logger = structlog.get_logger(__name__)


class ProcessCounters:
    """The metric series of one process.

    Memory layout: the number of used bytes, and then, for each series, the length of its key, the key padded to a
    multiple of 8 bytes, and its value.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        # An assignment writes all bytes of a value in one step, so that another process never reads half of it.
        self._values = memory.cast("d")
        self._is_full = False
        self._indexes = dict(self._entries())

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """Yield keys and values. The process that they belong to may be changing them."""
        for key, index in self._entries():
            yield key, self._values[index]

    def add(self, key: str, amount: float) -> None:
        """Add to a series, which starts at 0. If the part is full, new series are dropped."""
        index = self._index(key)
        if index is not None:
            self._values[index] += amount

    def put(self, key: str, value: float) -> None:
        """Set a series to a value."""
        index = self._index(key)
        if index is not None:
            self._values[index] = value

    def get(self, key: str) -> float:
        """Return the value of a series, or 0 if it does not exist."""
        index = self._indexes.get(key)
        return 0.0 if index is None else self._values[index]

    def _entries(self) -> Iterator[tuple[str, int]]:
        end = self._used()
        at = _NUMBER.size
        while at < end:
            (length,) = _NUMBER.unpack_from(self._memory, at)
            at += _NUMBER.size
            position = at + length + -length % _VALUE_BYTES
            yield bytes(self._memory[at : at + length]).decode(), position // _VALUE_BYTES
            at = position + _VALUE_BYTES

    def _used(self) -> int:
        return int(_NUMBER.unpack_from(self._memory)[0]) or _NUMBER.size

    def _index(self, key: str) -> int | None:
        known = self._indexes.get(key)
        if known is not None or self._is_full:
            return known
        text = key.encode()
        start = self._used()
        position = start + _NUMBER.size + len(text) + -len(text) % _VALUE_BYTES
        end = position + _VALUE_BYTES
        if end > len(self._memory):
            self._is_full = True
            logger.warning("metrics_full", series=len(self._indexes))
            return None
        self._memory[start : start + _NUMBER.size] = _NUMBER.pack(len(text))
        self._memory[start + _NUMBER.size : start + _NUMBER.size + len(text)] = text
        index = position // _VALUE_BYTES
        self._values[index] = 0.0  # a process that was killed here may have left another value
        # Write the number of used bytes last, so that readers, and the next process after a kill, see either the whole
        # entry or nothing.
        self._memory[: _NUMBER.size] = _NUMBER.pack(end)
        self._indexes[key] = index
        return index


class SharedCounters(Collector):
    """The parts of all processes, and the sums over them. The first part belongs to the parent process."""

    def __init__(self, processes: int, part_bytes: int = PART_BYTES) -> None:
        # During a reload, the old and the new processes run at the same time.
        count = 1 + 2 * processes + 2
        whole = memoryview(mmap.mmap(-1, count * part_bytes))
        self._memories = [whole[at * part_bytes : (at + 1) * part_bytes] for at in range(count)]
        self._free = list(range(count - 1, 0, -1))
        self.use(0)

    def reserve_part(self) -> int | None:
        """Reserve a part for a new process. Returns None if none is free.

        The part may contain the counts of a process that has exited.
        """
        return self._free.pop() if self._free else None

    def release_part(self, number: int | None) -> None:
        """Release the part of a process that has exited. Its counts remain in the sums."""
        if number is not None:
            self._free.append(number)

    def use(self, number: int | None) -> None:
        """Make this process count in the given part or, if None, in private memory that no scrape includes."""
        # A new lock, because a thread of the parent may have held the old one during the fork. It is Python's own kind
        # of lock, since gevent's takes longer than an addition, and no greenlet waits for anything while it is held.
        self._lock = get_original("threading", "Lock")()
        self._own = ProcessCounters(memoryview(bytearray(PART_BYTES)) if number is None else self._memories[number])

    def add(self, key: str, amount: float) -> None:
        """Add to one of this process's series."""
        with self._lock:
            self._own.add(key, amount)

    def put(self, key: str, value: float) -> None:
        """Set the value of one of this process's series."""
        with self._lock:
            self._own.put(key, value)

    def get(self, key: str) -> float:
        """Return the value of one of this process's series."""
        with self._lock:
            return self._own.get(key)

    @override
    def collect(self) -> Iterable[Metric]:
        """Return the sums over all parts. They include the counts of processes that have exited."""
        sums: dict[str, float] = defaultdict(float)
        for memory in self._memories:
            for key, value in ProcessCounters(memory):
                sums[key] += value
        families: dict[str, Metric] = {}
        buckets: dict[tuple[str, str], dict[float, float]] = defaultdict(dict)
        for key, value in sums.items():
            kind, family, name, labels, help_text = json.loads(key)
            metric = families.setdefault(family, Metric(family, help_text, kind))
            if kind == "histogram" and "le" in labels:
                le = float(labels.pop("le"))
                buckets[family, json.dumps(labels)][le] = value
            else:
                metric.add_sample(name, labels, value)
        for (family, labels_text), counts in buckets.items():
            labels, total = json.loads(labels_text), 0.0
            for le in sorted(counts):  # processes count each bucket separately; the format requires cumulative counts
                total += counts[le]
                text = floatToGoString(le)  # type: ignore[no-untyped-call]  # untyped library
                families[family].add_sample(f"{family}_bucket", {**labels, "le": text}, total)
            families[family].add_sample(f"{family}_count", labels, total)
        return families.values()


def share_counters(processes: int) -> SharedCounters:
    """Share the metrics of this process with the processes that it forks. Call this before any metric is declared."""
    global _shared  # noqa: PLW0603  gunicorn executes its settings again at a reload, and the counts must survive
    if _shared is not None:
        return _shared
    shared = SharedCounters(processes)

    class Value:
        """The storage class that prometheus_client uses for each number."""

        _multiprocess = True

        def __init__(
            self, kind: str, family: str, name: str, names: Iterable[str], labels: Iterable[str], text: str, **_: Any
        ) -> None:
            if kind == "gauge":
                raise TypeError(f"{family}: processes can share counters and histograms, but not gauges")
            self._key = json.dumps([kind, family, name, dict(zip(names, labels, strict=True)), text])
            shared.add(self._key, 0.0)  # a series that starts at 0 shows its first increase

        def inc(self, amount: float) -> None:
            shared.add(self._key, amount)

        def set(self, value: float, timestamp: float | None = None) -> None:
            shared.put(self._key, value)

        def get(self) -> float:
            return shared.get(self._key)

        def set_exemplar(self, exemplar: object) -> None:
            """Ignore the exemplar: exemplars are not stored."""

        def get_exemplar(self) -> None:
            """Return None: exemplars are not stored."""

    values.ValueClass = Value
    _registry.register(shared)
    _shared = shared
    return shared


_registry = CollectorRegistry()
_shared: SharedCounters | None = None


def registry() -> CollectorRegistry:
    """Return the registry to scrape: the shared one if counters are shared, otherwise this process's own."""
    return REGISTRY if _shared is None else _registry
