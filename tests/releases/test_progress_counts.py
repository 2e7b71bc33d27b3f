"""The counts of a deployment's agents, which triggers maintain, always equal a count of the agents' rows."""

from __future__ import annotations

import importlib
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import Count, Sum
from django.test.utils import CaptureQueriesContext

from apps.fleet.models import Agent
from apps.releases.models import Deployment, DeploymentAgent, ProgressCount
from apps.releases.services import assignments, progress
from byteor.engine.machines import AgentProgress
from tests.patience import PATIENCE_S
from tests.races import Race
from tests.releases import stories
from tests.worlds import Api, World, report

pytestmark = pytest.mark.django_db
BY = ("deployment_id", "wave", "counted", "progress")


def assert_exact() -> None:
    """Assert that the counts agree with the agents' rows, however many rows store the counts."""
    rows = DeploymentAgent.objects.order_by().values_list(*BY).annotate(n=Count("pk"))
    kept = ProgressCount.objects.order_by().values_list(*BY).annotate(n=Sum("count"))
    assert sorted(kept.exclude(n=0), key=repr) == sorted(rows, key=repr)


def listed(world: World) -> list[dict[str, int]]:
    return [row["progress"] for row in world.viewer.api.get(world.path(rest="/deployments")).json()["results"]]


def test_agent_counts_of_deployment_are_shown_without_reading_its_agents(
    world: World, run_jobs: Callable[[], int]
) -> None:
    agents = stories.fleet(world, 3)
    nothing = dict.fromkeys(("total", *AgentProgress), 0)
    deployment = world.deployment(world.bundle(), strategy=stories.waves(34, 100))
    assert listed(world) == [nothing]
    run_jobs()
    for agent, api in agents[:2]:
        assert report(api, agent, "downloading").status_code == 200

    for summed in (False, True):
        if summed:
            progress.sum_up()
        with CaptureQueriesContext(connection) as queries:
            assert listed(world) == [{**nothing, "total": 3, "downloading": 2, "pending": 1}]
            counted = progress.count_agents(deployment)
        by_wave = {(0, "downloading"): 2, (1, "pending"): 1}
        assert counted == progress.AgentCounts(by_wave, 0, by_wave)
        assert counted.by_progress == {"downloading": 2, "pending": 1}
        assert "releases_deploymentagent" not in str(queries.captured_queries)
    assert sorted(ProgressCount.objects.values_list("count", "is_sum")) == [(1, True), (2, True)]


def test_unchanged_progress_counts_are_not_summed_again(world: World) -> None:
    stories.fleet(world, 2)
    stories.offered(world, world.bundle())
    progress.sum_up()
    before = [*ProgressCount.objects.values()]

    with CaptureQueriesContext(connection) as queries:
        progress.sum_up()

    assert (len(queries), [*ProgressCount.objects.values()]) == (1, before)


def test_deleted_agents_deployments_and_environments_leave_no_progress_counts(world: World) -> None:
    (first, _), *_ = stories.fleet(world, 3)
    bundle = world.bundle()
    deployment = stories.offered(world, bundle)
    progress.sum_up()

    Agent.objects.filter(pk=first.pk).delete()
    assert_exact()
    assert progress.count_agents(deployment).by_progress == {"offered": 2}
    deployment.delete()
    assert not ProgressCount.objects.exists()

    stories.offered(world, bundle)
    world.dev.delete()
    assert not ProgressCount.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_progress_counts_stay_exact_during_reports_and_summing(world: World, concurrently: Race) -> None:
    agents = stories.fleet(world, 5)
    deployment = stories.offered(world, world.bundle())

    def act(agent: Agent, api: Api, last: str) -> None:
        for status in ("downloading", "activating", last):
            assert report(api, agent, status).status_code == 200

    def offer_more() -> None:
        """Repeatedly insert another deployment with its agents and delete it."""
        for _ in range(4):
            with transaction.atomic():
                other = Deployment.objects.get(pk=deployment.pk)
                other.pk, other._state.adding, other.approval_id, other.is_current = None, True, None, False
                other.save(force_insert=True)
                rows = [DeploymentAgent(deployment=other, agent=agent, wave=1) for agent, _ in agents]
                DeploymentAgent.objects.bulk_create(rows)
            other.delete()

    def sum_up() -> None:
        for _ in range(10):
            progress.sum_up()

    lasts = ("active", "failed", "active", "active", "failed")
    calls = [partial(act, *each, last) for each, last in zip(agents, lasts, strict=True)]

    assert concurrently(*calls, offer_more, sum_up, sum_up) == [None] * 8
    assert_exact()
    assert progress.count_agents(deployment).by_progress == {"active": 3, "failed": 2}
    progress.sum_up()
    assert_exact()
    assert ProgressCount.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_uncommitted_report_blocks_neither_other_reports_nor_summing_of_progress_counts(
    world: World, concurrently: Race
) -> None:
    (one, _), (two, two_api) = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle())
    progress.sum_up()
    reported, finished = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            assignment = one.assignment
            assignments.record_report(deployment, assignment, AgentProgress.ACTIVATING, detail="", tuning=None)
            reported.set()
            assert finished.wait(PATIENCE_S)

    def meet() -> None:
        assert reported.wait(PATIENCE_S)
        assert report(two_api, two, "downloading").status_code == 200
        progress.sum_up()
        finished.set()

    assert concurrently(hold, meet) == [None, None]
    assert progress.count_agents(deployment).by_progress == {"activating": 1, "downloading": 1}


def test_migration_writes_same_progress_counts_as_triggers(world: World) -> None:
    (agent, api), *_ = stories.fleet(world, 3)
    stories.offered(world, world.bundle(), strategy=stories.waves(50, 100))
    report(api, agent, "active")
    progress.sum_up()

    def rows() -> list[Any]:
        return sorted(ProgressCount.objects.values_list(*BY, "count", "is_sum"), key=repr)

    kept = rows()
    assert Counter(row[3] for row in kept) == {"active": 1, "offered": 1, "pending": 1}
    ProgressCount.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute(importlib.import_module("apps.releases.migrations.0008_progress_counts").PRESENT)

    assert rows() == kept
