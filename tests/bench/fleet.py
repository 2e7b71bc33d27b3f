"""Benchmarks of a steady fleet and a reconnecting herd (``simulate_fleet``), and of good agents during an attack."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.bench import load
from tests.bench.heartbeat import WARM_UPS, heartbeat_script
from tests.bench.results import Row
from tests.bench.serving import keys_file, server, store_fleet

INTERVAL_S = 30.0
STEADY_P99_MS, HERD_AGENTS, GOOD_PER_S, BAD_PER_S = 250.0, 20_000, 500, 5000
_GOOD_CONNECTIONS, _BAD_CONNECTIONS, _KNOWN_AGENTS = 25, 500, 3000
# Each connection waits ``{}`` milliseconds between requests, which limits the total requests per second.
_PAUSE = "delay = function() return {} end\n"
_BAD = """
local tokens, at = {}, 0
for line in io.lines("FILE") do tokens[#tokens + 1] = line end
request = function()
  at = at % #tokens + 1
  return wrk.format("POST", "/api/v1/agents/0190a000-0000-7000-8000-000000000000/heartbeat",
    {["Authorization"] = "Bearer " .. tokens[at], ["Content-Type"] = "application/json"},
    '{"status":"healthy","agent_version":"1"}')
end
"""


def simulate(port: int, keys: Path, **options: object) -> dict[str, Any]:
    """Run ``manage.py simulate_fleet`` and return its results."""
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    argv = [sys.executable, "manage.py", "simulate_fleet", f"--url=http://127.0.0.1:{port}", f"--keys={keys}", "--json"]
    done = subprocess.run([*argv, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        raise RuntimeError("simulate_fleet printed no results")
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


def _environment() -> Any:
    from tests.worlds import World

    return World("bench").environment("dev", "fleet", heartbeat_interval_s=int(INTERVAL_S))


def _updates() -> int:
    """Return how many times the database has updated heartbeat rows."""
    from django.db import connection

    time.sleep(2)  # a session reports its counts with a delay
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'fleet_heartbeat'")
        return int(cursor.fetchone()[0])


def _describe(results: dict[str, Any]) -> str:
    times = results["latency_ms"]
    return (
        f"{results['requests_per_s']:.0f}/s, p50 {times['p50']:g} ms, p99 {times['p99']:g} ms,"
        f" {results['errors']} errors, {results['busy']} responses with Retry-After,"
        f" healthy {results['healthy']}/{results['agents']},"
        f" generator {results['generator_cpu_share'] * 100:.0f} % of a core"
    )


def run_steady(folder: Path, port: int, *, agents: int, seconds: int) -> list[Row]:
    """Return the p99 latency of a steady fleet's requests, and the number of failures.

    Failures are errors, busy responses, and acknowledged heartbeats that are not in the database.
    """
    keys = keys_file(folder, store_fleet(_environment(), agents), INTERVAL_S)
    with server(port):
        before = _updates()
        results = simulate(port, keys, agents=agents, seconds=seconds, scenario="steady")
    acknowledged = results["heartbeats_acknowledged"]
    lost = max(0, acknowledged - (_updates() - before))
    print(f"  fleet      {agents} agents at {INTERVAL_S:g} s: {_describe(results)}, {lost} lost", flush=True)
    work = f"{agents:,} agents at {INTERVAL_S:g} s for {seconds} s"
    failed = results["errors"] + results["busy"] + lost
    wanted, got = agents / INTERVAL_S, acknowledged / results["seconds"]
    note = f"{_describe(results)}; {wanted:.0f}/s were due without stretching, {got:.0f}/s were acknowledged"
    return [
        Row(
            f"{work}: p99",
            results["latency_ms"]["p99"],
            STEADY_P99_MS,
            " ms",
            is_most=True,
            note=note,
            measured=results,
        ),
        Row(f"{work}: errors, busy responses and lost heartbeats", failed, 0, is_most=True),
    ]


def run_herd(folder: Path, port: int, *, agents: int = HERD_AGENTS) -> list[Row]:
    """Return the time that a reconnecting fleet takes to become healthy, and the number of errors."""
    keys = keys_file(folder, store_fleet(_environment(), agents), INTERVAL_S)
    with server(port):
        results = simulate(port, keys, agents=agents, seconds=20, scenario="herd")
    print(f"  herd       {agents} agents within 10 s: {_describe(results)}", flush=True)
    after = results["healthy_after_s"]
    work = f"{agents:,} agents reconnect within 10 s"
    return [
        Row(
            f"{work}: healthy after", float("1e6") if after is None else after, 2 * INTERVAL_S, " s", is_most=True,
            note=_describe(results), measured=results,
        ),
        Row(f"{work}: errors", results["errors"], 0, is_most=True),
    ]  # fmt: skip


def run_bad_tokens(folder: Path, port: int, *, seconds: float, rounds: int) -> list[Row]:
    """Return the growth of good agents' p99 while other callers send unknown tokens. ``wrk`` sends all requests."""
    from apps.tenancy.credentials import Family, generate

    agents = load.agents_file(folder, store_fleet(_environment(), _KNOWN_AGENTS, next_heartbeat_s=INTERVAL_S))
    tokens = folder / "bad-tokens.txt"
    tokens.write_text("".join(f"{generate(Family.AGENT).text}\n" for _ in range(100_000)))
    good = heartbeat_script() + _PAUSE.format(round(1000 * _GOOD_CONNECTIONS / GOOD_PER_S))
    bad = _BAD.replace("FILE", str(tokens)) + _PAUSE.format(round(1000 * _BAD_CONNECTIONS / BAD_PER_S))

    def measure(script: str, *, file: Path | None, connections: int, seconds: float) -> load.Load:
        return load.wrk(
            folder, port, script, seconds=seconds, connections=connections, agents=file, may_refuse=file is None
        )

    alone, loaded, storms = list[load.Load](), list[load.Load](), list[load.Load]()
    with server(port):
        sent = 0.0
        while sent < WARM_UPS * _KNOWN_AGENTS:
            sent += (
                measure(heartbeat_script(), file=agents, connections=2 * _GOOD_CONNECTIONS, seconds=seconds).rate
                * seconds
            )
        for number in range(1, rounds + 1):
            alone.append(measure(good, file=agents, connections=_GOOD_CONNECTIONS, seconds=seconds))
            storm = threading.Thread(
                target=lambda: storms.append(measure(bad, file=None, connections=_BAD_CONNECTIONS, seconds=seconds + 3))
            )
            storm.start()
            time.sleep(2)
            loaded.append(measure(good, file=agents, connections=_GOOD_CONNECTIONS, seconds=seconds))
            storm.join()
            print(
                f"  bad tokens round {number}  alone {alone[-1].rate:.0f}/s p99 {alone[-1].p99_ms:.1f} ms, with"
                f" {storms[-1].rate:.0f} refused/s {loaded[-1].rate:.0f}/s p99 {loaded[-1].p99_ms:.1f} ms",
                flush=True,
            )
    p99 = {name: statistics.median(each.p99_ms for each in got) for name, got in (("alone", alone), ("loaded", loaded))}
    p50 = {name: statistics.median(each.p50_ms for each in got) for name, got in (("alone", alone), ("loaded", loaded))}
    rate = statistics.median(each.rate for each in storms)
    return [
        Row(
            "p99 of good agents with bad tokens / alone", p99["loaded"] / p99["alone"], 1.2, is_most=True,
            note=f"{_BAD_CONNECTIONS} connections offer {BAD_PER_S} bad tokens a second; {rate:.0f} are refused in one"
            f" second, the others wait; p50 {p50['alone']:.1f} and {p50['loaded']:.1f} ms",
            measured={**p99, "p50": p50, "refused_per_s": round(rate)},
        )
    ]  # fmt: skip
