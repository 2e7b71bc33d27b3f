"""The benchmark of heartbeats and unchanged polls and of their yardsticks, on one server in alternating rounds.

The yardsticks are a heartbeat in plain DRF, a Django view that responds ``ok``, and pgbench's single-row update. The
processor time of a heartbeat is also compared with that of a heartbeat that gathers no series.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from tests.bench import load
from tests.bench.results import Row, ratio
from tests.bench.serving import cpu_s, server, store_fleet
from tests.bench.settings import WITHOUT_SERIES
from tests.ports import free_port

AGENTS = 5000
# In production, a process caches an agent's key for 12 to 15 minutes, so most heartbeats, which are sent every 30
# seconds, need no look-up. The rounds therefore start after both processes have cached nearly all agents.
WARM_UPS = 5
BODY = (
    '{"status":"healthy","agent_version":"0.1.0","uptime_s":12.5,"active":null,'
    '"resources":{"cpu_percent":3.5,"memory_bytes":104857600,"disk_free_bytes":53687091200}}'
)
_FULL_BODY = BODY[:-1] + (
    ',"boot_id":"5f0c7c5e0a3c4f6c","pipeline":{"records_in":123456,"records_out":123000,"drops":456,"errors":0}}'
)
STOCK_BODY = '{"status":"healthy","agent_version":"0.1.0","report":{"cpu_percent":3.5,"memory_bytes":104857600}}'
_POST = """
local sent = [[BODY]]
send = function(id, key)
  return wrk.format("POST", "PATH" .. id .. "/heartbeat",
    {["Authorization"] = "Bearer " .. key, ["Content-Type"] = "application/json"}, sent)
end
"""
_POLL = """
send = function(id, key)
  return wrk.format("GET", "/api/v1/agents/" .. id .. "/deployment",
    {["Authorization"] = "Bearer " .. key, ["If-None-Match"] = [[ETAG]]})
end
"""
_BARE = 'request = function() return wrk.format("GET", "/bare") end\n'
_UPDATE = """\\set n random(1, 5000)
UPDATE bench_row SET last_seen_at = now(), report = '{"cpu_percent": 3.5}' WHERE id = :n RETURNING id;
"""
_UPDATED_ROWS = """
CREATE TABLE bench_row (id int PRIMARY KEY, last_seen_at timestamptz, report jsonb) WITH (fillfactor = 50);
INSERT INTO bench_row SELECT n, now(), '{}' FROM generate_series(1, 5000) AS n;
ANALYZE bench_row
"""


def heartbeat_script(body: str = BODY) -> str:
    """Return the ``wrk`` script that sends heartbeats."""
    return _POST.replace("PATH", "/api/v1/agents/").replace("BODY", body)


def run(folder: Path, port: int, *, seconds: float = 4.0, rounds: int = 3) -> list[Row]:
    """Print the rates of each round. Return the ratios of the medians."""
    from django.db import connection

    from byteor_cloud.api.etags import body_digest
    from tests.worlds import World

    agents = load.agents_file(folder, store_fleet(World("bench").dev, AGENTS, next_heartbeat_s=30))
    with connection.cursor() as cursor:
        cursor.execute(_UPDATED_ROWS)
    stock = _POST.replace("PATH", "/stock/agents/").replace("BODY", STOCK_BODY)
    poll = _POLL.replace("ETAG", '"' + body_digest({"desired": None}) + '"')

    def by_wrk(script: str, file: Path | None = agents) -> Callable[[], float]:
        return lambda: load.wrk(folder, port, script, seconds=seconds, agents=file).rate

    works = {
        "stock DRF": by_wrk(stock),
        "bare Django view": by_wrk(_BARE, None),
        "heartbeat": by_wrk(heartbeat_script()),
        "unchanged poll": by_wrk(poll),
    }
    program = load.find_pgbench()
    if program is not None:
        works["pgbench update"] = lambda: load.pgbench(folder, program, _UPDATE, seconds=seconds)
    rates: dict[str, list[float]] = {name: [] for name in works}
    with server(port):
        for work in works.values():
            work()  # warm up
        for name in ("heartbeat", "unchanged poll"):
            sent = 0.0
            while sent < WARM_UPS * AGENTS:
                sent += works[name]() * seconds
        before = _updates()
        for number in range(1, rounds + 1):
            for name, work in works.items():
                rates[name].append(work())
            shown = "  ".join(f"{name} {found[-1]:.0f}/s" for name, found in rates.items())
            print(f"  heartbeat  round {number}  {shown}", flush=True)
        hot, updated = (now - then for now, then in zip(_updates(), before, strict=True))
    print(f"  heartbeat  updates in place (HOT): {hot / updated:.1%}")
    rows = [
        ratio("heartbeat / stock DRF", rates, goal=7.0),
        ratio("heartbeat / bare Django view", rates, goal=0.7),
    ]
    if program is not None:
        rows.append(ratio("heartbeat / pgbench update", rates, goal=0.3))
    rows.append(ratio("unchanged poll / bare Django view", rates, goal=1.0))
    return [*rows, _cost_of_series(folder, agents, seconds=seconds, rounds=rounds)]


def _cost_of_series(folder: Path, agents: Path, *, seconds: float, rounds: int) -> Row:
    """Compare the processor time of heartbeats with and without series, in the API and in PostgreSQL.

    Both servers run all the time, and get heartbeats in turn. Processor time is compared because rates differ more
    between two rounds than between the two servers.
    """
    names = "heartbeat with series", "heartbeat without series"
    postmaster = int((folder / "postgres/data/postmaster.pid").read_text().partition("\n")[0])
    costs: dict[str, list[float]] = {name: [] for name in names}
    ports = free_port(), free_port()
    with server(ports[0], 1) as one, patch.dict(os.environ, {WITHOUT_SERIES: "1"}), server(ports[1], 1) as other:
        for number in range(-2, 2 * rounds):  # the first two rounds fill the caches
            for name, port, pid in zip(names, ports, (one, other), strict=True):
                before = cpu_s(pid) + cpu_s(postmaster)
                found = load.wrk(folder, port, heartbeat_script(_FULL_BODY), seconds=seconds, agents=agents)
                cost_us = (cpu_s(pid) + cpu_s(postmaster) - before) / (found.rate * seconds) * 1e6
                if number >= 0:
                    costs[name].append(cost_us)
    shown = "  ".join(f"{name} {sorted(found)[len(found) // 2]:.0f} µs" for name, found in costs.items())
    print(f"  heartbeat  processor time  {shown}", flush=True)
    return ratio(" / ".join(names), costs, goal=1.05, is_most=True)


def _updates() -> tuple[int, int]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'fleet_heartbeat'")
        found: tuple[int, int] = cursor.fetchone()
    return found
