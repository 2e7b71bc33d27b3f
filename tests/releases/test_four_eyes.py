"""The person who created an organization key counts as the requester of the approvals that the key requests."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from django.db import connection

from apps.releases.models import Approval, ApprovalDecision, ConfigBundle, Deployment
from apps.releases.services import deployments
from apps.tenancy.actors import Actor
from apps.tenancy.models import AuditEvent, Environment, Membership, OrganizationKey
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import tokens
from tests.releases import stories
from tests.worlds import ALL, ALL_AT_ONCE, Api, Person, World

pytestmark = pytest.mark.django_db


def key_of(world: World, creator: Api, name: str = "ci", role: Role = Role.OPERATOR) -> tuple[OrganizationKey, Api]:
    """Create a key through the API as ``creator``. Return its row and an API client that uses the key."""
    made = creator.post(f"/api/v1/orgs/{world.organization.pk}/api-keys", {"name": name, "role": role})
    assert made.status_code == 201, made.json()
    return OrganizationKey.objects.get(pk=made.json()["id"]), Api(made.json()["token"])


def bundle_of(world: World, environment: Environment | None = None) -> ConfigBundle:
    environment = environment or world.prod
    stories.fleet(world, 1, environment)
    return world.bundle(environment)


def request_deployment(world: World, api: Api, bundle: ConfigBundle, **body: Any) -> Any:
    body = {"config_bundle_id": str(bundle.pk), "target": ALL, "strategy": ALL_AT_ONCE, **body}
    return api.post(world.path(bundle.environment, "/deployments"), body)


def requested_deployment(world: World, api: Api, bundle: ConfigBundle) -> Deployment:
    response = request_deployment(world, api, bundle)
    assert response.status_code == 201, response.json()
    return Deployment.objects.select_related("environment").get(pk=response.json()["id"])


def decide(world: World, person: Person, deployment: Deployment, decision: str = "approve") -> Any:
    body = {"deployment_id": str(deployment.pk), "decision": decision, "comment": "so it is"}
    return person.api.post(world.path(deployment.environment, "/approvals"), body)


def kind_of(response: Any) -> tuple[int, str]:
    return response.status_code, str(response.json()["type"]).removeprefix("urn:byteor:problem:")


SELF, UNKNOWN = (403, "approval.self"), (403, "approval.requester_unknown")


def test_creator_of_key_cannot_approve_its_requests_by_default(world: World) -> None:
    _, api = key_of(world, world.admin.api)
    deployment = requested_deployment(world, api, bundle_of(world))
    audited = AuditEvent.objects.count()

    assert kind_of(decide(world, world.admin, deployment)) == SELF

    deployment.refresh_from_db()
    assert (deployment.status, ApprovalDecision.objects.count()) == ("pending_approval", 0)
    assert AuditEvent.objects.count() == audited
    assert decide(world, world.reviewer, deployment).status_code == 201


def test_creator_of_key_may_deny_its_requests(world: World) -> None:
    _, api = key_of(world, world.admin.api)
    deployment = requested_deployment(world, api, bundle_of(world))

    assert decide(world, world.admin, deployment, "deny").json()["status"] == "denied"


def test_creator_of_key_may_approve_its_requests_if_self_approval_is_allowed(world: World) -> None:
    _, api = key_of(world, world.admin.api)
    environment = world.environment("prod", "lax", allow_self_approval=True)

    assert (
        decide(world, world.admin, requested_deployment(world, api, bundle_of(world, environment))).json()["status"]
        == "approved"
    )


def test_key_created_by_another_key_belongs_to_person_who_created_first_key(world: World) -> None:
    """Each key creates the next one. Revoking the first two makes no difference."""
    first, api = key_of(world, world.admin.api, "first", Role.ORG_ADMIN)
    second, api = key_of(world, api, "second", Role.ORG_ADMIN)
    third, api = key_of(world, api, "third")
    assert {key.created_by_id for key in (first, second, third)} == {world.admin.user.pk}
    for key in (first, second):
        tokens.revoke(key, action="api_key.revoke", actor=world.admin.actor, scope=world.organization)

    deployment = requested_deployment(world, api, bundle_of(world))

    assert kind_of(decide(world, world.admin, deployment)) == SELF


def test_creator_of_key_who_left_and_rejoined_cannot_approve_its_requests(world: World) -> None:
    other = world.person(Role.ORG_ADMIN, "second-admin")
    _, api = key_of(world, other.api)
    Membership.objects.filter(user=other.user).delete()
    deployment = requested_deployment(world, api, bundle_of(world))
    assert decide(world, other, deployment).status_code == 404

    world.person(Role.OPERATOR, "second-admin")

    assert kind_of(decide(world, other, deployment)) == SELF


def test_creator_of_another_key_may_approve_requests_of_key(world: World) -> None:
    other = world.person(Role.ORG_ADMIN, "second-admin")
    key_of(world, other.api, "theirs")
    _, api = key_of(world, world.admin.api, "ours")

    assert decide(world, other, requested_deployment(world, api, bundle_of(world))).json()["status"] == "approved"


def test_organization_key_shows_its_creator(world: World) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/api-keys"
    made = world.admin.api.post(path, {"name": "ci", "role": "org_admin"}).json()
    nested = Api(made["token"]).post(path, {"name": "ci 2", "role": "viewer"}).json()
    OrganizationKey.objects.filter(pk=nested["id"]).update(created_by=None)

    assert made["created_by"] == nested["created_by"] == "admin@acme.example"
    listed = world.admin.api.get(path).json()["results"]
    assert [key["created_by"] for key in listed] == [None, "admin@acme.example"]
    claimed = world.admin.api.post(path, {"name": "x", "role": "viewer", "created_by": "eve@acme.example"})
    assert (claimed.status_code, claimed.json()["errors"][0]["pointer"]) == (400, "/created_by")


# -- a key whose creator is unknown -----------------------------------------------------------------------------------


@pytest.fixture
def orphan(world: World) -> Api:
    """A client with a key whose creator is unknown, like an old key whose creation has no audit event."""
    key, api = key_of(world, world.admin.api, "orphan")
    OrganizationKey.objects.filter(pk=key.pk).update(created_by=None)
    return api


@pytest.mark.parametrize("lax", [False, True], ids=["strict", "self-approval allowed"])
def test_key_without_known_creator_cannot_request_approval(world: World, orphan: Api, lax: bool) -> None:
    environment = world.environment("prod", "other", allow_self_approval=lax)
    bundle, audited = bundle_of(world, environment), AuditEvent.objects.count()

    refused = request_deployment(world, orphan, bundle)

    assert kind_of(refused) == UNKNOWN
    assert "Create a new key" in refused.json()["detail"]
    assert (Deployment.objects.count(), Approval.objects.count()) == (0, 0)
    assert AuditEvent.objects.filter(outcome="success").count() == audited


def test_key_without_known_creator_can_deploy_where_no_approval_is_needed(world: World, orphan: Api) -> None:
    assert request_deployment(world, orphan, bundle_of(world, world.dev)).status_code == 201


def test_old_request_of_key_without_known_creator_can_only_be_denied(world: World) -> None:
    deployment = requested_deployment(world, key_of(world, world.admin.api)[1], bundle_of(world))
    Approval.objects.update(requester_id=None)

    for person in (world.admin, world.reviewer):
        assert kind_of(decide(world, person, deployment)) == (409, "approval.requester_unknown")

    assert ApprovalDecision.objects.count() == 0
    assert decide(world, world.reviewer, deployment, "deny").json()["status"] == "denied"


# -- approval credentials that are sent with a deployment -------------------------------------------------------------


def consented(world: World, approver: Person) -> tuple[ConfigBundle, str]:
    """Create a deployment as the operator, approve it as ``approver``, and abort it.

    Return the config bundle and the unused credential.
    """
    bundle = bundle_of(world)
    deployment = requested_deployment(world, world.operator.api, bundle)
    assert decide(world, approver, deployment).status_code == 201
    deployment.refresh_from_db()
    deployments.abort(deployment, actor=world.operator.actor)
    approval = Approval.objects.get()
    assert approval.credential
    return bundle, approval.credential


def test_sole_approver_and_their_key_cannot_submit_credential(world: World) -> None:
    bundle, credential = consented(world, world.admin)
    _, api = key_of(world, world.admin.api)

    for caller in (world.admin.api, api):
        assert kind_of(request_deployment(world, caller, bundle, approval=credential)) == SELF

    assert (Deployment.objects.count(), Approval.objects.get().used_at) == (1, None)
    assert request_deployment(world, world.operator.api, bundle, approval=credential).status_code == 201


def test_key_without_known_creator_cannot_submit_credential(world: World, orphan: Api) -> None:
    bundle, credential = consented(world, world.reviewer)

    assert kind_of(request_deployment(world, orphan, bundle, approval=credential)) == UNKNOWN

    assert Deployment.objects.count() == 1


def test_one_of_two_approvers_cannot_submit_credential(world: World) -> None:
    environment = world.environment("prod", "careful", required_approvals=2)
    bundle = bundle_of(world, environment)
    deployment = requested_deployment(world, world.operator.api, bundle)
    for person in (world.reviewer, world.admin):
        decide(world, person, deployment)
    deployment.refresh_from_db()
    deployments.abort(deployment, actor=world.operator.actor)
    credential = Approval.objects.get().credential

    assert kind_of(request_deployment(world, world.reviewer.api, bundle, approval=credential)) == SELF

    assert request_deployment(world, world.project_admin.api, bundle, approval=credential).status_code == 201


def test_approver_may_submit_credential_if_self_approval_is_allowed(world: World) -> None:
    environment = world.environment("prod", "lax", allow_self_approval=True)
    bundle = bundle_of(world, environment)
    deployment = requested_deployment(world, world.operator.api, bundle)
    decide(world, world.operator, deployment)
    deployment.refresh_from_db()
    deployments.abort(deployment, actor=world.operator.actor)

    again = request_deployment(world, world.operator.api, bundle, approval=Approval.objects.get().credential)

    assert again.status_code == 201


# -- keys and requests of older releases ------------------------------------------------------------------------------


def run_migration(name: str, constant: str) -> None:
    module = importlib.import_module(name)
    with connection.cursor() as cursor:
        cursor.execute(getattr(module, constant))


def test_creators_of_older_keys_are_read_from_audit_trail(world: World) -> None:
    _, api = key_of(world, world.admin.api, "first", Role.ORG_ADMIN)
    _, api = key_of(world, api, "second", Role.ORG_ADMIN)
    _, asking = key_of(world, api, "third")
    known, _ = key_of(world, world.admin.api, "known")
    unknown, _ = tokens.create_organization_key(
        organization=world.organization, name="unknown", role=Role.VIEWER, granter=GRANTS[Role.ORG_ADMIN],
        actor=Actor("system", "script", "system:script"),
    )  # fmt: skip
    requested_deployment(world, asking, bundle_of(world))
    OrganizationKey.objects.exclude(pk=known.pk).update(created_by=None)
    OrganizationKey.objects.filter(pk=known.pk).update(created_by=world.reviewer.user)
    Approval.objects.update(requester_id=None)

    for _ in range(2):
        run_migration("apps.tenancy.migrations.0008_makers_of_older_keys", "MAKERS")
        run_migration("apps.releases.migrations.0006_requesters_behind_keys", "REQUESTERS")

    creators = dict(OrganizationKey.objects.values_list("name", "created_by"))
    admin = world.admin.user.pk
    assert creators == {
        "first": admin, "second": admin, "third": admin, "known": world.reviewer.user.pk, "unknown": None,
    }  # fmt: skip
    assert unknown.created_by is None
    assert Approval.objects.get().requester_id == admin


def test_migration_ignores_key_recorded_as_its_own_creator(world: World) -> None:
    key, _ = key_of(world, world.admin.api)
    OrganizationKey.objects.update(created_by=None)
    AuditEvent.objects.create(
        organization=world.organization, action="api_key.create", outcome="success", actor_kind="organization_key",
        actor_id="round", resource_kind="organizationkey", resource_id="round",
    )  # fmt: skip

    run_migration("apps.tenancy.migrations.0008_makers_of_older_keys", "MAKERS")

    assert OrganizationKey.objects.get(pk=key.pk).created_by == world.admin.user
