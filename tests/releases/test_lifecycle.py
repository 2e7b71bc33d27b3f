"""A deployment from its creation to its rollback, through the API."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apps.releases.models import Deployment
from tests.worlds import World, plan, report

pytestmark = pytest.mark.django_db


def test_deployment_can_be_created_activated_and_rolled_back(world: World, run_jobs: Callable[[], int]) -> None:
    agent, agent_api = world.agent(world.prod)
    first = world.bundle(world.prod, "first")
    path = world.path(world.prod, "/deployments")

    created = world.operator.api.post(path, {"config_bundle_id": str(first.pk), "target": {"all": True}})

    assert created.status_code == 201, created.json()
    body = created.json()
    assert body["status"] == "pending_approval"
    decided = world.reviewer.api.post(
        world.path(world.prod, "/approvals"), {"deployment_id": body["id"], "decision": "approve"}
    )
    assert decided.status_code == 201, decided.json()
    assert decided.json()["status"] == "approved"
    run_jobs()
    deployment = Deployment.objects.get(pk=body["id"])
    assert deployment.status == "deploying"
    for status in ("downloading", "activating", "active"):
        assert report(agent_api, agent, status).status_code == 200
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, deployment.is_current) == ("active", True)

    second = world.bundle(
        world.prod,
        "second",
        version=world.version(world.prod, plan(stages=[{"id": "only", "op": "identity"}])),
    )
    later = world.operator.api.post(path, {"config_bundle_id": str(second.pk), "target": {"all": True}}).json()
    world.reviewer.api.post(world.path(world.prod, "/approvals"), {"deployment_id": later["id"], "decision": "approve"})
    run_jobs()
    report(agent_api, agent, "active")
    run_jobs()
    rolled = world.operator.api.post(f"{path}/{later['id']}/rollback", {"reason": "latency"})
    assert rolled.status_code == 200, rolled.json()
    assert rolled.json()["status"] == "rolling_back"
    desired = agent_api.get(f"/api/v1/agents/{agent.pk}/deployment").json()["desired"]
    assert desired["action"] == "rollback"
    assert desired["bundle_hash"] == deployment.bundle_hash
    assert report(agent_api, agent, "rolled_back").status_code == 200
    run_jobs()
    deployment.refresh_from_db()
    assert deployment.is_current
    assert Deployment.objects.get(pk=later["id"]).status == "rolled_back"
