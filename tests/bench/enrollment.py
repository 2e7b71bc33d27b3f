"""The benchmark of enrollments per second with one multi-use token, on one server with two processes."""

from __future__ import annotations

import statistics
import uuid
from pathlib import Path

from tests.bench import load
from tests.bench.results import Row
from tests.bench.serving import server

CONNECTIONS, USES, GOAL_PER_S = 64, 100_000, 300
# Each host sends an idempotency key, as the reference agent does.
_POST = """
local sent = 0
request = function()
  sent = sent + 1
  local name = "RUN-" .. sent
  return wrk.format("POST", "PATH", {["Authorization"] = "Bearer TOKEN", ["Content-Type"] = "application/json",
    ["Idempotency-Key"] = name}, '{"name":"' .. name .. '","hostname":"edge.example"}')
end
"""


def run(folder: Path, port: int, *, seconds: float = 4.0, rounds: int = 3) -> list[Row]:
    """Print the rate of each round, and return the median.

    Raises RuntimeError if the numbers of token uses, agents and audit events differ at the end.
    """
    from apps.fleet.models import Agent, EnrollmentToken
    from apps.tenancy.models import AuditEvent
    from tests.worlds import World

    world = World("bench")
    token, path = world.enrollment_token(max_uses=USES, expires_in_s=3600), world.path(rest="/agents")

    def measure() -> load.Load:
        script = _POST.replace("RUN", uuid.uuid4().hex).replace("PATH", path).replace("TOKEN", token)
        return load.wrk(folder, port, script, seconds=seconds, connections=CONNECTIONS)

    rates: list[float] = []
    with server(port):
        measure()  # warm up
        for number in range(1, rounds + 1):
            found = measure()
            rates.append(found.rate)
            latency = f"p50 {found.p50_ms:.0f} ms  p99 {found.p99_ms:.0f} ms"
            print(f"  enrollment  round {number}  {found.rate:.0f}/s  {latency}", flush=True)
    events = AuditEvent.objects.filter(action="agent.enroll").count()
    counts = {EnrollmentToken.objects.get().uses, Agent.objects.count(), events}
    if len(counts) != 1:
        raise RuntimeError(f"uses, agents and events differ: {counts}")
    return [
        Row("enrollments with one token", statistics.median(rates), GOAL_PER_S, "/s", low=min(rates), high=max(rates))
    ]
