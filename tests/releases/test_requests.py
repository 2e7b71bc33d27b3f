"""Creation of deployments: stored values, and refused requests. Also the filters of the list of deployments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.fleet.models import Assignment
from apps.fleet.services import agents as fleet
from apps.releases.models import Approval, Deployment, TimelineEntry
from apps.releases.services import bundles as bundle_services
from apps.tenancy.models import AuditEvent, Environment
from byteor_cloud.ids import uuid7
from tests.releases import stories
from tests.worlds import ALL, World, plan

pytestmark = pytest.mark.django_db


def request(world: World, environment: Environment | None = None, **body: Any) -> Any:
    if "config_bundle_id" not in body:
        body["config_bundle_id"] = str(world.bundle(environment).pk)
    body.setdefault("target", ALL)
    return world.operator.api.post(world.path(environment, "/deployments"), body)


def refused(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response.json()["type"]) == (status, f"urn:byteor:problem:{code}"), response.json()
    assert (Deployment.objects.count(), Approval.objects.count(), TimelineEntry.objects.count()) == (0, 0, 0)
    assert not AuditEvent.objects.filter(action__in=["deployment.create", "approval.request"]).exists()


def window(start: timedelta, end: timedelta) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "start": (now + start).isoformat(), "end": (now + end).isoformat(), "time_zone": "UTC", "reason": "year end",
    }  # fmt: skip


NOW = window(timedelta(hours=-1), timedelta(hours=1))
LATER = window(timedelta(hours=1), timedelta(hours=2))


def test_deployment_is_approved_if_no_approval_is_required(world: World) -> None:
    (agent, _), *_ = stories.fleet(world, 2)
    bundle = world.bundle()

    created = request(world, config_bundle_id=str(bundle.pk), note="first")

    assert created.status_code == 201
    body = created.json()
    expected = {
        "status": "approved", "config_bundle_id": str(bundle.pk), "version_id": str(bundle.version_id),
        "pipeline": "quotes", "spec_hash": bundle.version.spec_hash, "config_hash": bundle.config_hash,
        "bundle_hash": None, "bundle_size": None, "target": {"all": True}, "target_count": 2,
        "strategy": {"kind": "all_at_once", "failure_threshold_percent": 0, "auto_rollback": False},
        "take_over": False, "wave": 0, "is_current": False, "superseded_by": None, "paused_at": None,
        "approval_id": None, "approved_at": None, "requested_by": world.operator.user.email, "reason": "",
        "note": "first",
    }  # fmt: skip
    assert {name: body[name] for name in expected} == expected
    assert body["progress"]["total"] == 0
    assert created["Location"] == world.path(rest=f"/deployments/{body['id']}")
    event = AuditEvent.objects.get(action="deployment.create")
    assert (event.resource_id, event.actor_id) == (body["id"], str(world.operator.user.pk))
    assert TimelineEntry.objects.get().event == "create"
    assert stories.desired(agent) == (None, None)


def test_deployment_that_needs_approval_creates_approval_with_details_of_deployment(world: World) -> None:
    (agent, _), *_ = stories.fleet(world, 2, world.prod)
    target = {"agents": [str(agent.pk)]}
    strategy = {"kind": "waves", "percents": [50, 100], "holds": [None, "approval"]}

    body = request(world, world.prod, target=target, strategy=strategy).json()

    assert body["status"] == "pending_approval"
    approval = world.viewer.api.get(world.path(world.prod, f"/approvals/{body['approval_id']}")).json()
    stored = {
        "kind": "waves", "percents": [50, 100], "holds": [None, "approval"], "pause_s": 0,
        "failure_threshold_percent": 0, "auto_rollback": True,
    }  # fmt: skip
    expected = {
        "status": "pending", "deployment_id": body["id"], "replay_id": None, "spec_hash": body["spec_hash"],
        "config_hash": body["config_hash"], "required_approvals": 1, "allow_self_approval": False, "decisions": [],
        "credential": None, "strategy": stored, "capabilities": ["deploy"],
        "target": {**target, "resolved": [str(agent.pk)], "count": 1},
    }  # fmt: skip
    assert {name: approval[name] for name in expected} == expected
    assert body["strategy"] == stored


def test_deployment_keeps_number_of_required_approvals_from_creation(world: World, run_jobs: Callable[[], int]) -> None:
    stories.fleet(world, 1, world.prod)
    created = request(world, world.prod).json()

    Environment.objects.filter(pk=world.prod.pk).update(settings={"required_approvals": 5})
    world.reviewer.api.post(
        world.path(world.prod, "/approvals"), {"deployment_id": created["id"], "decision": "approve"}
    )
    run_jobs()

    assert Deployment.objects.get().status == "deploying"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"target": {}}, "/target"),
        ({"target": {"all": False}}, "/target"),
        ({"target": {"selector": {}}}, "/target"),
        ({"target": {"all": True, "selector": {"a": "b"}}}, "/target"),
        ({"target": {"agents": []}}, "/target/agents"),
        ({"target": {"agents": ["x"]}}, "/target/agents/0"),
        ({"target": {"everyone": True}}, "/target/everyone"),
        ({"target": {"selector": {"zone": "nowhere"}}}, "/target"),
        ({"target": {"agents": [str(uuid7())]}}, "/target/agents"),
        ({"strategy": {"kind": "yolo"}}, "/strategy/kind"),
        ({"strategy": {"kind": "waves", "percents": [50, 20, 100]}}, "/strategy/percents"),
        ({"strategy": {"kind": "waves", "percents": [50, 50, 100]}}, "/strategy/percents"),
        ({"strategy": {"kind": "waves", "percents": [5, 25]}}, "/strategy/percents"),
        ({"strategy": {"kind": "waves", "percents": [0, 100]}}, "/strategy/percents/0"),
        ({"strategy": {"kind": "waves", "pause_s": -1}}, "/strategy/pause_s"),
        ({"strategy": {"kind": "all_at_once", "percents": [100]}}, "/strategy/percents"),
        ({"strategy": {"kind": "waves", "failure_threshold_percent": 101}}, "/strategy/failure_threshold_percent"),
        ({"override_freeze": {}}, "/override_freeze/reason"),
        ({"note": "x" * 2001}, "/note"),
        ({"statu": "active"}, "/statu"),
        ({"config_bundle_id": str(uuid7())}, "/config_bundle_id"),
        ({"config_bundle_id": 7}, "/config_bundle_id"),
    ],
)
def test_invalid_requests_return_field_errors(world: World, body: dict[str, Any], pointer: str) -> None:
    stories.fleet(world, 1)

    response = request(world, **body)

    refused(response, 400, "invalid")
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


def test_deployment_to_environment_without_agents_is_refused_as_empty_target(world: World) -> None:
    response = request(world)

    refused(response, 400, "invalid")
    assert response.json()["errors"][0]["code"] == "empty_target"


def test_target_with_decommissioned_agent_or_agent_of_another_environment_is_refused(world: World) -> None:
    (gone, _), *_ = stories.fleet(world, 2)
    fleet.decommission(gone, actor=world.admin.actor)
    foreign, _ = world.agent(world.staging)
    bundle = world.bundle()

    for agent in (gone, foreign):
        response = request(world, config_bundle_id=str(bundle.pk), target={"agents": [str(agent.pk)]})
        refused(response, 400, "invalid")
        assert response.json()["errors"][0]["pointer"] == "/target/agents"


def test_bundle_of_another_environment_is_refused(world: World) -> None:
    stories.fleet(world, 1)
    foreign = world.bundle(world.staging)

    response = request(world, config_bundle_id=str(foreign.pk))

    refused(response, 400, "invalid")
    assert response.json()["errors"] == [
        {
            "pointer": "/config_bundle_id",
            "code": "does_not_exist",
            "detail": "There is no such config bundle in this environment.",
        }
    ]


def test_known_bad_configuration_is_refused_until_cleared(world: World) -> None:
    stories.fleet(world, 1)
    bundle = world.bundle()
    bundle_services.mark_known_bad(world.dev, bundle.config_hash, reason="threshold", actor=world.admin.actor)

    refused(request(world, config_bundle_id=str(bundle.pk)), 409, "known_bad")

    bundle_services.clear_known_bad(bundle, reason="fixed", actor=world.admin.actor)
    assert request(world, config_bundle_id=str(bundle.pk)).status_code == 201


def test_freeze_window_is_overridden_only_on_request_of_org_admin(world: World) -> None:
    environment = world.environment("dev", "frozen", freeze_windows=[LATER, NOW])
    stories.fleet(world, 1, environment)
    bundle = world.bundle(environment)
    body = {"config_bundle_id": str(bundle.pk), "target": ALL}
    path = world.path(environment, "/deployments")

    refused(world.operator.api.post(path, body), 409, "freeze_window")
    refused(world.admin.api.post(path, body), 409, "freeze_window")
    override = {**body, "override_freeze": {"reason": "outage"}}
    refused(world.project_admin.api.post(path, override), 403, "forbidden")

    response = world.admin.api.post(path, override)

    assert response.status_code == 201
    assert "override_freeze" not in response.json()
    assert AuditEvent.objects.get(action="deployment.create").changes["override_freeze"] == "outage"


def test_deployment_can_be_requested_before_freeze_window_starts(world: World) -> None:
    environment = world.environment("dev", "frozen", freeze_windows=[LATER])
    stories.fleet(world, 1, environment)

    assert request(world, environment).status_code == 201


def test_in_flight_limit_defaults_to_one(world: World) -> None:
    stories.fleet(world, 1)
    two = world.environment("dev", "two", max_in_flight_deployments=2)
    stories.fleet(world, 1, two)

    def statuses(environment: Environment) -> list[int]:
        found = stories.bundles(world, 3, environment)
        return [request(world, environment, config_bundle_id=str(bundle.pk)).status_code for bundle in found]

    assert statuses(world.dev) == [201, 409, 409]
    assert statuses(two) == [201, 201, 409]
    assert Deployment.objects.count() == 3


def test_deployment_waiting_for_approval_is_not_in_flight(world: World) -> None:
    stories.fleet(world, 1, world.prod)

    responses = [
        request(world, world.prod, config_bundle_id=str(bundle.pk)) for bundle in stories.bundles(world, 2, world.prod)
    ]

    assert [response.json()["status"] for response in responses] == ["pending_approval", "pending_approval"]


def test_target_with_agents_of_another_pipeline_is_refused_without_take_over(
    world: World, run_jobs: Callable[[], int]
) -> None:
    agents = stories.fleet(world, 2)
    first = stories.active(world, world.bundle(name="first"), agents)
    other = world.bundle(name="other", version=world.version(content=plan("trades")))
    body = {"config_bundle_id": str(other.pk), "target": {"agents": [str(agents[0][0].pk)]}}
    path = world.path(rest="/deployments")

    response = world.operator.api.post(path, body)

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:take_over")
    assert "quotes" in response.json()["detail"]
    assert Deployment.objects.count() == 1

    taken = world.operator.api.post(path, {**body, "take_over": True})

    assert taken.status_code == 201
    run_jobs()
    desired = [stories.desired(agent)[0] for agent, _ in agents]
    assert [str(pk) for pk in desired] == [taken.json()["id"], str(first.pk)]


def test_selector_matches_agents_with_all_labels(world: World, run_jobs: Callable[[], int]) -> None:
    hit, _ = world.agent(name="hit", zone="a", tier="edge")
    miss, _ = world.agent(name="miss", zone="a")

    body = request(world, target={"selector": {"zone": "a", "tier": "edge"}}).json()
    run_jobs()

    assert body["target_count"] == 1
    assert str(stories.desired(hit)[0]) == body["id"]
    assert stories.desired(miss) == (None, None)


def test_viewers_cannot_create_deployments(world: World) -> None:
    stories.fleet(world, 1)
    bundle = world.bundle()

    response = world.viewer.api.post(
        world.path(rest="/deployments"), {"config_bundle_id": str(bundle.pk), "target": ALL}
    )

    refused(response, 403, "forbidden")


def test_requests_with_same_idempotency_key_create_one_deployment(world: World) -> None:
    stories.fleet(world, 1)
    body = {"config_bundle_id": str(world.bundle().pk), "target": ALL}

    first, second = (
        world.operator.api.post(world.path(rest="/deployments"), body, Idempotency_Key="k-1") for _ in range(2)
    )

    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert (second["Idempotent-Replayed"], Deployment.objects.count()) == ("true", 1)


def test_deployments_can_be_filtered_by_status_pipeline_and_bundle(world: World, run_jobs: Callable[[], int]) -> None:
    _, (_, two), (first,) = stories.running(world, 1)
    second = world.deployment(two)
    path = world.path(rest="/deployments")

    def found(query: str) -> list[str]:
        return [row["id"] for row in world.viewer.api.get(f"{path}?{query}").json()["results"]]

    assert found("") == [str(second.pk), str(first.pk)]
    assert found("status=approved") == [str(second.pk)]
    assert found("is_current=true") == [str(first.pk)]
    assert found("pipeline=quotes&status=active") == [str(first.pk)]
    assert found(f"config_bundle_id={two.pk}") == [str(second.pk)]
    assert found("pipeline=trades") == []
    run_jobs()


def test_nothing_is_offered_before_worker_runs(world: World) -> None:
    (agent, _), *_ = stories.fleet(world, 1)

    world.deployment(world.bundle())

    assert Assignment.objects.get(agent=agent).bundle_hash is None
