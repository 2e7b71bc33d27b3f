"""The benchmark of heartbeats and unchanged polls, beside their yardsticks on one server, in alternating rounds.

The yardsticks are a heartbeat in plain DRF, a Django view that answers ``ok``, and pgbench's single-row update. ``wrk``
makes the requests (``apt-get install wrk``); a generator in Python would take the core that is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

AGENTS, CONNECTIONS = 5000, 16
SECONDS = int(os.environ.get("BENCH_SECONDS", "5"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
BODY = (
    '{"status":"healthy","agent_version":"0.1.0","uptime_s":12.5,"active":null,'
    '"resources":{"cpu_percent":3.5,"memory_bytes":104857600,"disk_free_bytes":53687091200}}'
)
STOCK_BODY = '{"status":"healthy","agent_version":"0.1.0","report":{"cpu_percent":3.5,"memory_bytes":104857600}}'
_FLEET = """
WITH made AS (
    INSERT INTO fleet_agent (id, created_at, updated_at, revision, environment_id, name, hostname, labels, public_key)
    SELECT id, now(), now(), 1, %s, 'agent-' || n, '', '{}', '' FROM unnest(%s::uuid[]) WITH ORDINALITY AS u (id, n)
    RETURNING id
), beats AS (
    INSERT INTO fleet_heartbeat (agent_id, next_heartbeat_s, report) SELECT id, 30, '{}' FROM made
), wants AS (
    INSERT INTO fleet_assignment (agent_id, progress, failed_detail) SELECT id, 'pending', '' FROM made
)
INSERT INTO fleet_agentkey (id, created_at, digest, prefix, agent_id, scopes)
SELECT gen_random_uuid(), now(), digest, 'bor_agt', id, %s FROM unnest(%s::uuid[], %s::text[]) AS k (id, digest)
"""
# Each wrk thread sends the agents' requests in turn. ``what`` is replaced by the request's form.
_SCRIPT = """
local agents, at = {}, 0
for line in io.lines("AGENTS") do agents[#agents + 1] = line end
request = function()
  at = at % #agents + 1
  local id, key = agents[at]:match("(%S+) (%S+)")
  REQUEST
end
done = function(summary)
  local e = summary.errors
  io.write(string.format("BAD %d\\n", e.connect + e.read + e.write + e.status + e.timeout))
end
"""
_POST = """return wrk.format("POST", "PATH" .. id .. "/heartbeat",
    {["Authorization"] = "Bearer " .. key, ["Content-Type"] = "application/json"}, [[BODY]])"""
_POLL = """return wrk.format("GET", "/api/v1/agents/" .. id .. "/deployment",
    {["Authorization"] = "Bearer " .. key, ["If-None-Match"] = [[ETAG]]})"""


def _fleet(folder: Path) -> list[tuple[str, str]]:
    """Store agents, write their ids and keys to a file, and return them."""
    from django.db import connection

    from apps.fleet.models import AGENT_SCOPES
    from apps.tenancy.credentials import Family, generate
    from byteor_cloud.ids import uuid7
    from tests.worlds import World

    world = World("bench")
    agents = [(uuid7(), generate(Family.AGENT)) for _ in range(AGENTS)]
    ids = [agent_id for agent_id, _ in agents]
    with connection.cursor() as cursor:
        cursor.execute(_FLEET, [world.dev.pk, ids, AGENT_SCOPES, ids, [key.digest for _, key in agents]])
        cursor.execute("ANALYZE")
    fleet = [(str(agent_id), key.text) for agent_id, key in agents]
    (folder / "agents.txt").write_text("".join(f"{agent_id} {key}\n" for agent_id, key in fleet))
    return fleet


@contextlib.contextmanager
def _server(port: int) -> Iterator[int]:
    argv = [
        sys.executable, "-m", "gunicorn", "tests.bench.wsgi", "--bind", f"127.0.0.1:{port}",
        "--config", "byteor_cloud/gunicorn.py", "--workers", "2",
    ]  # fmt: skip
    process = subprocess.Popen(argv, env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.bench.settings"})
    try:
        for _ in range(2400):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _wrk(folder: Path, port: int, request: str) -> float:
    """Return the requests per second. Raises RuntimeError if one was not answered well."""
    script = folder / "requests.lua"
    script.write_text(_SCRIPT.replace("AGENTS", str(folder / "agents.txt")).replace("REQUEST", request))
    argv = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{SECONDS}s",
        "--timeout",
        "30s",
        "-s",
        str(script),
        f"http://127.0.0.1:{port}",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done)
    if rate is None or "BAD 0\n" not in done:
        raise RuntimeError(done)
    return float(rate[1])


def _pgbench(folder: Path) -> float:
    """Return the single-row updates per second of the fleet's table by pgbench, with as many clients."""
    from django.db import connection

    script = folder / "update.sql"
    script.write_text(
        "\\set n random(1, 5000)\n"
        "UPDATE bench_row SET last_seen_at = now(), report = '{\"cpu_percent\": 3.5}' WHERE id = :n RETURNING id;\n"
    )
    known = connection.settings_dict
    argv = [
        "pgbench", "-n", "-M", "prepared", "-c", str(CONNECTIONS), "-j", "1", "-T", str(SECONDS), "-f", str(script),
        "-h", str(known["HOST"]), "-p", str(known["PORT"] or 5432), "-U", str(known["USER"]), str(known["NAME"]),
    ]  # fmt: skip
    done = subprocess.run(
        argv, capture_output=True, text=True, check=True, env={**os.environ, "PGPASSWORD": str(known["PASSWORD"])}
    ).stdout
    return float(re.search(r"tps = ([\d.]+)", done)[1])  # type: ignore[index]  # pgbench always prints it


def _prepare_pgbench() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE bench_row (id int PRIMARY KEY, last_seen_at timestamptz, report jsonb)"
            " WITH (fillfactor = 50);"
            "INSERT INTO bench_row SELECT n, now(), '{}' FROM generate_series(1, 5000) AS n; ANALYZE bench_row"
        )


def _cpu_s(*roots: int) -> float:
    """Return the CPU seconds of these processes and their children, which do not depend on the machine's other load."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) in roots or int(stat.parent.name) in roots:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _hot_share() -> float:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'fleet_heartbeat'")
        hot, updated = cursor.fetchone()
    return float(hot / updated)


def run(folder: Path, port: int) -> None:
    """Print the rate of each round, and the ratios of the medians."""
    if shutil.which("wrk") is None or shutil.which("pgbench") is None:
        raise SystemExit("This benchmark needs wrk and pgbench: apt-get install wrk postgresql")
    _fleet(folder)
    _prepare_pgbench()
    from apps.tenancy.api.base import body_digest

    etag = '"' + body_digest({"desired": None}) + '"'
    post = _POST.replace("PATH", "/api/v1/agents/").replace("BODY", BODY)
    stock = _POST.replace("PATH", "/stock/agents/").replace("BODY", STOCK_BODY)
    works: dict[str, Callable[[], float]] = {
        "stock DRF": lambda: _wrk(folder, port, stock),
        "bare Django view": lambda: _wrk(folder, port, 'return wrk.format("GET", "/bare")'),
        "heartbeat": lambda: _wrk(folder, port, post),
        "unchanged poll": lambda: _wrk(folder, port, _POLL.replace("ETAG", etag)),
        "pgbench": lambda: _pgbench(folder),
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    costs: dict[str, list[float]] = {name: [] for name in works}
    database = int((folder / "postgres" / "data" / "postmaster.pid").read_text().partition("\n")[0])
    with _server(port) as server:
        for work in works.values():
            work()  # warm up
        for number in range(1, ROUNDS + 1):
            for name, work in works.items():
                before = _cpu_s(server, database)
                rates[name].append(work())
                costs[name].append((_cpu_s(server, database) - before) / SECONDS / rates[name][-1])
            print(
                f"  heartbeat  round {number}  " + "  ".join(f"{n} {r[-1]:.0f}/s" for n, r in rates.items()), flush=True
            )
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for work_name, yardstick, goal in (
        ("heartbeat", "stock DRF", 7.0),
        ("heartbeat", "bare Django view", 0.7),
        ("heartbeat", "pgbench", 0.3),
        ("unchanged poll", "bare Django view", 1.0),
    ):
        per_round = [a / b for a, b in zip(rates[work_name], rates[yardstick], strict=True)]
        print(
            f"  heartbeat  {work_name} / {yardstick} = {medians[work_name] / medians[yardstick]:.2f}"
            f"  ({min(per_round):.2f} to {max(per_round):.2f}; goal: at least {goal})"
        )
    print(f"  heartbeat  updates in place (HOT): {_hot_share():.1%}")
    for name, found in costs.items():
        print(f"  heartbeat  {name}: {statistics.median(found) * 1e6:.0f} µs of CPU in server and database")
    print(json.dumps({"rates": rates, "cpu_s": costs}))
