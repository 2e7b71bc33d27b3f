"""The console benchmark: each page with 100,000 agents and a million artifacts and events, and with far fewer."""

from __future__ import annotations

import logging
import statistics
import time
from typing import Any

from django.db import connection, models
from django.test.utils import CaptureQueriesContext, setup_test_environment, teardown_test_environment

from tests.bench.results import Row
from tests.bench.serving import analyze

MOST_MS, MOST_GROWTH = 100, 3.0
_NAMED = 5  # how many of the slowest pages the notes of the results name
_FEW = 3  # timed requests for each page
_SLOWEST = 20  # how many of the pages with the longest medians are requested more often
_SAMPLES = 40  # the minimum number of requests for each of these pages
LARGE = {"agents": 100_000, "artifacts": 1_000_000, "events": 1_000_000, "replays": 20_000}
SMALL = {"agents": 1000, "artifacts": 1000, "events": 1000, "replays": 100}
# The state of the fleet: a tenth is stale, a thousandth has drift, a hundredth is degraded.
_AGENTS = """
CREATE TEMPORARY TABLE made AS
    SELECT id, substr(name, 7)::int AS n FROM fleet_agent
    WHERE environment_id = %(environment)s AND name LIKE 'agent-%%';
INSERT INTO fleet_heartbeat (agent_id, last_seen_at, next_heartbeat_s, status, agent_version, report,
        running_bundle_hash, running_since, commands, superseded_boots)
    SELECT id, now() - CASE WHEN n %% 10 = 0 THEN interval '4 hours' ELSE interval '1 second' END, 3600,
        CASE WHEN n %% 100 = 1 THEN 'degraded' ELSE 'healthy' END, '1', '{}', %(bundle)s, now(), '{}', '{}' FROM made;
INSERT INTO fleet_assignment (agent_id, deployment_id, bundle_deployment_id, action, bundle_hash, since, progress,
        failed_detail)
    SELECT id, %(deployment)s, %(deployment)s, 'activate',
        CASE WHEN n %% 1000 = 2 THEN 'sha256:b' ELSE %(bundle)s END, now(), 'active', '' FROM made;
INSERT INTO releases_deploymentagent (deployment_id, agent_id, wave, counted, action, progress, detail, updated_at)
    SELECT %(deployment)s, id, n %% 3, true, 'activate',
        CASE WHEN n %% 1000 = 2 THEN 'failed' ELSE 'active' END, '', now() FROM made;
INSERT INTO releases_agentreport (id, created_at, deployment_id, agent_id, status, bundle_hash, detail, accepted,
        count, last_at)
    SELECT uuidv7(), now(), %(deployment)s, id, 'active', %(bundle)s, '', true, 1, now() FROM made;
DROP TABLE made;
"""


def _copy(row: models.Model, count: int, **values: str) -> None:
    """Insert copies of a row. ``values`` maps columns to SQL expressions, in which ``n`` is the number of the copy."""
    table, fields = row._meta.db_table, row._meta.local_concrete_fields
    if isinstance(row._meta.pk, models.UUIDField):
        values.setdefault("id", "uuidv7()")
    names = [str(field.column) for field in fields if not isinstance(field, models.BigAutoField)]
    chosen = ", ".join(values.get(name, f"t.{name}") for name in names).replace("%", "%%")
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(names)})"
            f" SELECT {chosen} FROM {table} AS t, generate_series(1, %s) AS n WHERE t.{row._meta.pk.column} = %s",
            [count, row.pk],
        )


def fill(world: Any, *, agents: int, artifacts: int, events: int, replays: int) -> None:
    """Fill one environment with these numbers of rows, and the other console tables with a few rows."""
    from apps.fleet.models import Agent
    from apps.fleet.services import facts
    from apps.releases.services import progress
    from apps.tenancy.models import AuditEvent, AuditSeal, Environment
    from apps.tenancy.services import ledger, usage
    from tests.browser.filled import fill as fill_tables

    made = fill_tables(world)
    environment, deployment = made.deployment.environment, made.deployment
    Environment.objects.filter(pk=environment.pk).update(settings={"heartbeat_interval_s": 3600})
    _copy(
        made.agent, agents, name="'agent-' || n", hostname="'host-' || n",
        labels="jsonb_build_object('zone', 'z' || n % 10, 'rack', 'r' || n % 500)",
    )  # fmt: skip
    found = {"environment": environment.pk, "deployment": deployment.pk, "bundle": deployment.bundle_hash}
    with connection.cursor() as cursor:
        for statement in filter(str.strip, _AGENTS.split(";")):
            cursor.execute(statement, found)
    some = [str(pk) for pk in Agent.objects.filter(environment=environment).values_list("pk", flat=True)[:500]]
    _copy(
        made.artifact, artifacts, content_hash="'sha256:' || md5(n::text) || md5('x' || n)",
        agent_id=f"('{{{','.join(some)}}}'::uuid[])[n % {len(some)} + 1]",
        kind="CASE n % 4 WHEN 0 THEN 'incident_bundle' WHEN 1 THEN 'snapshot' ELSE 'telemetry' END",
        status="CASE WHEN n % 100000 = 7 THEN 'rejected' ELSE 'verified' END",
        captured_at="now() - n * interval '1 second'",
    )  # fmt: skip
    _copy(
        made.replay, replays, status="CASE WHEN n % 1000 = 7 THEN 'diverged' ELSE 'succeeded' END", finished_at="now()"
    )
    event = AuditEvent.objects.filter(environment_id=environment.pk).latest("id")
    while ledger.seal_chain(world.organization.pk):
        pass
    _copy(
        event, events, action="'kind' || n % 20 || '.change'", actor_id="'actor-' || n % 100",
        actor_display="'person' || n % 100 || '@bench.example'", resource_id="md5(n::text)",
        outcome="CASE WHEN n % 100000 = 7 THEN 'denied' ELSE 'success' END",
    )  # fmt: skip
    last = AuditSeal.objects.filter(organization=world.organization).latest("seq")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tenancy_auditseal (organization_id, seq, event_id, prev_hash, hash)"
            " SELECT organization_id, %s + row_number() OVER (ORDER BY id), id, md5(id::text), md5('x' || id::text)"
            " FROM tenancy_auditevent WHERE organization_id = %s"
            " AND NOT EXISTS (SELECT FROM tenancy_auditseal AS seal WHERE seal.event_id = tenancy_auditevent.id)",
            [last.seq, world.organization.pk],
        )
    # Run the periodic jobs that replace changes of counts with their sums. Otherwise, pages would sum up all changes.
    facts.maintain()
    usage.count_use()
    progress.sum_up()


def run(*, rounds: int, large: int = LARGE["agents"]) -> list[Row]:
    """Return the longest p95, the highest number of queries, and the ratio of the times at both sizes."""
    from tests.browser.every_page import MOST_QUERIES
    from tests.worlds import World

    logging.disable(logging.INFO)
    share = large / LARGE["agents"]
    worlds = {"small": World("small"), "large": World("large")}
    fill(worlds["small"], **SMALL)
    fill(worlds["large"], **{name: max(1000, int(count * share)) for name, count in LARGE.items()})
    analyze()
    found = {name: _measure(worlds[name], max(rounds, _SAMPLES)) for name in ("large", "small")}
    slow = sorted(found["large"].items(), key=lambda item: -item[1][0])
    # Compare the pages that exist at both sizes, without filters that exist only at one size.
    alike = found["large"].keys() & found["small"].keys()
    totals = {name: sum(pages[page][0] for page in alike) for name, pages in found.items()}
    most = max(found["large"].items(), key=lambda item: item[1][1])
    return [
        Row(
            f"p95 of the slowest of {len(slow)} pages of the console", slow[0][1][0], MOST_MS, " ms", is_most=True,
            note=", ".join(page for page, _ in slow[:_NAMED]), measured={page: round(ms, 1) for page, (ms, _) in slow},
        ),
        Row("most queries of one of these pages", most[1][1], MOST_QUERIES, is_most=True, note=most[0]),
        Row(
            f"{len(alike)} pages at {large:,} agents / at {SMALL['agents']:,}", totals["large"] / totals["small"],
            MOST_GROWTH, is_most=True, measured={name: round(ms) for name, ms in totals.items()},
        ),
    ]  # fmt: skip


def _measure(world: Any, requests: int) -> dict[str, tuple[float, int]]:
    """Return the p95 in milliseconds and the number of queries of each page for an administrator.

    Also print the slowest pages. ``requests`` is the number of timed requests for each page with one of the longest
    medians.
    """
    from tests.browser.every_page import walk
    from tests.browser.filled import signed_in

    setup_test_environment()  # the walk needs the contexts of the templates, which are slow to record
    pages = dict(walk(world.admin.user))
    teardown_test_environment()
    client = signed_in(world.admin.user)
    counts: dict[str, int] = {}
    times: dict[str, list[float]] = {}
    for page, url in pages.items():
        client.get(url)  # fills the caches of the process
        with CaptureQueriesContext(connection) as queries:
            client.get(url)
            counts[page] = len(queries)  # the next request empties the log
        times[page] = [_time(client, url) for _ in range(_FEW)]
    by_median = sorted(times, key=lambda page: -statistics.median(times[page]))
    for page in by_median[:_SLOWEST]:
        times[page] = [_time(client, pages[page]) for _ in range(requests)]
    found = {page: statistics.quantiles(each, n=20, method="inclusive")[-1] for page, each in times.items()}
    for page in sorted(found, key=lambda page: -found[page])[:_SLOWEST]:
        print(
            f"  console    {world.name:<6} {page:<50} {found[page]:6.0f} ms at p95, {counts[page]} queries", flush=True
        )
    empty = statistics.median(_time(client, "/healthz") for _ in range(requests))
    print(f"  console    {world.name:<6} {'/healthz, for comparison':<50} {empty:6.2f} ms", flush=True)
    return {page: (found[page], counts[page]) for page in pages}


def _time(client: Any, url: str) -> float:
    """Return the milliseconds of one request."""
    began = time.perf_counter()
    client.get(url)
    return 1000 * (time.perf_counter() - began)
