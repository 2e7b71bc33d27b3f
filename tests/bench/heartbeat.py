"""The benchmark of heartbeats and unchanged polls and of their yardsticks, on one server in alternating rounds.

The yardsticks are a heartbeat in plain DRF, a Django view that responds ``ok``, and pgbench's single-row update.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.bench import load
from tests.bench.results import Row, ratio
from tests.bench.serving import server, store_fleet

AGENTS = 5000
# In production, a process caches an agent's key and offer for 15 minutes, so most heartbeats, which are sent every 30
# seconds, need no look-up. The rounds therefore start after both processes have cached nearly all agents.
WARM_UPS = 5
BODY = (
    '{"status":"healthy","agent_version":"0.1.0","uptime_s":12.5,"active":null,'
    '"resources":{"cpu_percent":3.5,"memory_bytes":104857600,"disk_free_bytes":53687091200}}'
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


def heartbeat_script() -> str:
    """Return the ``wrk`` script that sends heartbeats."""
    return _POST.replace("PATH", "/api/v1/agents/").replace("BODY", BODY)


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
    return [*rows, ratio("unchanged poll / bare Django view", rates, goal=1.0)]


def _updates() -> tuple[int, int]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = 'fleet_heartbeat'")
        found: tuple[int, int] = cursor.fetchone()
    return found
