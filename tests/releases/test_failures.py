"""Failures of agents: kept when agents are retried or rolled back, and shown by cause."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any
from uuid import UUID

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.fleet.models import Agent
from apps.releases.models import AgentFailure, Deployment, DeploymentAgent
from apps.releases.services import deployment_jobs
from apps.releases.services.failures import MAX_CAUSES
from tests.releases import stories
from tests.releases.stories import command, report_from_all, roll_back, state, waves
from tests.worlds import World, report

pytestmark = pytest.mark.django_db
NO_SPACE = "no space: {} of 4096 MB are free on /var/lib"


def get(world: World, deployment: Deployment, rest: str = "") -> Any:
    path = world.path(deployment.environment, f"/deployments/{deployment.pk}{rest}")
    response = world.viewer.api.get(path)
    assert response.status_code == 200, response.json()
    return response.json()


def failed_entries(deployment: Deployment) -> list[Any]:
    return [entry.detail for entry in deployment.timeline.filter(event="agents_failed").order_by("id")]


def test_rolled_back_deployment_shows_failed_agents_and_causes(world: World, run_jobs: Callable[[], int]) -> None:
    agents, (_, two), _ = stories.running(world, 8)
    # Three agents report two causes, and a fourth agent does not finish in time.
    deployment = stories.offered(world, two, strategy=waves(50, 100))
    for number in (0, 2):
        report(agents[number][1], agents[number][0], "failed", detail=NO_SPACE.format(number + 7))
    report(agents[1][1], agents[1][0], "failed", detail="cannot bind the port")
    stories.set_offered_ago(deployment, 601, agents[3][0])
    run_jobs()
    assert state(deployment) == ("rolling_back", "threshold")
    report_from_all(agents[:4], "rolled_back", run_jobs)
    assert state(deployment) == ("rolled_back", "threshold")

    shown = get(world, deployment)
    ids = [str(agent.pk) for agent, _ in agents]
    assert shown["failures"] == [
        {
            "reason": "reported", "detail": "no space: <number> of <number> MB are free on /var/lib", "count": 2,
            "agents": [ids[0], ids[2]],
        },
        {"reason": "reported", "detail": "cannot bind the port", "count": 1, "agents": [ids[1]]},
        {"reason": "timeout", "detail": "did not finish within <number> s", "count": 1, "agents": [ids[3]]},
    ]  # fmt: skip
    assert shown["progress"]["rolled_back"] == 4
    rows = {row["agent_id"]: row for row in get(world, deployment, "/agents")["results"]}
    assert [(rows[pk]["progress"], (rows[pk]["failure"] or {}).get("detail")) for pk in ids] == [
        ("rolled_back", NO_SPACE.format(7)),
        ("rolled_back", "cannot bind the port"),
        ("rolled_back", NO_SPACE.format(9)),
        ("rolled_back", "did not finish within 600 s"),
        *[("pending", None)] * 4,
    ]
    assert rows[ids[3]]["failure"].keys() == {"reason", "detail", "at"}
    for has_failure, number in (("true", 4), ("false", 4)):
        assert len(get(world, deployment, f"/agents?has_failure={has_failure}")["results"]) == number
    assert failed_entries(deployment) == [
        {
            "wave": 1,
            "failed": 4,
            "causes": [{name: each[name] for name in ("reason", "detail", "count")} for each in shown["failures"]],
        }
    ]
    assert stories.events(deployment) == [
        "create", "build", "offer", "agents_failed", "fail", "roll_back", "restore",
    ]  # fmt: skip
    # The list omits failures, because they would need a query for each deployment.
    (listed, _) = world.viewer.api.get(world.path(rest="/deployments")).json()["results"]
    assert (listed["id"], listed["failures"]) == (str(deployment.pk), None)


def test_retry_keeps_failure_until_next_failure(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 3)
    strategy = {"kind": "all_at_once", "failure_threshold_percent": 70, "auto_rollback": False}
    deployment = stories.offered(world, world.bundle(), strategy=strategy)
    (one, one_api), (two, two_api), _ = agents
    report(one_api, one, "failed", detail="no disk")
    report(two_api, two, "failed", detail="no memory")
    run_jobs()

    def details() -> dict[str, Any]:
        rows = get(world, deployment, "/agents")["results"]
        return {row["agent_name"]: row["failure"] and row["failure"]["detail"] for row in rows}

    assert command(world.operator.api, world, deployment, "retry").status_code == 200
    assert details() == {"agent-0": "no disk", "agent-1": "no memory", "agent-2": None}
    report(one_api, one, "active")
    report(two_api, two, "failed", detail="no descriptors")
    report(agents[2][1], agents[2][0], "active")
    run_jobs()

    assert state(deployment) == ("active", "")
    assert details() == {"agent-0": "no disk", "agent-1": "no descriptors", "agent-2": None}
    assert {each["detail"]: each["count"] for each in get(world, deployment)["failures"]} == {
        "no disk": 1, "no descriptors": 1,
    }  # fmt: skip
    # The timeline has an entry for the failures before the retry, and one for those after it.
    assert [[each["detail"] for each in entry["causes"]] for entry in failed_entries(deployment)] == [
        ["no disk", "no memory"], ["no descriptors"],
    ]  # fmt: skip
    first, retried, second = deployment.timeline.filter(event__in=["agents_failed", "retry"]).order_by("id")
    assert [first.event, retried.event, second.event] == ["agents_failed", "retry", "agents_failed"]


def test_failed_rollback_does_not_replace_failure_to_activate(world: World, run_jobs: Callable[[], int]) -> None:
    agents, (_, two), _ = stories.running(world, 2)
    deployment = stories.offered(world, two, strategy=waves(100, auto_rollback=True))
    (one, one_api), (other, other_api) = agents
    report(one_api, one, "failed", detail="no disk")
    report(other_api, other, "active")
    run_jobs()
    assert state(deployment)[0] == "rolling_back"
    report(one_api, one, "failed", detail="still no disk")
    stories.set_offered_ago(deployment, 601, other)
    deployment_jobs.enqueue_rollout_step(deployment.pk)
    run_jobs()

    assert state(deployment) == ("failed", "rollback_failed")
    causes = [(each["reason"], each["detail"], each["agents"]) for each in get(world, deployment)["failures"]]
    assert causes == [
        ("reported", "no disk", [str(one.pk)]),
        ("rollback_reported", "still no disk", [str(one.pk)]),
        ("rollback_timeout", "did not finish within <number> s", [str(other.pk)]),
    ]
    rows = get(world, deployment, "/agents")["results"]
    assert {row["agent_name"]: row["failure"]["reason"] for row in rows} == {
        "agent-0": "reported", "agent-1": "rollback_timeout",
    }  # fmt: skip
    assert [entry.get("wave") for entry in failed_entries(deployment)] == [1, None]
    # The second rollback keeps all failures.
    assert roll_back(world, deployment).status_code == 200
    report_from_all(agents, "rolled_back", run_jobs)
    assert state(deployment)[0] == "rolled_back"
    assert [(each["reason"], each["detail"]) for each in get(world, deployment)["failures"]] == [
        (reason, detail) for reason, detail, _ in causes
    ]


def test_failures_are_recorded_on_timeline_if_retry_or_abort_precedes_rollout_step(world: World) -> None:
    agents, (_, two), _ = stories.running(world, 2)
    strategy = {"kind": "all_at_once", "failure_threshold_percent": 50, "auto_rollback": False}
    deployment = stories.offered(world, two, strategy=strategy)
    report(agents[0][1], agents[0][0], "failed", detail="no disk")
    command(world.operator.api, world, deployment, "retry")
    report(agents[0][1], agents[0][0], "failed", detail="no memory")

    assert command(world.operator.api, world, deployment, "abort").status_code == 200

    assert stories.events(deployment)[3:] == ["agents_failed", "retry", "agents_failed", "abort"]
    assert [entry["causes"][0]["detail"] for entry in failed_entries(deployment)] == ["no disk", "no memory"]


def test_each_wave_without_retry_has_one_timeline_entry_for_its_failures(
    world: World, run_jobs: Callable[[], int]
) -> None:
    agents = stories.fleet(world, 6)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100, threshold=70))
    for place in (0, 1, 3, 4):
        report(agents[place][1], agents[place][0], "failed", detail=f"exit {place}")
        stories.run_sweep(run_jobs)
        if place in {1, 4}:
            report_from_all([agents[place + 1]], "active", run_jobs)

    assert state(deployment) == ("active", "")
    causes = [{"reason": "reported", "detail": "exit <number>", "count": 2}]
    assert failed_entries(deployment) == [
        {"wave": 1, "failed": 2, "causes": causes}, {"wave": 2, "failed": 2, "causes": causes},
    ]  # fmt: skip
    # Failures after the activation have a separate entry.
    command(world.operator.api, world, deployment, "retry")
    report(agents[0][1], agents[0][0], "failed", detail="exit 7")
    run_jobs()
    report(agents[3][1], agents[3][0], "failed", detail="exit 8")
    stories.run_sweep(run_jobs)
    assert failed_entries(deployment)[2:] == [{"failed": 2, "causes": causes}]


def test_late_joiner_keeps_failure_of_earlier_offer(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 2)
    strategy = {"kind": "all_at_once", "failure_threshold_percent": 50, "auto_rollback": False}
    deployment = stories.offered(world, world.bundle(), strategy=strategy)
    (one, one_api), other = agents
    report(one_api, one, "failed", detail="no disk")
    command(world.operator.api, world, deployment, "retry")
    command(world.operator.api, world, deployment, "abort")
    assert stories.progress(deployment) == ["pending", "pending"]
    world.operator.api.post(world.path(rest=f"/agents/{one.pk}/drain"), {})
    command(world.operator.api, world, deployment, "retry")
    run_jobs()
    report_from_all([other], "active", run_jobs)
    assert state(deployment) == ("active", "")

    world.operator.api.post(world.path(rest=f"/agents/{one.pk}/undrain"), {})
    run_jobs()

    assert get(world, deployment)["progress"] == {
        "total": 2, "offered": 1, "active": 1,
        **dict.fromkeys(("pending", "downloading", "activating", "failed", "rolled_back"), 0),
    }  # fmt: skip
    (row, _) = sorted(get(world, deployment, "/agents")["results"], key=lambda row: row["agent_name"])
    assert (row["progress"], row["counted"], row["failure"]["detail"]) == ("offered", False, "no disk")


def fail_many(world: World, count: int, detail: Callable[[int], str], cause: Callable[[int], str]) -> Deployment:
    """Create a deployment in which ``count`` agents have failed."""
    stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    agents = Agent.objects.bulk_create(Agent(environment=world.dev, name=f"edge-{n:05}") for n in range(count))
    parts = DeploymentAgent.objects.bulk_create(
        DeploymentAgent(deployment=deployment, agent=agent, wave=0, progress="failed") for agent in agents
    )
    AgentFailure.objects.bulk_create(
        AgentFailure(
            part=part, deployment=deployment, action="activate", reason="reported", at=timezone.now(),
            detail=detail(n), cause=cause(n),
        )
        for n, part in enumerate(parts)
    )  # fmt: skip
    return deployment


def test_listed_failure_causes_are_limited_and_their_counts_add_up_to_all_failures(world: World) -> None:
    total = 2 * MAX_CAUSES + 7
    deployment = fail_many(world, total, lambda n: f"cause {n}", lambda n: f"cause {'common' if n < 7 else n}")

    with CaptureQueriesContext(connection) as queries:
        found = get(world, deployment)["failures"]

    assert len(found) == MAX_CAUSES + 1
    assert (found[0]["detail"], found[0]["count"], len(found[0]["agents"])) == ("cause common", 7, 5)
    assert found[0]["agents"] == sorted(found[0]["agents"])
    assert all(UUID(pk) for pk in found[0]["agents"])
    assert found[-1] == {"reason": "other", "detail": "", "count": total - 7 - (MAX_CAUSES - 1), "agents": []}
    assert sum(each["count"] for each in found) == total
    assert len([query for query in queries if "agentfailure" in query["sql"]]) == 2
    with CaptureQueriesContext(connection) as queries:
        rows = get(world, deployment, "/agents?limit=100")["results"]
    assert len([row for row in rows if row["failure"]]) >= 99
    assert len([query for query in queries if "agentfailure" in query["sql"]]) == 1


def test_migration_finds_failures_of_earlier_deployments(world: World, run_jobs: Callable[[], int]) -> None:
    agents, (_, two), _ = stories.running(world, 3)
    deployment = stories.offered(world, two, strategy=waves(100))
    report(agents[0][1], agents[0][0], "failed", detail="exit 7")
    report(agents[1][1], agents[1][0], "active")
    report(agents[2][1], agents[2][0], "active")
    run_jobs()
    report(agents[0][1], agents[0][0], "failed", detail="exit 8")
    stories.set_offered_ago(deployment, 601, agents[1][0])
    report(agents[2][1], agents[2][0], "rolled_back")
    deployment_jobs.enqueue_rollout_step(deployment.pk)
    run_jobs()
    columns = ("part__agent__name", "action", "reason", "detail", "cause")
    recorded = set(AgentFailure.objects.values_list(*columns))
    assert recorded == {
        ("agent-0", "activate", "reported", "exit 7", "exit <number>"),
        ("agent-0", "rollback", "rollback_reported", "exit 8", "exit <number>"),
        ("agent-1", "rollback", "rollback_timeout", "did not finish within 600 s", "did not finish within <number> s"),
    }
    AgentFailure.objects.all().delete()

    migration = import_module("apps.releases.migrations.0012_agent_failures")
    with connection.cursor() as cursor:
        cursor.execute(migration.EARLIER)
    migration.find_causes(apps, None)

    assert set(AgentFailure.objects.values_list(*columns)) == recorded
