"""A server to measure, and fleets to measure it with."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.patience import wait_until

BATCH = 5000
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def server(port: int, processes: int = 2, *, open_files: int | None = None) -> Iterator[int]:
    """Run the API under gunicorn as ``manage.py serve`` does, with additional views for comparison. Yields its pid.

    It logs as in production, to a file in the data folder. ``open_files`` is the file limit of each process.
    """
    argv = [
        sys.executable, "-m", "gunicorn", "tests.bench.wsgi", "--bind", f"127.0.0.1:{port}",
        "--config", "byteor_cloud/server/gunicorn.py", "--workers", str(processes),
    ]  # fmt: skip
    if open_files is not None:
        argv = ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(open_files), *argv]
    with Path(os.environ["BYTEOR_CLOUD_DATA_DIR"], "server.log").open("ab") as log:
        process = subprocess.Popen(
            argv, stderr=log, env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.bench.settings"}
        )
    try:
        wait_until(lambda: process.poll() is not None or _listens(port))
        if process.returncode is not None:
            raise RuntimeError("the server did not start")
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def cpu_s(pid: int | None) -> float:
    """Return the CPU seconds of a process, its descendants, and their reaped children. Returns 0 for None."""
    if pid is None:
        return 0.0
    children: dict[int, list[int]] = defaultdict(list)
    used: dict[int, float] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found = int(file.parent.name)
        children[int(fields[1])].append(found)
        used[found] = sum(map(int, fields[11:15])) / _TICKS_PER_S
    total, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        total += used.get(one, 0.0)
        waiting += children[one]
    return total


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def store_fleet(environment: Any, count: int, **fields: Any) -> list[tuple[str, str]]:
    """Store agents with keys directly, since the API would take minutes. Return their ids and keys."""
    from apps.fleet.models import AGENT_SCOPES, Agent, AgentKey, Assignment, Heartbeat
    from apps.tenancy.credentials import Family, generate

    fleet: list[tuple[str, str]] = []
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        agents = Agent.objects.bulk_create(
            Agent(environment=environment, name=f"agent-{number}", hostname=f"host-{number}",
                  labels={"zone": f"z{number % 10}", "rack": f"r{number % 500}"})
            for number in numbers
        )  # fmt: skip
        Heartbeat.objects.bulk_create(Heartbeat(agent=agent, **fields) for agent in agents)
        Assignment.objects.bulk_create(Assignment(agent=agent) for agent in agents)
        secrets = [generate(Family.AGENT) for _ in agents]
        AgentKey.objects.bulk_create(
            AgentKey(agent=agent, digest=secret.digest, prefix=secret.prefix, scopes=AGENT_SCOPES)
            for agent, secret in zip(agents, secrets, strict=True)
        )
        fleet += [(str(agent.pk), secret.text) for agent, secret in zip(agents, secrets, strict=True)]
    analyze()
    return fleet


def analyze() -> None:
    """Update the planner's statistics, as autovacuum would do later."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def keys_file(folder: Path, fleet: list[tuple[str, str]], interval_s: float) -> Path:
    """Write the file with which ``simulate_fleet --keys`` uses an existing fleet, and return its path."""
    from byteor_cloud.simulator.fleet import Fleet

    path = folder / f"keys-{len(fleet)}-{interval_s:g}"
    Fleet(interval_s, fleet).save(path)
    return path
