"""The benchmark of a backup's effect on heartbeats: their rate and latency while backups run, and without one."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import load
from tests.bench.heartbeat import heartbeat_script
from tests.bench.results import Row, ratio
from tests.bench.serving import server, store_fleet

AGENTS = 2_000
BLOB_BYTES = 64 << 10
RATES = "heartbeats per second during backup", "heartbeats per second without backup"
LATENCIES = "heartbeat p99 during backup", "heartbeat p99 without backup"


def run(folder: Path, port: int, *, blobs: int, seconds: float, rounds: int) -> list[Row]:
    """Measure heartbeats in alternating rounds, with and without a backup of ``blobs`` artifacts that runs repeatedly.

    Each backup has a new target, so that it copies all blobs.
    """
    from tests.worlds import World

    world = World("bench")
    fleet = store_fleet(world.dev, AGENTS, next_heartbeat_s=30)
    _store_artifacts(world.dev, fleet[0][0], blobs)
    agents = load.agents_file(folder, fleet)
    found: dict[str, list[float]] = {name: [] for name in (*RATES, *LATENCIES)}
    with server(port):

        def measure() -> load.Load:
            return load.wrk(folder, port, heartbeat_script(), seconds=seconds, agents=agents)

        measure()  # warm up
        for number in range(1, rounds + 1):
            without = measure()
            with _backups() as exit_codes:
                during = measure()
            for names, values in ((RATES, (during.rate, without.rate)), (LATENCIES, (during.p99_ms, without.p99_ms))):
                for name, value in zip(names, values, strict=True):
                    found[name].append(value)
            shown = "  ".join(f"{name} {values[-1]:.1f}" for name, values in found.items())
            print(f"  backup     round {number}  {shown}  ({len(exit_codes)} backups)", flush=True)
    return [
        ratio(" / ".join(RATES), found, goal=0.8),
        ratio(" / ".join(LATENCIES), found, goal=2.0, is_most=True),
    ]


def _store_artifacts(environment: Any, agent_id: str, count: int) -> None:
    """Store artifacts directly, since uploads would take minutes."""
    from django.utils import timezone

    from apps.artifacts.models import Artifact
    from byteor_cloud.storage import blobs

    rows = []
    for number in range(count):
        content = number.to_bytes(8) + os.urandom(BLOB_BYTES - 8)
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
    Artifact.objects.bulk_create(rows)


@contextmanager
def _backups() -> Iterator[list[int]]:
    """Run backups one after another while the block runs. Yields the list of their exit codes."""
    stop = threading.Event()
    exit_codes: list[int] = []

    def repeat() -> None:
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        while not stop.is_set():
            with tempfile.TemporaryDirectory(prefix="byteor-bench-") as target:
                command = [sys.executable, "manage.py", "backup", target]
                exit_codes.append(subprocess.run(command, check=False, capture_output=True, env=environment).returncode)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield exit_codes
    finally:
        stop.set()
        thread.join()
    if any(exit_codes):
        raise RuntimeError("a backup failed")
