"""The history of agents, the state of a fleet at a given time, and the summary of a fleet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.fleet.models import Agent, Heartbeat
from apps.fleet.services import agents as fleet
from apps.releases.models import Deployment
from byteor.engine.canonical import format_time
from byteor_cloud.ids import uuid7
from tests.releases import stories
from tests.worlds import Api, World, report, run_jobs

pytestmark = pytest.mark.django_db
STRANGE, SPEC = (f"sha256:{digit * 64}" for digit in "ab")
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
MOST_QUERIES = 9


def at(minute: float) -> str:
    """Return the time ``minute`` minutes after noon, in the format of query parameters."""
    return format_time(NOON + timedelta(minutes=minute))


def store(agent: Agent, minute: float, bundle: str | None, deployment: Any = None) -> None:
    """Store a heartbeat that was received ``minute`` minutes after noon."""
    Heartbeat.objects.filter(agent=agent).update(
        last_seen_at=NOON + timedelta(minutes=minute),
        running_bundle_hash=bundle,
        running_deployment_id=deployment and deployment.pk,
        running_spec_hash=bundle and SPEC,
    )


def old_agent(world: World, environment: Any = None, name: str = "agent", **labels: str) -> tuple[Agent, Api]:
    """Enroll an agent an hour before noon."""
    agent, api = world.agent(environment, name, **labels)
    Agent.objects.filter(pk=agent.pk).update(created_at=NOON - timedelta(hours=1))
    return agent, api


def read(world: World, rest: str, environment: Any = None) -> list[dict[str, Any]]:
    response = world.viewer.api.get(world.path(environment, rest))
    assert response.status_code == 200, response.json()
    rows: list[dict[str, Any]] = response.json()["results"]
    return rows


def approved(world: World, agent: Agent, api: Api) -> Deployment:
    """Create a deployment to prod that the reviewer approves and the agent activates."""
    deployment = world.deployment(world.bundle(world.prod))
    decision = {"deployment_id": str(deployment.pk), "decision": "approve"}
    assert world.reviewer.api.post(world.path(world.prod, "/approvals"), decision).status_code == 201
    run_jobs()
    assert report(api, agent, "active").status_code == 200
    run_jobs()
    deployment.refresh_from_db()
    return deployment


def test_history_shows_deployment_and_approver(world: World) -> None:
    agent, api = old_agent(world, world.prod, "edge")
    deployment = approved(world, agent, api)
    store(agent, 0, deployment.bundle_hash, deployment)
    store(agent, 5, deployment.bundle_hash, deployment)
    store(agent, 10, STRANGE)

    later, earlier = read(world, f"/agents/{agent.pk}/history", world.prod)

    assert deployment.approval is not None
    assert list(earlier.items()) == [
        ("agent_id", str(agent.pk)),
        ("agent_name", "edge"),
        ("from", at(0)),
        ("to", at(10)),
        ("confirmed_until", at(5)),
        ("deployment_id", str(deployment.pk)),
        ("bundle_hash", deployment.bundle_hash),
        ("spec_hash", SPEC),
        ("version_id", str(deployment.config_bundle.version_id)),
        ("config_bundle_id", str(deployment.config_bundle_id)),
        ("approval_id", str(deployment.approval.pk)),
        ("approved_by", [world.reviewer.user.email]),
    ]
    nothing = dict.fromkeys(("to", "deployment_id", "version_id", "config_bundle_id", "approval_id"))
    assert later == {**earlier, **nothing, "from": at(10), "confirmed_until": at(10), "bundle_hash": STRANGE,
                     "approved_by": []}  # fmt: skip


def test_open_interval_is_confirmed_by_each_heartbeat(world: World) -> None:
    agent, _ = old_agent(world)
    store(agent, 0, STRANGE)
    for minute in (1, 2):
        store(agent, minute, STRANGE)

        (row,) = read(world, f"/agents/{agent.pk}/history")

        assert (row["from"], row["to"], row["confirmed_until"]) == (at(0), None, at(minute))


def test_history_after_rollback_shows_deployment_that_built_bundle(world: World) -> None:
    agents, (one, _), (old, new) = stories.running(world, 1, 2)

    store(agents[0][0], 0, old.bundle_hash, new)  # as after a rollback of ``new``

    (row,) = read(world, f"/agents/{agents[0][0].pk}/history")
    assert (row["deployment_id"], row["config_bundle_id"]) == (str(old.pk), str(one.pk))


def test_history_shows_null_instead_of_ids_from_another_environment(world: World) -> None:
    here, _ = old_agent(world)
    there = stories.active(world, world.bundle(world.staging), stories.fleet(world, 1, world.staging))
    store(here, 0, there.bundle_hash, there)

    (row,) = read(world, f"/agents/{here.pk}/history")

    assert [row[name] for name in ("deployment_id", "version_id", "config_bundle_id", "approval_id")] == [None] * 4


def test_reported_deployment_is_shown_for_unknown_bundle(world: World) -> None:
    agent, _ = old_agent(world)
    deployment = stories.offered(world, world.bundle())
    store(agent, 0, STRANGE, deployment)

    (row,) = read(world, f"/agents/{agent.pk}/history")

    assert (row["deployment_id"], row["version_id"]) == (str(deployment.pk), str(deployment.config_bundle.version_id))


@pytest.mark.parametrize(
    ("query", "starts"),
    [
        ("", [20, 10, 0]),
        (f"since={at(10)}", [20, 10]),
        (f"since={at(12)}", [20, 10]),
        (f"since={at(15)}", [20]),
        (f"since={at(60)}", [20]),
        (f"until={at(0)}", []),
        (f"until={at(10)}", [0]),
        (f"until={at(11)}", [10, 0]),
        (f"since={at(12)}&until={at(20)}", [10]),
        (f"since={at(16)}&until={at(19)}", []),
        ("limit=1", [20]),
    ],
)
def test_history_can_be_limited_by_time_range_and_row_count(world: World, query: str, starts: list[int]) -> None:
    agent, _ = old_agent(world)
    for minute, bundle in ((0, STRANGE), (10, SPEC), (15, None), (20, STRANGE)):
        store(agent, minute, bundle)

    found = read(world, f"/agents/{agent.pk}/history?{query}")

    assert [row["from"] for row in found] == [at(minute) for minute in starts]


def test_fleet_state_shows_what_each_agent_ran_at_given_time(world: World) -> None:
    one, _ = old_agent(world, None, "one")
    two, _ = old_agent(world, None, "two")
    elsewhere, _ = old_agent(world, world.staging, "elsewhere")
    for agent, minute, bundle in (
        (one, 0, STRANGE),
        (elsewhere, 0, STRANGE),
        (two, 10, STRANGE),
        (one, 20, SPEC),
        (two, 30, None),
    ):
        store(agent, minute, bundle)

    def state(query: str) -> list[tuple[str, str]]:
        return [(row["agent_name"], row["bundle_hash"]) for row in read(world, f"/fleet-state{query}")]

    assert state(f"?at={at(-1)}") == []
    assert state(f"?at={at(0)}") == [("one", STRANGE)]
    assert state(f"?at={at(19)}") == [("two", STRANGE), ("one", STRANGE)]
    assert state(f"?at={at(20)}") == [("two", STRANGE), ("one", SPEC)]
    assert state(f"?at={at(30)}") == state("") == [("one", SPEC)]
    assert state(f"?at={at(19)}&limit=1") == [("two", STRANGE)]


def test_history_and_fleet_state_include_decommissioned_agents(world: World) -> None:
    agent, _ = old_agent(world)
    store(agent, 0, STRANGE)
    fleet.decommission(agent, actor=world.admin.actor)

    rows = read(world, f"/agents/{agent.pk}/history")

    assert [(row["from"], row["to"], row["confirmed_until"]) for row in rows] == [(at(0), None, at(0))]
    assert read(world, "/fleet-state") == read(world, f"/fleet-state?at={at(1)}") == rows


def test_fleet_state_at_future_time_is_refused(world: World) -> None:
    later = format_time(timezone.now() + timedelta(minutes=1))

    response = world.viewer.api.get(world.path(rest=f"/fleet-state?at={later}"))

    assert (response.status_code, response.json()["errors"][0]["parameter"]) == (400, "at")


@pytest.mark.parametrize("rest", ["/agents/{agent}/history", "/fleet-state", "/agents/summary"])
def test_agents_of_other_organizations_and_environments_are_not_found(world: World, other: World, rest: str) -> None:
    agent, _ = old_agent(world)
    stranger, _ = old_agent(other)
    store(agent, 0, STRANGE)

    assert other.admin.api.get(world.path(rest=rest.format(agent=agent.pk))).status_code == 404
    assert world.admin.api.get(world.path(rest=f"/agents/{stranger.pk}/history")).status_code == 404
    assert world.admin.api.get(world.path(world.staging, f"/agents/{agent.pk}/history")).status_code == 404
    assert world.admin.api.get(world.path(rest=f"/agents/{uuid7()}/history")).status_code == 404
    assert read(other, "/fleet-state") == []


def test_summary_counts_agents_by_liveness_drift_status_version_and_label(world: World) -> None:
    agents = [world.agent(name=f"agent-{number}", zone="ab"[number % 2]) for number in range(3)]
    deployment = stories.active(world, world.bundle(), agents)
    version = deployment.config_bundle.version
    for agent, api in agents[:2]:
        active = {"deployment_id": str(deployment.pk), "bundle_hash": deployment.bundle_hash, "spec_hash": SPEC}
        body = {"status": "healthy", "agent_version": "1", "active": active}
        assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body).status_code == 200
    store(agents[1][0], 0, STRANGE)
    Heartbeat.objects.filter(agent=agents[0][0]).update(last_seen_at=timezone.now())

    response = world.viewer.api.get(world.path(rest="/agents/summary"))

    assert response.status_code == 200
    assert response.json() == {
        "total": 3,
        "liveness": {"online": 2, "stale": 0, "offline": 1},
        "drifted": 2,
        "cloned": 0,
        "status": {"starting": 0, "healthy": 2, "degraded": 0, "failed": 0, "draining": 0},
        "versions": [
            {"version_id": str(version.pk), "number": version.number, "pipeline": version.name, "count": 1},
            {"version_id": None, "number": None, "pipeline": None, "count": 1},
        ],
        "labels": {"zone": {"a": 2, "b": 1}},
    }


def test_summary_of_empty_environment_has_zero_counts(world: World) -> None:
    response = world.viewer.api.get(world.path(rest="/agents/summary")).json()

    assert (response["total"], response["drifted"], response["versions"], response["labels"]) == (0, 0, [], {})
    assert response["liveness"] == {"online": 0, "stale": 0, "offline": 0}


@pytest.mark.parametrize(
    "rest",
    [
        "/agents/summary", "/fleet-state", f"/fleet-state?at={at(1)}", "/agents", "/agents?liveness=online",
        "/agents?drifted=false", "/agents?label=zone&label=!tier&progress=pending", "/agents?name=agent&hostname=h",
    ],
)  # fmt: skip
def test_query_count_does_not_depend_on_agent_count(world: World, rest: str) -> None:
    path, counts = world.path(rest=rest), []
    for number in range(8):
        agent, _ = old_agent(world, None, f"agent-{number}", zone=str(number))
        Agent.objects.filter(pk=agent.pk).update(hostname=f"h-{number}")
        store(agent, 0, f"sha256:{number:064}")
        Heartbeat.objects.filter(agent=agent).update(last_seen_at=timezone.now())
        world.viewer.api.get(path)
        with CaptureQueriesContext(connection) as queries:
            response = world.viewer.api.get(path).json()
        assert response.get("total", len(response.get("results", ()))) == number + 1
        counts.append(len(queries))

    assert set(counts) == {counts[0]}
    assert counts[0] <= MOST_QUERIES
