"""Approvals: who may decide, the credential that an approval issues, and its single use and expiry."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.releases.models import Approval, ApprovalDecision, Deployment
from apps.releases.tasks import sweep
from apps.tenancy.models import AuditEvent, Environment
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import signing_keys, tokens
from byteor.engine.signing import credential
from byteor.engine.signing.refusals import ApprovalCode, Refused
from byteor_cloud.ids import uuid7
from tests.races import Race
from tests.releases import stories
from tests.releases.stories import events
from tests.worlds import Api, Person, World

pytestmark = pytest.mark.django_db


def pending(world: World, environment: Environment | None = None) -> Deployment:
    """Create a deployment that the operator requested and that waits for approval."""
    environment = environment or world.prod
    stories.fleet(world, 1, environment)
    return world.deployment(world.bundle(environment))


def decide(
    api: Api, world: World, deployment: Deployment, decision: str = "approve", environment: Any = None, **body: Any
) -> Any:
    path = world.path(environment or deployment.environment, "/approvals")
    return api.post(path, {"deployment_id": str(deployment.pk), "decision": decision, **body})


def refused(response: Any, status: int, code: str, deployment: Deployment) -> None:
    assert (response.status_code, response.json()["type"]) == (status, f"urn:byteor:problem:{code}"), response.json()
    before = deployment.status, deployment.approval.status  # type: ignore[union-attr]
    deployment.refresh_from_db()
    assert (deployment.status, Approval.objects.get().status) == before


def test_single_required_approval_approves_deployment(world: World) -> None:
    deployment = pending(world)

    response = decide(world.reviewer.api, world, deployment, comment="looks right")

    assert response.status_code == 201
    body = response.json()
    assert (body["status"], body["id"], body["deployment_id"]) == (
        "approved", str(deployment.approval_id), str(deployment.pk),
    )  # fmt: skip
    assert [(d["decided_by"], d["decision"], d["comment"]) for d in body["decisions"]] == [
        (world.reviewer.user.email, "approve", "looks right")
    ]
    deployment.refresh_from_db()
    assert deployment.status == "approved"
    assert deployment.approved_at is not None
    actions = ["approval.decision.approve", "approval.approve", "deployment.approve"]
    assert list(
        AuditEvent.objects.filter(action__in=actions).order_by("id").values_list("action", "actor_display")
    ) == [(action, world.reviewer.user.email) for action in actions]
    assert events(deployment) == ["create", "approve"]


def test_credential_describes_approval_and_is_refused_in_another_environment(world: World) -> None:
    deployment = pending(world)
    text = decide(world.reviewer.api, world, deployment, expires_in_s=600).json()["credential"]
    version = deployment.config_bundle.version
    keys = signing_keys.key_set(world.organization.pk)

    payload = credential.verify(
        text, keyset=keys, spec_hash=version.spec_hash, environment_id=str(world.prod.pk), at=timezone.now(),
        capabilities=["deploy"],
    )  # fmt: skip

    assert (payload.org_id, payload.project_id, payload.environment_posture, payload.issued_by) == (
        str(world.organization.pk), str(world.project.pk), "prod", world.reviewer.user.email,
    )  # fmt: skip
    assert (payload.approval_id, payload.capabilities) == (str(deployment.approval_id), ("deploy",))
    assert payload.expires_at - payload.issued_at == timedelta(seconds=600)
    approval = Approval.objects.get()
    assert (approval.approved_at, approval.expires_at) == (payload.issued_at, payload.expires_at)
    with pytest.raises(Refused) as other:
        credential.verify(
            text, keyset=keys, spec_hash=version.spec_hash, environment_id=str(world.dev.pk), at=timezone.now(),
            capabilities=["deploy"],
        )  # fmt: skip
    assert other.value.code is ApprovalCode.ENVIRONMENT


def test_approval_lifetime_is_capped_at_ttl_of_policy(world: World) -> None:
    deployment = pending(world)

    decide(world.reviewer.api, world, deployment, expires_in_s=86400)

    approval = Approval.objects.get()
    assert approval.approved_at is not None
    assert approval.expires_at - approval.approved_at == timedelta(seconds=3600)


def test_operators_but_not_viewers_see_credential(world: World) -> None:
    deployment = pending(world)
    decide(world.reviewer.api, world, deployment)
    path = world.path(world.prod, f"/approvals/{deployment.approval_id}")

    assert world.viewer.api.get(path).json()["credential"] is None
    assert world.operator.api.get(path).json()["credential"] == Approval.objects.get().credential


def test_requester_cannot_approve_in_prod_by_default(world: World) -> None:
    deployment = pending(world)

    refused(decide(world.operator.api, world, deployment), 403, "approval.self", deployment)

    assert ApprovalDecision.objects.count() == 0


def test_requester_may_deny(world: World) -> None:
    deployment = pending(world)

    assert decide(world.operator.api, world, deployment, "deny", comment="a mistake").json()["status"] == "denied"


def test_requester_may_approve_if_self_approval_is_allowed(world: World) -> None:
    environment = world.environment("prod", "small", allow_self_approval=True)
    deployment = pending(world, environment)

    assert decide(world.operator.api, world, deployment).json()["status"] == "approved"


def test_denial_requires_comment_and_denies_deployment(world: World, run_jobs: Callable[[], int]) -> None:
    deployment = pending(world)

    refused(decide(world.reviewer.api, world, deployment, "deny", comment=" "), 400, "invalid", deployment)

    response = decide(world.reviewer.api, world, deployment, "deny", comment="not on a Friday")
    assert response.json()["status"] == "denied"
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, deployment.bundle_hash) == ("denied", None)
    assert response.json()["credential"] is None
    other = world.person(Role.OPERATOR, "third")
    refused(decide(other.api, world, deployment), 409, "approval.decided", deployment)
    assert ApprovalDecision.objects.count() == 1


def test_two_required_approvals_must_come_from_two_people(world: World) -> None:
    environment = world.environment("prod", "careful", required_approvals=2)
    deployment = pending(world, environment)

    first = decide(world.reviewer.api, world, deployment)

    assert (first.status_code, first.json()["status"], first.json()["credential"]) == (201, "pending", None)
    refused(decide(world.reviewer.api, world, deployment), 409, "approval.decided_before", deployment)
    refused(decide(world.operator.api, world, deployment), 403, "approval.self", deployment)
    second = decide(world.project_admin.api, world, deployment)
    assert second.json()["status"] == "approved"
    assert len(second.json()["decisions"]) == 2
    deployment.refresh_from_db()
    refused(decide(world.admin.api, world, deployment), 409, "approval.decided", deployment)


def test_one_denial_overrides_earlier_approval(world: World) -> None:
    environment = world.environment("prod", "careful", required_approvals=2)
    deployment = pending(world, environment)
    decide(world.reviewer.api, world, deployment)

    denied = decide(world.project_admin.api, world, deployment, "deny", comment="no")

    assert denied.json()["status"] == "denied"
    deployment.refresh_from_db()
    assert deployment.status == "denied"


def test_api_key_cannot_decide(world: World) -> None:
    deployment = pending(world)
    _, text = tokens.create_organization_key(
        organization=world.organization, name="ci", role=Role.OPERATOR, granter=GRANTS[Role.ORG_ADMIN],
        actor=world.admin.actor,
    )  # fmt: skip

    refused(decide(Api(text), world, deployment), 403, "approval.person", deployment)

    assert ApprovalDecision.objects.count() == 0


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"decision": "maybe"}, "/decision"),
        ({"decision": None}, "/decision"),
        ({"deployment_id": None}, "/deployment_id"),
        ({"deployment_id": str(uuid7())}, "/deployment_id"),
        ({"comment": 5 * ["x"]}, "/comment"),
        ({"expires_in_s": 1}, "/expires_in_s"),
        ({"why": "x"}, "/why"),
    ],
)
def test_invalid_decisions_return_field_errors(world: World, body: dict[str, Any], pointer: str) -> None:
    deployment = pending(world)

    response = decide(world.reviewer.api, world, deployment, **body)

    refused(response, 400, "invalid", deployment)
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


def test_deployment_of_another_environment_cannot_be_approved(world: World) -> None:
    deployment = pending(world)

    refused(decide(world.reviewer.api, world, deployment, environment=world.dev), 400, "invalid", deployment)


def test_deployment_that_needs_no_approval_cannot_be_approved(world: World) -> None:
    stories.fleet(world, 1)
    deployment = world.deployment(world.bundle())

    response = decide(world.reviewer.api, world, deployment)

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:approval.not_needed")
    deployment.refresh_from_db()
    assert deployment.status == "approved"


def lapse(deployment: Deployment) -> None:
    Approval.objects.filter(deployment=deployment).update(expires_at=timezone.now() - timedelta(seconds=1))


def test_deployment_fails_when_pending_approval_expires(world: World) -> None:
    deployment = pending(world)
    lapse(deployment)

    refused(decide(world.reviewer.api, world, deployment), 409, "approval.expired", deployment)
    sweep()

    deployment.refresh_from_db()
    assert Approval.objects.get().status == "expired"
    assert (deployment.status, deployment.reason) == ("failed", "approval_expired")
    bundle = world.viewer.api.get(world.path(world.prod, f"/config-bundles/{deployment.config_bundle_id}"))
    assert bundle.json()["known_bad"] is False
    sweep()
    assert AuditEvent.objects.filter(action="approval.expire").count() == 1


def test_deployment_fails_when_credential_expires_before_build(world: World, run_jobs: Callable[[], int]) -> None:
    deployment = pending(world)
    decide(world.reviewer.api, world, deployment, expires_in_s=60)
    approval = Approval.objects.get()
    assert approval.approved_at is not None
    then = approval.approved_at - timedelta(seconds=7200)
    approval.credential = credential.issue(
        private_key=signing_keys.active_private_key(world.organization.pk), org_id=str(world.organization.pk),
        project_id=str(world.project.pk), environment_id=str(world.prod.pk), environment_posture="prod",
        spec_hash=approval.spec_hash, capabilities=approval.capabilities, issued_at=then,
        expires_at=then + timedelta(seconds=60), issued_by="x", approval_id=str(approval.pk),
    )  # fmt: skip
    approval.save()

    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason, deployment.bundle_hash) == ("failed", "approval_expired", None)
    assert Approval.objects.get().used_at is None


@pytest.mark.parametrize("is_approved", [False, True])
def test_deployment_fails_when_approval_is_revoked_before_build(
    world: World, run_jobs: Callable[[], int], is_approved: bool
) -> None:
    deployment = pending(world)
    if is_approved:
        decide(world.reviewer.api, world, deployment)
    path = world.path(world.prod, f"/approvals/{deployment.approval_id}/revoke")

    response = world.reviewer.api.post(path)

    assert (response.status_code, response.json()["status"]) == (200, "revoked")
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason, deployment.bundle_hash) == ("failed", "approval_revoked", None)
    again = world.reviewer.api.post(path)
    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:illegal_transition")
    assert AuditEvent.objects.filter(action="approval.revoke").count() == 1


def test_used_approval_cannot_be_revoked(world: World, run_jobs: Callable[[], int]) -> None:
    deployment = pending(world)
    decide(world.reviewer.api, world, deployment)
    run_jobs()

    response = world.reviewer.api.post(world.path(world.prod, f"/approvals/{deployment.approval_id}/revoke"))

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:approval.used")
    deployment.refresh_from_db()
    assert (deployment.status, Approval.objects.get().status) == ("deploying", "approved")


@pytest.mark.parametrize(
    "altered",
    [
        {"config_hash": "sha256:" + "0" * 64},
        {"target": {"selector": {"a": "b"}}},
        {"strategy": {"kind": "all_at_once", "failure_threshold_percent": 100, "auto_rollback": False}},
    ],
)
def test_deployment_altered_after_approval_fails(
    world: World, run_jobs: Callable[[], int], altered: dict[str, Any]
) -> None:
    deployment = pending(world)
    decide(world.reviewer.api, world, deployment)
    Deployment.objects.filter(pk=deployment.pk).update(**altered)

    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason) == ("failed", "approval.binding")
    assert (deployment.bundle_hash, Approval.objects.get().used_at) == (None, None)


def test_approval_can_be_used_only_once(world: World, run_jobs: Callable[[], int]) -> None:
    deployment = pending(world)
    decide(world.reviewer.api, world, deployment)
    Approval.objects.update(used_at=timezone.now())

    run_jobs()

    deployment.refresh_from_db()
    assert (deployment.status, deployment.reason) == ("failed", "approval.used")


def test_approvals_can_be_filtered_by_status_and_deployment(world: World) -> None:
    deployment = pending(world)
    path = world.path(world.prod, "/approvals")

    def count(query: str) -> int:
        return len(world.viewer.api.get(f"{path}?{query}").json()["results"])

    assert [count("status=pending"), count("status=approved"), count(f"deployment_id={deployment.pk}")] == [1, 0, 1]


@pytest.mark.parametrize("decisions", [("approve", "approve"), ("approve", "deny"), ("deny", "deny")])
def test_only_one_concurrent_decision_is_accepted_if_one_approval_is_required(
    concurrently: Race, world: World, decisions: tuple[str, str]
) -> None:
    deployment = pending(world)
    people: list[Person] = [world.reviewer, world.project_admin]

    responses = concurrently(
        *(
            lambda person=person, decision=decision: decide(person.api, world, deployment, decision, comment="c")
            for person, decision in zip(people, decisions, strict=True)
        )
    )

    assert sorted(response.status_code for response in responses) == [201, 409]
    only = ApprovalDecision.objects.get()
    deployment.refresh_from_db()
    assert deployment.status == {"approve": "approved", "deny": "denied"}[only.decision]
    assert AuditEvent.objects.filter(action__startswith="approval.decision").count() == 1
    assert AuditEvent.objects.filter(action__in=["deployment.approve", "deployment.deny"]).count() == 1
