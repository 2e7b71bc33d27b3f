"""Credentials: their text form, lifetime, revocation and roles."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.tenancy import credentials
from apps.tenancy.credentials import Family
from apps.tenancy.models import Membership, OrganizationKey, UserToken
from apps.tenancy.permissions import GRANTS, Role
from apps.tenancy.services import organizations, tokens
from tests.patience import PATIENCE_S
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db
DAY = 86400


@pytest.mark.parametrize("family", Family)
def test_credential_text_contains_family_and_checksum(family: Family) -> None:
    secret = credentials.generate(family)

    assert len(secret.text) == len("bor_usr_") + 43 + 6
    assert secret.text.startswith(f"bor_{family}_")
    assert credentials.family_of(secret.text) is family
    assert secret.text not in repr(secret)
    assert secret.prefix == secret.text[:14]


def test_checksum_is_crc_32_in_base62() -> None:
    body = "bor_usr_" + "0" * 43

    # Computed independently of the code: the CRC-32 is 0x8801402d = 2281783341, in base62 2UQ857.
    assert credentials.family_of(body + "2UQ857") is Family.USER
    assert credentials.family_of(body + "2UQ858") is None


@pytest.mark.parametrize("at", range(8, 57))
def test_credential_with_wrong_character_is_refused_without_query(at: int) -> None:
    text = credentials.generate(Family.USER).text
    wrong = text[:at] + ("a" if text[at] != "a" else "b") + text[at + 1 :]

    assert credentials.family_of(wrong) is None
    with CaptureQueriesContext(connection) as captured:
        assert Api(wrong).get("/api/v1/me").status_code == 401
    assert len(captured) == 0


@pytest.mark.parametrize(
    "header", ["Basic YTpi", "Bearer", "Bearer ", "bor_usr_x", "Bearer a b", "Token x", "Bearer bor_adm_" + "0" * 49]
)
def test_malformed_authorization_headers_are_rejected(world: World, header: str) -> None:
    response = Api(None).get("/api/v1/me", Authorization=header)

    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Bearer")


def test_authorization_scheme_is_case_insensitive(world: World) -> None:
    assert Api(None).get("/api/v1/me", Authorization=f"bearer {world.viewer.api.token}").status_code == 200


def test_only_digest_and_prefix_of_token_are_stored(world: World) -> None:
    text = world.viewer.api.post("/api/v1/tokens", {"name": "laptop"}).json()["token"]
    row = UserToken.objects.get(name="laptop")

    assert row.digest == credentials.credential_digest(text)
    stored = {f.name: str(getattr(row, f.attname)) for f in row._meta.concrete_fields}
    assert [name for name, value in stored.items() if text[14:] in value or text in value] == []


def test_token_is_returned_on_creation_but_not_in_list(world: World) -> None:
    made = world.viewer.api.post("/api/v1/tokens", {"name": "laptop"}).json()

    listed = world.viewer.api.get("/api/v1/tokens").json()["results"]

    assert made["token"].startswith(made["prefix"])
    assert {row["name"] for row in listed} == {"test", "laptop"}
    assert all("token" not in row for row in listed)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [({}, 30 * DAY), ({"expires_in_s": 60}, 60), ({"expires_in_s": 90 * DAY}, 90 * DAY)],
)
def test_token_expires_after_requested_or_default_lifetime(world: World, body: dict[str, Any], seconds: int) -> None:
    made = world.viewer.api.post("/api/v1/tokens", {"name": "laptop", **body}).json()
    row = UserToken.objects.get(pk=made["id"])

    assert row.expires_at is not None
    assert abs((row.expires_at - row.created_at).total_seconds() - seconds) < PATIENCE_S


@pytest.mark.parametrize("seconds", [59, 90 * DAY + 1, 10**12, 1e3])
def test_lifetime_out_of_bounds_or_not_integer_is_rejected(world: World, seconds: Any) -> None:
    before = UserToken.objects.count()

    response = world.viewer.api.post("/api/v1/tokens", {"name": "laptop", "expires_in_s": seconds})

    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/expires_in_s")
    assert UserToken.objects.count() == before


def test_token_max_days_limits_lifetime_of_organization_keys_and_of_members_tokens(world: World, other: World) -> None:
    org = f"/api/v1/orgs/{world.organization.pk}"
    assert world.admin.api.put(org, {"settings": {"token_max_days": 7}}).status_code == 200

    default = world.viewer.api.post("/api/v1/tokens", {"name": "a"}).json()
    longer = world.viewer.api.post("/api/v1/tokens", {"name": "b", "expires_in_s": 8 * DAY})
    key = world.admin.api.post(f"{org}/api-keys", {"name": "c", "role": "viewer", "expires_in_s": 8 * DAY})
    elsewhere = other.viewer.api.post("/api/v1/tokens", {"name": "b", "expires_in_s": 8 * DAY})

    lived = UserToken.objects.get(pk=default["id"])
    assert lived.expires_at is not None
    assert lived.expires_at - lived.created_at < timedelta(days=7, seconds=2)
    assert [r.status_code for r in (longer, key, elsewhere)] == [400, 400, 201]


def test_role_in_deleted_project_is_not_shown_and_does_not_limit_token_lifetime(world: World) -> None:
    shorter = {"settings": {"token_max_days": 7}}
    assert world.admin.api.put(f"/api/v1/orgs/{world.organization.pk}", shorter).status_code == 200
    Membership.objects.filter(user=world.viewer.user).update(project=world.project)
    longer = {"name": "b", "expires_in_s": 8 * DAY}
    assert world.viewer.api.post("/api/v1/tokens", longer).status_code == 400
    organizations.delete(world.project, kind="project", actor=world.admin.actor)

    assert world.viewer.api.get("/api/v1/me").json()["roles"] == []
    assert world.viewer.api.get(f"/api/v1/orgs/{world.organization.pk}").status_code == 404
    assert world.viewer.api.post("/api/v1/tokens", longer).status_code == 201


def test_revoked_token_is_rejected_immediately(world: World) -> None:
    made = world.viewer.api.post("/api/v1/tokens", {"name": "laptop"}).json()
    laptop = Api(made["token"])
    assert laptop.get("/api/v1/me").status_code == 200

    assert world.viewer.api.delete(f"/api/v1/tokens/{made['id']}").status_code == 204

    assert laptop.get("/api/v1/me").status_code == 401
    again = world.viewer.api.delete(f"/api/v1/tokens/{made['id']}")
    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:revoked")


def test_token_of_inactive_person_is_rejected(world: World) -> None:
    world.viewer.user.is_active = False
    world.viewer.user.save()

    assert world.viewer.api.get("/api/v1/me").status_code == 401


def test_last_use_is_stored_at_most_once_per_minute(world: World) -> None:
    token = UserToken.objects.get(user=world.viewer.user)
    assert token.last_used_at is None
    world.viewer.api.get("/api/v1/me")
    token.refresh_from_db()
    first = token.last_used_at
    world.viewer.api.get("/api/v1/me")
    token.refresh_from_db()
    assert token.last_used_at == first is not None

    UserToken.objects.update(last_used_at=timezone.now() - timedelta(seconds=61))
    world.viewer.api.get("/api/v1/me")

    token.refresh_from_db()
    assert token.last_used_at is not None
    assert token.last_used_at >= first


def key(world: World, role: Role, *, project: Any = None, name: str = "ci") -> Api:
    _, text = tokens.create_organization_key(
        organization=world.organization, project=project, name=name, role=role, granter=GRANTS[Role.ORG_ADMIN],
        actor=world.admin.actor,
    )  # fmt: skip
    return Api(text)


def test_key_role_applies_only_in_its_organization(world: World, other: World) -> None:
    api = key(world, Role.OPERATOR)

    assert api.post(world.path(rest="/drafts"), {"name": "d", "plan": {}}).status_code == 201
    assert api.get(f"/api/v1/orgs/{world.organization.pk}/api-keys").status_code == 403
    assert api.get(other.path()).status_code == 404
    assert [row["id"] for row in api.get("/api/v1/orgs").json()["results"]] == [str(world.organization.pk)]
    me = api.get("/api/v1/me").json()
    assert (me["user"], me["credential"]["family"]) == (None, "org")
    assert me["roles"] == [{"organization_id": str(world.organization.pk), "project_id": None, "role": "operator"}]


def test_project_key_sees_only_its_project_and_is_rejected_after_project_deletion(world: World) -> None:
    project = organizations.create_project(organization=world.organization, name="x", actor=world.admin.actor)
    api = key(world, Role.PROJECT_ADMIN, project=project)
    org = f"/api/v1/orgs/{world.organization.pk}"

    assert [row["name"] for row in api.get(f"{org}/projects").json()["results"]] == ["x"]
    assert api.get(f"{org}/projects/{project.pk}").status_code == 200
    assert api.get(world.path()).status_code == 404
    assert api.put(f"{org}/projects/{project.pk}", {"name": "y"}).status_code == 200

    organizations.delete(project, kind="project", actor=world.admin.actor)

    assert api.get("/api/v1/me").status_code == 401


def test_key_with_project_of_another_organization_or_org_admin_role_in_project_is_rejected(
    world: World, other: World
) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/api-keys"
    foreign = {"name": "a", "role": "viewer", "project_id": str(other.project.pk)}
    too_high = {"name": "a", "role": "org_admin", "project_id": str(world.project.pk)}

    responses = [world.admin.api.post(path, body) for body in (foreign, too_high)]

    assert [a.status_code for a in responses] == [400, 400]
    assert [a.json()["errors"][0]["pointer"] for a in responses] == ["/project_id", "/role"]
    assert not OrganizationKey.objects.exists()


def test_name_of_revoked_key_can_be_reused(world: World) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/api-keys"
    first = world.admin.api.post(path, {"name": "ci", "role": "viewer"}).json()
    assert world.admin.api.post(path, {"name": "ci", "role": "viewer"}).status_code == 409

    assert world.admin.api.delete(f"{path}/{first['id']}").status_code == 204

    assert Api(first["token"]).get("/api/v1/me").status_code == 401
    assert world.admin.api.post(path, {"name": "ci", "role": "viewer"}).status_code == 201
