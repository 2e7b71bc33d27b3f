"""The benchmark of a backup's effect on heartbeats: their rate and p95 while backups run, and without backups."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import load
from tests.bench.heartbeat import heartbeat_script
from tests.bench.ledger import store_events
from tests.bench.results import Row, ratio
from tests.bench.serving import BATCH, server, store_fleet

AGENTS = 2_000
BLOB_BYTES = 64 << 10
RATES = "heartbeats per second during backup", "heartbeats per second without backup"
LATENCIES = "heartbeat p95 during backup", "heartbeat p95 without backup"


def run(folder: Path, port: int, *, blobs: int, seconds: float, rounds: int) -> list[Row]:
    """Measure heartbeats in each round, first without backups and then while backups run one after another.

    The installation has ``blobs`` artifacts. Each backup has a new target, so that it copies all blobs.
    """
    from tests.worlds import World

    world = World("bench")
    store_events(world)
    fleet = store_fleet(world.dev, AGENTS, next_heartbeat_s=30)
    store_artifacts(world.dev, fleet[0][0], blobs, size=BLOB_BYTES)
    agents = load.agents_file(folder, fleet)
    found: dict[str, list[float]] = {name: [] for name in (*RATES, *LATENCIES)}
    with server(port):

        def measure() -> load.Load:
            return load.wrk(folder, port, heartbeat_script(), seconds=seconds, agents=agents)

        measure()  # warm up
        for number in range(1, rounds + 1):
            without = measure()
            with _backups() as backups_s:
                during = measure()
            for names, values in ((RATES, (during.rate, without.rate)), (LATENCIES, (during.p95_ms, without.p95_ms))):
                for name, value in zip(names, values, strict=True):
                    found[name].append(value)
            shown = "  ".join(f"{name} {values[-1]:.1f}" for name, values in found.items())
            lengths = ", ".join(f"{each:.1f}" for each in backups_s)
            print(f"  backup     round {number}  {shown}  (backups of {lengths} s)", flush=True)
    return [
        ratio(" / ".join(RATES), found, goal=0.8),
        ratio(" / ".join(LATENCIES), found, goal=2.0, is_most=True),
    ]


def store_artifacts(environment: Any, agent_id: str, count: int, *, size: int) -> list[str]:
    """Store artifacts of ``size`` bytes directly, since uploads would take minutes. Returns their ids."""
    from django.utils import timezone

    from apps.artifacts.models import Artifact
    from byteor_cloud.storage import blobs

    rows = []
    for number in range(count):
        content = number.to_bytes(8) + os.urandom(size - 8)
        content_hash = "sha256:" + hashlib.sha256(content).hexdigest()
        blobs.put(content_hash, content)
        rows.append(
            Artifact(
                environment=environment,
                agent_id=agent_id,
                kind="diagnostic",
                captured_at=timezone.now(),
                content_hash=content_hash,
                size_bytes=len(content),
            )
        )
    return [str(row.pk) for row in Artifact.objects.bulk_create(rows, batch_size=BATCH)]


@contextmanager
def _backups() -> Iterator[list[float]]:
    """Run backups one after another while the block runs. Yields the list of their durations in seconds.

    The block starts when the first backup starts to dump the database, because loading the command's code takes a
    second on a busy core, however long the backup is.
    """
    stop, has_begun = threading.Event(), threading.Event()
    lengths: list[float] = []
    failures: list[str] = []
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}

    def repeat() -> None:
        while not stop.is_set():
            with tempfile.TemporaryDirectory(prefix="byteor-bench-") as target:
                command = [sys.executable, "manage.py", "backup", target]
                process = subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
                )
                assert process.stderr is not None
                first = process.stderr.readline()
                began = time.monotonic()
                has_begun.set()
                rest = process.stderr.read()
                if process.wait() != 0:
                    failures.append(first + rest)
                lengths.append(time.monotonic() - began)

    thread = threading.Thread(target=repeat)
    thread.start()
    has_begun.wait()
    try:
        yield lengths
    finally:
        stop.set()
        thread.join()
    if failures:
        raise RuntimeError(f"a backup failed: {failures[0]}")
