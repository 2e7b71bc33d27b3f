"""The benchmark of fleet filters and counts: a page of 100,000 agents compared with the same page of 1,000."""

from __future__ import annotations

import logging
from typing import Any

from tests.bench import load
from tests.bench.results import Row, ratio
from tests.bench.serving import analyze, server, store_fleet

LARGE, SMALL, MOST_QUERIES = 100_000, 1000, 10
INTERVAL_S = 3600  # seconds; long enough that no agent's liveness changes during the benchmark
PAGES = {
    "all": "/agents?limit=50",
    "stale": "/agents?liveness=stale&limit=200",
    "drifted": "/agents?drifted=true",
    "degraded": "/agents?status=degraded",
    "label": "/agents?label=zone%3Dz3",
    "two labels": "/agents?label=zone%3Dz3&label=rack%3Dr13",
    "label set": "/agents?label=zone",
    "host name": "/agents?hostname=host-99",
    "name": "/agents?name=agent-7",
    "summary": "/agents/summary",
}
# The state of the fleet: a tenth is stale, a thousandth has drift, a hundredth is degraded.
_STATES = """
UPDATE fleet_heartbeat h SET
    last_seen_at = now() - CASE WHEN n % 10 = 0 THEN interval '4 hours' ELSE interval '1 second' END,
    next_heartbeat_s = 3600, agent_version = '1', running_bundle_hash = 'sha256:a',
    status = CASE WHEN n % 100 = 1 THEN 'degraded' ELSE 'healthy' END
FROM (SELECT id, substr(name, 7)::int AS n FROM fleet_agent) AS a WHERE a.id = h.agent_id;
UPDATE fleet_assignment s SET bundle_hash = CASE WHEN n % 1000 = 2 THEN 'sha256:b' ELSE 'sha256:a' END,
    action = 'activate', since = now(), progress = 'active'
FROM (SELECT id, substr(name, 7)::int AS n FROM fleet_agent) AS a WHERE a.id = s.agent_id;
"""


def run(port: int, *, seconds: float = 1.0, rounds: int = 3, large: int = LARGE, small: int = SMALL) -> list[Row]:
    """Print the times of each page. Return the worst ratio and the highest number of queries."""
    from django.db import connection

    from apps.fleet.services import facts
    from tests.worlds import World

    logging.disable(logging.INFO)  # hides the access log of the requests in this process
    world = World("bench")
    environments = {
        agents: world.environment("dev", f"of-{agents}", heartbeat_interval_s=INTERVAL_S) for agents in (large, small)
    }
    for agents, environment in environments.items():
        store_fleet(environment, agents)
    with connection.cursor() as cursor:
        cursor.execute(_STATES)
    facts.maintain()  # in production, the worker does this
    analyze()
    rows, queries = [], {}
    with server(port):
        for page, path in PAGES.items():
            count = _count_queries(world, environments[large], path)
            if count is None and page == "all":
                raise RuntimeError("the list of agents is refused")
            if count is None:
                print(f"  facts      {page:<12} is refused by this server")
                continue
            queries[page] = count
            names = {agents: f"{page} at {agents:,}" for agents in environments}
            times: dict[str, list[float]] = {name: [] for name in names.values()}
            for number in range(rounds + 1):
                for agents, environment in environments.items():
                    url = world.path(environment, path)
                    found = load.median_ms(port, url, str(world.viewer.api.token), seconds=seconds)
                    if number:  # the first round only warms up
                        times[names[agents]].append(found)
            rows.append(ratio(f"{names[large]} / {names[small]}", times, goal=3.0, is_most=True))
            shown = "  ".join(f"{name} {value:.1f} ms" for name, value in rows[-1].measured.items())
            print(f"  facts      {page:<12} {shown}  x{rows[-1].value:.2f}, {count} queries", flush=True)
    worst = max(rows, key=lambda row: row.value)
    details = {row.work: {"ratio": round(row.value, 2), **row.measured} for row in rows}
    return [
        Row(
            f"fleet filters and counts at {large:,} / {small:,} agents", worst.value, 3.0, is_most=True,
            low=min(row.value for row in rows), high=worst.value, note=f"the slowest is {worst.work}", measured=details,
        ),
        Row("most queries of one of these pages", max(queries.values()), MOST_QUERIES - 1, is_most=True,
            measured=queries),
    ]  # fmt: skip


def _count_queries(world: Any, environment: Any, path: str) -> int | None:
    """Return the number of queries of a page, or None if the server returns an error."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    url = world.path(environment, path)
    if (
        world.viewer.api.client.get(url, headers={"Authorization": f"Bearer {world.viewer.api.token}"}).status_code
        >= 400
    ):
        return None
    with CaptureQueriesContext(connection) as captured:
        world.viewer.api.client.get(url, headers={"Authorization": f"Bearer {world.viewer.api.token}"})
    return len(captured)
