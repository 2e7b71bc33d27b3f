"""Tests that no table grows with the number of heartbeats and polls, even if periodic jobs run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import pytest
from django.db import connection

from byteor_cloud.worker import jobs
from tests.releases import stories
from tests.worlds import World

BEATS = 12
# The values that heartbeats send in turn. The rows must stay bounded even if every heartbeat reports a change.
NEWS: list[dict[str, Any]] = [
    {"status": "healthy", "agent_version": "1"},
    {"status": "degraded", "agent_version": "2", "boot_id": "one"},
    {"status": "healthy", "agent_version": "1", "boot_id": "two"},
]


def row_counts() -> dict[str, int]:
    """Return the number of rows of every table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        tables = [name for (name,) in cursor.fetchall()]
        found = {}
        for table in tables:
            cursor.execute(f'SELECT count(*) FROM "{table}"')
            [(found[table],)] = cursor.fetchall()
    return found


def run_periodic_jobs(run_jobs: Callable[..., int], tick: int) -> None:
    """Run each periodic job once through the queue."""
    for kind in jobs.KINDS.values():
        if kind.periodic is not None:
            jobs.enqueue_tick(kind.periodic, tick)
    run_jobs()


@pytest.mark.django_db
def test_tables_do_not_grow_with_further_heartbeats_that_report_same_bundle(
    world: World, run_jobs: Callable[..., int]
) -> None:
    fleet = stories.fleet(world, 4)
    deployment = stories.active(world, world.bundle(), fleet)
    running = {
        "deployment_id": str(deployment.pk),
        "bundle_hash": deployment.bundle_hash,
        "spec_hash": f"sha256:{0:064}",
    }
    news: Iterator[dict[str, Any]] = cycle(NEWS)
    ticks = iter(range(int(time.time()), 2**40, 86_400))

    def beat(times: int) -> dict[str, int]:
        for number in range(times):
            for agent, api in fleet:
                body = {**next(news), "uptime_s": number, "active": running}
                assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body).status_code == 200
                assert api.get(f"/api/v1/agents/{agent.pk}/deployment").status_code == 200
        run_periodic_jobs(run_jobs, next(ticks))
        return row_counts()

    first = beat(BEATS)
    second = beat(BEATS)

    assert first["fleet_heartbeat"] == len(fleet)
    assert first["fleet_runninginterval"] >= len(fleet)
    assert {table: (first[table], now) for table, now in second.items() if now > first[table]} == {}
