"""The benchmark of heartbeats with one and two API processes, directly and through pgbouncer, in alternating rounds.

On a shared machine, the rates mean little. The processor time of a heartbeat in the API, in PostgreSQL and in pgbouncer
is therefore measured as well.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from tests import pooler
from tests.bench import load
from tests.bench.heartbeat import heartbeat_script
from tests.bench.serving import cpu_s, server, store_fleet

AGENTS = 1000
POOL_SIZE = 20


def run(folder: Path, find_port: Callable[[], int], *, seconds: float, rounds: int) -> None:
    """Print the median rate of each setup, and the median processor time of a heartbeat in each part of the setup."""
    from tests.worlds import World

    agents = load.agents_file(folder, store_fleet(World("bench").dev, AGENTS, next_heartbeat_s=30))
    direct = os.environ["BYTEOR_EMBEDDED_DATABASE_URL"]
    postmaster = int((folder / "postgres/data/postmaster.pid").read_text().partition("\n")[0])
    ways: dict[str, dict[str, str]] = {"direct": {}}
    pool = pooler.Pooler(folder, find_port(), direct, size=POOL_SIZE)
    with ExitStack() as stack:
        if pooler.PROGRAM is None:
            print("  processes  NOT MEASURED: there is no pgbouncer (apt-get install pgbouncer)", flush=True)
        else:
            stack.callback(pool.kill)
            pool.start()
            ways["pgbouncer"] = {"BYTEOR_EMBEDDED_DATABASE_URL": pool.url, "BYTEOR_CLOUD_DATABASE_DIRECT_URL": direct}
        servers: dict[str, tuple[int, int]] = {}
        for way, changes in ways.items():
            for processes in (1, 2):
                port = find_port()
                with patch.dict(os.environ, changes):
                    servers[f"{processes} {way}"] = port, stack.enter_context(server(port, processes))
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in servers}
        for number in range(-1, rounds + 1):  # two rounds to warm up
            for name, (port, pid) in servers.items():
                before = [cpu_s(pid), cpu_s(postmaster), cpu_s(pool.pid)]
                rate = load.wrk(folder, port, heartbeat_script(), seconds=seconds, agents=agents).rate
                after = [cpu_s(pid), cpu_s(postmaster), cpu_s(pool.pid)]
                sent = rate * seconds
                if number > 0:
                    costs = ((now - then) / sent * 1e6 for now, then in zip(after, before, strict=True))
                    found[name].append((rate, *costs))
    for name, measured in found.items():
        rate, api, database, pooling = (statistics.median(column) for column in zip(*measured, strict=True))
        print(
            f"  processes  {name:11}  {rate:5.0f}/s  each: API {api:.0f} µs, PostgreSQL {database:.0f} µs,"
            f" pgbouncer {pooling:.0f} µs",
            flush=True,
        )
