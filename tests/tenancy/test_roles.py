"""Roles: their permissions, how they combine, and who may grant them."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest

from apps.tenancy.models import AuditEvent, Membership, Project
from apps.tenancy.permissions import GRANTS, Permission, Role, effective_role, may_grant
from apps.tenancy.services import accounts, members, organizations, tokens
from byteor_cloud.errors import NotFound
from tests.races import Race
from tests.worlds import Api, Person, World

pytestmark = pytest.mark.django_db
P = Permission
ADMIN, MANAGER, OPERATOR, VIEWER = Role.ORG_ADMIN, Role.PROJECT_ADMIN, Role.OPERATOR, Role.VIEWER
# Each permission, with the roles that grant it.
TABLE = {
    P.VIEW_ORG: {ADMIN, MANAGER, OPERATOR, VIEWER},
    P.VIEW_PROJECT: {ADMIN, MANAGER, OPERATOR, VIEWER},
    P.VIEW_ENVIRONMENT: {ADMIN, MANAGER, OPERATOR, VIEWER},
    P.MANAGE_ORG_MEMBERSHIPS: {ADMIN},
    P.CREATE_PROJECT: {ADMIN},
    P.MANAGE_PROJECT: {ADMIN, MANAGER},
    P.OPERATE_PROJECT: {ADMIN, MANAGER, OPERATOR},
    P.MANAGE_ENVIRONMENT: {ADMIN, MANAGER},
    P.OPERATE_ENVIRONMENT: {ADMIN, MANAGER, OPERATOR},
}


@pytest.mark.parametrize("permission", Permission)
def test_each_permission_is_granted_by_roles_in_table(permission: Permission) -> None:
    assert {role for role in Role if permission in GRANTS[role]} == TABLE[permission]


@pytest.mark.parametrize(
    ("org", "project", "counts"),
    [
        (None, None, None),
        (None, VIEWER, VIEWER),
        (None, MANAGER, MANAGER),
        (VIEWER, None, VIEWER),
        (OPERATOR, None, OPERATOR),
        (VIEWER, MANAGER, MANAGER),
        (MANAGER, VIEWER, VIEWER),
        (OPERATOR, VIEWER, VIEWER),
        (ADMIN, None, ADMIN),
        (ADMIN, VIEWER, ADMIN),
    ],
)
def test_effective_role_prefers_org_admin_then_project_role(
    org: Role | None, project: Role | None, counts: Role | None
) -> None:
    assert effective_role(org, project) is counts


@pytest.mark.parametrize(
    ("holder", "grantable"),
    [(ADMIN, set(Role)), (MANAGER, {MANAGER, OPERATOR, VIEWER}), (OPERATOR, {OPERATOR, VIEWER}), (VIEWER, {VIEWER})],
)
def test_roles_can_grant_only_roles_up_to_their_own(holder: Role, grantable: set[Role]) -> None:
    assert {role for role in Role if may_grant(GRANTS[holder], role)} == grantable


def member_of(world: World, project: Project, role: Role, name: str) -> Person:
    """Create a person with a role in ``project`` only."""
    invitation = members.add(
        organization=world.organization,
        project=project,
        email=f"{name}@acme.example",
        role=role,
        granter=GRANTS[ADMIN],
        actor=world.admin.actor,
    )
    return world._person(invitation.membership.user)


def drafts(world: World, person: Person) -> int:
    body = {"name": f"draft of {person.user.email}", "plan": {}}
    status: int = person.api.post(world.path(rest="/drafts"), body).status_code
    return status


def test_role_of_member_who_was_just_removed_cannot_be_changed(world: World) -> None:
    removed = Membership.objects.get(user=world.viewer.user)
    Membership.objects.filter(pk=removed.pk).delete()

    with pytest.raises(NotFound):
        members.change_role(removed, role=Role.OPERATOR, granter=GRANTS[Role.ORG_ADMIN], actor=world.admin.actor)

    assert not AuditEvent.objects.filter(action="member.update").exists()


def test_project_role_overrides_organization_role_below_org_admin_in_requests(world: World) -> None:
    for person, role in ((world.operator, VIEWER), (world.viewer, OPERATOR)):
        members.add(
            organization=world.organization,
            project=world.project,
            email=person.user.email,
            role=role,
            granter=GRANTS[ADMIN],
            actor=world.admin.actor,
        )

    assert [drafts(world, person) for person in (world.operator, world.viewer, world.reviewer)] == [403, 201, 201]


def test_project_member_sees_only_that_project(world: World) -> None:
    hidden = organizations.create_project(organization=world.organization, name="secret", actor=world.admin.actor)
    guest = member_of(world, world.project, MANAGER, "guest")
    org = f"/api/v1/orgs/{world.organization.pk}"

    assert [row["name"] for row in guest.api.get(f"{org}/projects").json()["results"]] == ["trading"]
    assert [row["id"] for row in guest.api.get("/api/v1/orgs").json()["results"]] == [str(world.organization.pk)]
    assert guest.api.get(f"{org}/projects/{world.project.pk}").status_code == 200
    assert guest.api.get(f"{org}/projects/{hidden.pk}").status_code == 404
    assert guest.api.get(f"{org}/projects/{hidden.pk}/environments").status_code == 404
    assert guest.api.get(f"{org}/members").json()["results"] == []
    assert len(guest.api.get(f"{org}/projects/{world.project.pk}/members").json()["results"]) == 1
    assert guest.api.post(f"{org}/projects", {"name": "own"}).status_code == 403
    assert guest.api.get(f"{org}/audit-events").status_code == 403
    assert {row["name"] for row in world.viewer.api.get(f"{org}/projects").json()["results"]} == {"trading", "secret"}


def test_organization_creator_becomes_org_admin() -> None:
    user = accounts.get_or_create_account("founder@acme.example")
    person = World._person(user)

    made = person.api.post("/api/v1/orgs", {"name": "Initech"})

    assert made.status_code == 201
    assert made.json()["slug"] == "initech"
    assert Membership.objects.get(user=user).role == ADMIN
    assert person.api.get(f"/api/v1/orgs/{made.json()['id']}/audit-events").status_code == 200


def test_organization_key_cannot_create_organization(world: World) -> None:
    _, text = tokens.create_organization_key(
        organization=world.organization, name="ci", role=ADMIN, granter=GRANTS[ADMIN], actor=world.admin.actor
    )

    assert Api(text).post("/api/v1/orgs", {"name": "Initech"}).json()["type"] == "urn:byteor:problem:wrong_credential"


def members_path(world: World, rest: str = "") -> str:
    return f"/api/v1/orgs/{world.organization.pk}/members{rest}"


@pytest.mark.parametrize(("method", "body"), [("DELETE", None), ("PUT", {"role": "operator"})])
def test_last_admin_cannot_be_removed_or_demoted(world: World, method: str, body: dict[str, Any] | None) -> None:
    path = members_path(world, f"/{world.admin.user.pk}")
    events = AuditEvent.objects.count()

    response = world.admin.api(method, path, body)

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:last_org_admin")
    assert Membership.objects.get(user=world.admin.user).role == ADMIN
    assert AuditEvent.objects.count() == events


def test_admin_can_be_removed_only_if_another_active_admin_exists(world: World) -> None:
    second = world.person(ADMIN, "second")
    second.user.is_active = False
    second.user.save()
    path = members_path(world, f"/{world.admin.user.pk}")
    assert world.admin.api.delete(path).status_code == 409

    second.user.is_active = True
    second.user.save()

    assert world.admin.api.delete(path).status_code == 204
    assert world.admin.api.get(members_path(world)).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_one_admin_remains_after_concurrent_removals(
    concurrently: Race,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = members.check_not_last_admin
    both_have_checked = threading.Barrier(2)

    def slowly(membership: Membership) -> None:
        real(membership)
        # Without the lock, both threads would reach this point. With the lock, the other thread waits for this thread.
        with contextlib.suppress(threading.BrokenBarrierError):
            both_have_checked.wait(timeout=0.5)

    monkeypatch.setattr(members, "check_not_last_admin", slowly)
    world = World("acme")
    second = world.person(ADMIN, "second")
    first, other = (Api(person.api.token) for person in (world.admin, second))

    responses = concurrently(
        lambda: first.delete(members_path(world, f"/{second.user.pk}")),
        lambda: other.delete(members_path(world, f"/{world.admin.user.pk}")),
    )

    assert sorted(a.status_code for a in responses)[0] == 204
    assert sorted(a.status_code for a in responses)[1] in {404, 409}
    assert Membership.objects.filter(organization=world.organization, role=ADMIN).count() == 1


@pytest.mark.parametrize("role", ["org_admin", "project_admin"])
def test_project_admin_can_grant_own_role_but_not_org_admin(world: World, role: str) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/projects/{world.project.pk}/members"

    response = world.project_admin.api.post(path, {"email": "new@acme.example", "role": role})

    assert response.status_code == {"org_admin": 403, "project_admin": 201}[role]
    assert Membership.objects.filter(user__email="new@acme.example").count() == (role == "project_admin")


def test_org_admin_is_rejected_as_project_role(world: World) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/projects/{world.project.pk}/members"
    world.admin.api.post(path, {"email": "new@acme.example", "role": "viewer"})
    user = Membership.objects.get(user__email="new@acme.example").user

    made = world.admin.api.post(path, {"email": "other@acme.example", "role": "org_admin"})
    raised = world.admin.api.put(f"{path}/{user.pk}", {"role": "org_admin"})

    for response in (made, raised):
        assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/role")
    assert Membership.objects.get(user=user).role == VIEWER


def test_only_addresses_of_listed_email_domains_can_be_invited(world: World) -> None:
    org = f"/api/v1/orgs/{world.organization.pk}"
    assert world.admin.api.put(org, {"settings": {"email_domains": ["Acme.example"]}}).status_code == 200

    inside = world.admin.api.post(members_path(world), {"email": "a@ACME.example", "role": "viewer"})
    outside = world.admin.api.post(members_path(world), {"email": "a@acme.example.evil", "role": "viewer"})

    assert (inside.status_code, outside.status_code) == (201, 400)
    assert outside.json()["errors"][0]["pointer"] == "/email"


def test_adding_member_twice_returns_409_regardless_of_email_case(world: World) -> None:
    before = Membership.objects.count()

    response = world.admin.api.post(members_path(world), {"email": "VIEWER@acme.example", "role": "operator"})

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:exists")
    assert Membership.objects.count() == before


def test_me_returns_caller_and_roles(world: World) -> None:
    body = world.operator.api.get("/api/v1/me").json()

    assert body["user"]["email"] == "operator@acme.example"
    assert body["credential"]["family"] == "usr"
    assert body["roles"] == [
        {"organization_id": str(world.organization.pk), "project_id": None, "role": "operator"},
    ]
