"""Tests of counters in shared memory: sums over all processes, full memory, killed processes, Prometheus metrics."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from byteor_cloud.server import counters
from byteor_cloud.server.counters import ProcessCounters, SharedCounters

ROOT = Path(__file__).parents[2]
SOME = '["counter", "byteor_some", "byteor_some_total", {"kind": "a"}, "Some."]'


def collected(shared: SharedCounters) -> dict[str, float]:
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for metric in shared.collect()
        for sample in metric.samples
    }


def add_in_child_process(shared: SharedCounters, part: int | None, amount: float) -> None:
    """Add to the counter in a forked process, which then exits without any cleanup."""
    pid = os.fork()
    if pid == 0:
        try:
            shared.use(part)
            shared.add(SOME, amount)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_counter_sums_include_exited_processes() -> None:
    shared = SharedCounters(1, part_bytes=4096)
    shared.add(SOME, 1)

    for amount in (10, 100):
        add_in_child_process(shared, shared.reserve_part(), amount)
    assert collected(shared) == {"byteor_some_total{a}": 111}

    # The next process continues in the memory of one that exited.
    shared.release_part(1)
    part = shared.reserve_part()
    assert part == 1
    add_in_child_process(shared, part, 1000)
    assert collected(shared) == {"byteor_some_total{a}": 1111}


def test_counts_of_process_without_shared_memory_part_are_dropped_silently() -> None:
    shared = SharedCounters(1, part_bytes=4096)
    parts = [shared.reserve_part() for _ in range(6)]

    assert parts == [1, 2, 3, 4, None, None]
    add_in_child_process(shared, None, 5)
    shared.release_part(None)
    assert collected(shared) == {}
    assert shared.reserve_part() is None


@pytest.mark.parametrize("size", [64, 4096])
def test_full_shared_memory_part_ignores_new_series_and_keeps_existing_ones(size: int) -> None:
    memory = memoryview(bytearray(size))
    part = ProcessCounters(memory)

    for number in range(1000):
        part.add(f"series {number}", 1)
        part.add(f"series {number}", 1)

    stored = dict(part)
    assert 0 < len(stored) < size / 24
    assert set(stored.values()) == {2}
    assert stored == {f"series {number}": 2 for number in range(len(stored))}
    assert dict(ProcessCounters(memory)) == stored  # as another process would read the series
    assert part.get("series 999") == 0


@pytest.mark.parametrize("key", ["a", "seven b", "eight by", "nine byte", "größe €", "x" * 500])
def test_counter_keys_of_various_lengths_are_stored(key: str) -> None:
    memory = memoryview(bytearray(4096))
    part = ProcessCounters(memory)

    part.add(key, 1.5)
    part.add("other", 1)
    part.put(key, 0.25)
    part.add(key, 2)

    assert dict(ProcessCounters(memory)) == {key: 2.25, "other": 1}


def test_incomplete_series_of_killed_process_is_ignored() -> None:
    memory = memoryview(bytearray(4096))
    part = ProcessCounters(memory)
    part.add("whole", 1)
    # Simulate a kill just before the last step, which writes the number of bytes in use.
    part.add("half", 1)
    memory[:8] = (8 + 8 + 8 + 8).to_bytes(8, sys.byteorder)

    reopened = ProcessCounters(memory)
    assert dict(reopened) == {"whole": 1}
    reopened.add("next", 3)
    assert dict(ProcessCounters(memory)) == {"whole": 1, "next": 3}


def test_shared_counters_use_memory_without_file() -> None:
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    shared = SharedCounters(2)

    shared.add(SOME, 1)

    if sys.platform == "linux":
        assert set(os.listdir("/proc/self/fd")) <= before
        mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "/dev/zero (deleted)" in line]
        assert mapped  # Linux shows anonymous shared memory under this name
    assert any(issubclass(type(each), mmap.mmap) for each in gc.get_objects())  # isinstance() would load lazy objects


DECLARED = """
from byteor_cloud.server import counters
shared = counters.share_counters(1)
assert counters.share_counters(1) is shared  # a reload of gunicorn's settings
from prometheus_client import Counter, Gauge, Histogram, generate_latest
count = Counter("c", "Count.", ["l"])
count.labels("x").inc(2)
count.labels('"y\\\\n"').inc()
spread = Histogram("h", "Spread.", ["l"], buckets=(1, 5, 10))
for value in (0, 2, 2, 7, 50):
    spread.labels("x").observe(value)
try:
    Gauge("g", "Gauge.")
except TypeError as error:
    print("refused:", error)
print(generate_latest(counters.registry()).decode())
"""


def test_counters_and_histograms_are_shared_and_gauges_are_refused() -> None:
    ended = subprocess.run([sys.executable, "-c", DECLARED], cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if line and not line.startswith("#")]
    assert lines == [
        "refused: g: processes can share counters and histograms, but not gauges",
        'c_total{l="x"} 2.0',
        'c_total{l="\\"y\\\\n\\""} 1.0',
        'h_sum{l="x"} 61.0',
        'h_bucket{l="x",le="1.0"} 1.0',
        'h_bucket{l="x",le="5.0"} 3.0',
        'h_bucket{l="x",le="10.0"} 4.0',
        'h_bucket{l="x",le="+Inf"} 5.0',
        'h_count{l="x"} 5.0',
    ]


def test_single_process_uses_default_prometheus_registry() -> None:
    from prometheus_client import REGISTRY

    assert counters.registry() is REGISTRY
