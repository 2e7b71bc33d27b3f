"""Break-glass deployments: who may create and approve them, how they are shown, and what happens without approval."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.fleet.models import Assignment
from apps.releases.models import Approval, Deployment
from apps.releases.services import bundles as bundle_services
from apps.releases.services import rollbacks
from apps.releases.tasks import sweep
from apps.tenancy.models import AuditEvent
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import tokens
from byteor.engine.signing.bundle import open_bundle
from byteor_cloud.storage import blobs
from tests.releases import stories
from tests.releases.stories import events, run_sweep
from tests.worlds import ALL, Api, Person, World, report

pytestmark = pytest.mark.django_db


def request_deployment(world: World, api: Api, bundle: Any, **body: Any) -> Any:
    glass = {"break_glass": {"reason": "the market is open"}}
    path = world.path(bundle.environment, "/deployments")
    return api.post(path, {"config_bundle_id": str(bundle.pk), "target": ALL, **glass, **body})


def deploy(world: World, bundle: Any, **body: Any) -> Deployment:
    response = request_deployment(world, world.admin.api, bundle, **body)
    assert response.status_code == 201, response.json()
    return Deployment.objects.get(pk=response.json()["id"])


def decide(world: World, person: Person, deployment: Deployment, decision: str = "approve", **body: Any) -> Any:
    path = world.path(deployment.environment, "/approvals")
    return person.api.post(path, {"deployment_id": str(deployment.pk), "decision": decision, **body})


def expire_approvals() -> None:
    Approval.objects.filter(status="pending").update(expires_at=timezone.now() - timedelta(seconds=1))
    sweep()


def before(world: World, run_jobs: Callable[[], int]) -> tuple[stories.Fleet, Deployment, Any]:
    """Return two agents in prod, the approved deployment that they run, and another config bundle."""
    agents = stories.fleet(world, 2, world.prod)
    first, second = stories.bundles(world, 2, world.prod)
    deployment = world.deployment(first)
    decide(world, world.reviewer, deployment)
    run_jobs()
    for agent, api in agents:
        report(api, agent, "active")
    run_jobs()
    deployment.refresh_from_db()
    assert deployment.is_current
    return agents, deployment, second


def test_break_glass_deployment_starts_without_approval_and_is_shown_as_break_glass(
    world: World, run_jobs: Callable[[], int]
) -> None:
    stories.fleet(world, 1, world.prod)

    deployment = deploy(world, world.bundle(world.prod))
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.approved_at) == ("deploying", None)
    shown = world.viewer.api.get(world.path(world.prod, f"/deployments/{deployment.pk}")).json()
    approval = Approval.objects.get()
    assert shown["break_glass"] == {
        "reason": "the market is open",
        "by": world.admin.user.email,
        "approve_by": approval.expires_at.isoformat().replace("+00:00", "Z"),
    }
    assert shown["approval_id"] == str(approval.pk)
    listed = world.viewer.api.get(world.path(world.prod, f"/approvals/{approval.pk}")).json()
    assert (listed["break_glass"], listed["status"], listed["allow_self_approval"]) == (True, "pending", False)
    assert deployment.timeline.get(event="create").detail["break_glass"] == "the market is open"
    assert AuditEvent.objects.get(action="deployment.create").changes["break_glass"] == "the market is open"
    # The bundle contains no claim that the deployment was approved.
    with blobs.read(deployment.bundle_hash or "") as tar:
        opened = open_bundle(tar.read())
    assert (opened.credential, opened.manifest.approved_at) == (None, None)


def test_only_another_person_can_approve_started_break_glass_deployment(
    world: World, run_jobs: Callable[[], int]
) -> None:
    agents = stories.fleet(world, 1, world.prod)
    deployment = deploy(world, world.bundle(world.prod))
    run_jobs()

    own = decide(world, world.admin, deployment)
    assert (own.status_code, own.json()["type"]) == (403, "urn:byteor:problem:approval.self")
    response = decide(world, world.reviewer, deployment)

    assert (response.status_code, response.json()["status"]) == (201, "approved")
    assert response.json()["used_at"] is not None
    report(agents[0][1], agents[0][0], "active")
    run_jobs()
    expire_approvals()
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, deployment.is_current) == ("active", True)
    assert events(deployment) == ["create", "build", "offer", "break_glass_approved", "activate"]


@pytest.mark.parametrize("how", ["expired", "denied", "revoked"])
@pytest.mark.parametrize("status", ["active", "deploying"])
def test_unapproved_active_or_deploying_deployment_is_rolled_back_to_earlier_one(
    world: World, run_jobs: Callable[[], int], status: str, how: str
) -> None:
    agents, earlier, bundle = before(world, run_jobs)
    deployment = deploy(world, bundle)
    run_jobs()
    if status == "active":
        for agent, api in agents:
            report(api, agent, "active")
        run_jobs()
    deployment.refresh_from_db()
    assert deployment.status == status

    match how:
        case "expired":
            expire_approvals()
        case "denied":
            assert decide(world, world.reviewer, deployment, "deny", comment="no").status_code == 201
        case "revoked":
            path = world.path(world.prod, f"/approvals/{deployment.approval_id}/revoke")
            assert world.reviewer.api.post(path).status_code == 200
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.restores) == ("rolling_back", earlier)
    assert deployment.rollback_reason == f"break-glass: the approval is {how}"
    assert {stories.desired(agent) for agent, _ in agents} == {(deployment.pk, "rollback")}
    for agent, api in agents:
        assert report(api, agent, "rolled_back").status_code == 200
    run_jobs()
    deployment.refresh_from_db()
    earlier.refresh_from_db()
    assert (deployment.status, earlier.is_current) == ("rolled_back", True)
    assert bundle_services.is_known_bad(world.prod.pk, deployment.config_hash)


def test_unapproved_first_rollout_fails_and_its_configuration_becomes_known_bad(
    world: World, run_jobs: Callable[[], int]
) -> None:
    ((agent, _),) = stories.fleet(world, 1, world.prod)
    deployment = deploy(world, world.bundle(world.prod))
    run_jobs()

    expire_approvals()
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason) == ("failed", "approval_expired")
    assert Assignment.objects.get(agent=agent).bundle_hash is None
    assert bundle_services.is_known_bad(world.prod.pk, deployment.config_hash)


def test_packet_does_not_compare_current_first_deployment_with_itself(
    world: World, run_jobs: Callable[[], int]
) -> None:
    ((agent, api),) = stories.fleet(world, 1, world.prod)
    deployment = deploy(world, world.bundle(world.prod))
    path = world.path(world.prod, f"/approvals/{deployment.approval_id}/packet")
    before = world.reviewer.api.get(path).json()["pipeline"]
    run_jobs()
    report(api, agent, "active")
    run_jobs()

    after = world.reviewer.api.get(path).json()["pipeline"]

    deployment.refresh_from_db()
    assert deployment.is_current
    assert before["from_version"] is None
    assert after == before


def test_unapproved_first_deployment_stays_active_but_its_configuration_becomes_known_bad(
    world: World, run_jobs: Callable[[], int]
) -> None:
    ((agent, api),) = stories.fleet(world, 1, world.prod)
    deployment = deploy(world, world.bundle(world.prod))
    run_jobs()
    report(api, agent, "active")
    run_jobs()

    expire_approvals()
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.is_current) == ("active", True)
    assert stories.desired(agent) == (deployment.pk, "activate")
    assert bundle_services.is_known_bad(world.prod.pk, deployment.config_hash)
    assert deployment.timeline.filter(event="break_glass_expired").count() == 1


def test_denial_before_build_fails_deployment(world: World, run_jobs: Callable[[], int]) -> None:
    stories.fleet(world, 1, world.prod)
    deployment = deploy(world, world.bundle(world.prod))

    decide(world, world.reviewer, deployment, "deny", comment="no")
    rollbacks.roll_back_break_glass(str(deployment.pk))
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason, deployment.bundle_hash) == ("failed", "approval_denied", None)
    assert not bundle_services.is_known_bad(world.prod.pk, deployment.config_hash)


def test_time_to_approve_is_limited_by_policy(world: World) -> None:
    stories.fleet(world, 1, world.prod)
    bundle = world.bundle(world.prod)
    glass = {"reason": "outage", "expires_in_s": 3601}

    late = request_deployment(world, world.admin.api, bundle, break_glass=glass)
    assert late.status_code == 400
    assert [error["pointer"] for error in late.json()["errors"]] == ["/break_glass/expires_in_s"]
    assert not Deployment.objects.exists()

    deployment = deploy(world, bundle, break_glass={"reason": "outage", "expires_in_s": 120})
    approval = deployment.approval
    assert approval is not None
    assert timedelta(seconds=110) < approval.expires_at - deployment.created_at <= timedelta(seconds=120)


def test_break_glass_requires_person_with_org_admin_role(world: World) -> None:
    stories.fleet(world, 1, world.prod)
    bundle = world.bundle(world.prod)
    _, text = tokens.create_organization_key(
        organization=world.organization, name="ci", role=Role.ORG_ADMIN, granter=GRANTS[Role.ORG_ADMIN],
        actor=world.admin.actor,
    )  # fmt: skip

    for api in (world.project_admin.api, world.operator.api, Api(text)):
        response = request_deployment(world, api, bundle)
        assert (response.status_code, response.json()["type"]) == (403, "urn:byteor:problem:forbidden")

    assert not Deployment.objects.exists()
    assert not Approval.objects.exists()


def test_break_glass_is_refused_if_no_approval_is_required(world: World) -> None:
    stories.fleet(world, 1, world.dev)
    response = request_deployment(world, world.admin.api, world.bundle(world.dev))

    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == ["/break_glass"]
    assert not Deployment.objects.exists()


def test_break_glass_with_approval_credential_is_refused(world: World) -> None:
    stories.fleet(world, 1, world.prod)
    response = request_deployment(world, world.admin.api, world.bundle(world.prod), approval="x.y")

    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == ["/break_glass"]
    assert not Deployment.objects.exists()


def test_unapproved_deployment_aborted_before_agents_start_is_not_rolled_back(
    world: World, run_jobs: Callable[[], int]
) -> None:
    stories.fleet(world, 1, world.prod)
    deployment = deploy(world, world.bundle(world.prod))
    run_jobs()

    assert world.admin.api.post(world.path(world.prod, f"/deployments/{deployment.pk}/abort")).status_code == 200
    assert Approval.objects.get().status == "pending"
    expire_approvals()
    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason, Approval.objects.get().status) == ("failed", "aborted", "expired")
    assert not bundle_services.is_known_bad(world.prod.pk, deployment.config_hash)


def test_unapproved_deployment_aborted_after_agent_activated_is_rolled_back(
    world: World, run_jobs: Callable[[], int]
) -> None:
    agents, earlier, bundle = before(world, run_jobs)
    deployment = deploy(world, bundle)
    run_jobs()
    report(agents[0][1], agents[0][0], "active")
    path = world.path(world.prod, f"/deployments/{deployment.pk}")
    world.admin.api.post(f"{path}/abort")

    decide(world, world.reviewer, deployment, "deny", comment="no")
    refusal = world.operator.api.post(f"{path}/retry")
    run_jobs()

    assert (refusal.status_code, refusal.json()["type"]) == (409, "urn:byteor:problem:not_approved")
    deployment.refresh_from_db()
    assert (deployment.status, deployment.restores) == ("rolling_back", earlier)
    assert stories.desired(agents[0][0]) == (deployment.pk, "rollback")
    assert stories.desired(agents[1][0]) == (earlier.pk, "activate")


def test_sweep_enqueues_lost_rollback_job_again(world: World, run_jobs: Callable[[], int]) -> None:
    _, earlier, bundle = before(world, run_jobs)
    deployment = deploy(world, bundle)
    run_jobs()
    expire_approvals()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM procrastinate_jobs")

    run_sweep(run_jobs)

    deployment.refresh_from_db()
    assert (deployment.status, deployment.restores) == ("rolling_back", earlier)
    sweep()
    assert not ProcrastinateJob.objects.filter(task_name="releases.undo_break_glass").exists()


def test_rollback_does_not_restore_denied_break_glass_deployment(world: World, run_jobs: Callable[[], int]) -> None:
    agents, _, bundle = before(world, run_jobs)
    unapproved = deploy(world, bundle)
    run_jobs()
    for agent, api in agents:
        report(api, agent, "active")
    run_jobs()
    third = world.deployment(world.bundle(world.prod, "third", version=bundle.version, env={"N": "3"}))
    decide(world, world.reviewer, third)
    run_jobs()
    for agent, api in agents:
        report(api, agent, "active")
    run_jobs()
    decide(world, world.reviewer, unapproved, "deny", comment="no")
    run_jobs()

    response = world.operator.api.post(world.path(world.prod, f"/deployments/{third.pk}/rollback"), {"reason": "slow"})

    assert response.status_code == 200
    third.refresh_from_db()
    assert third.restores is not None
    assert third.restores != unapproved
    assert not Assignment.objects.filter(bundle_deployment_id=unapproved.pk).exists()
