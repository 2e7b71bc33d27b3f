"""``Idempotency-Key``: a repetition of a successful request gets the first response and is not executed again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.fleet.models import Agent
from apps.tenancy.models import AuditEvent, IdempotencyKey, OrganizationKey, Project
from apps.tenancy.services import organizations
from apps.tenancy.tasks import close_minute
from tests.races import Race
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db


def projects(world: World) -> str:
    return f"/api/v1/orgs/{world.organization.pk}/projects"


def test_repeated_successful_request_gets_first_response(world: World) -> None:
    first = world.admin.api.post(projects(world), {"name": "billing"}, Idempotency_Key="k1")
    events = AuditEvent.objects.count()

    again = world.admin.api.post(projects(world), {"name": "billing"}, Idempotency_Key="k1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert (again["ETag"], again["Location"]) == (first["ETag"], first["Location"])
    assert (first.headers.get("Idempotent-Replayed"), again["Idempotent-Replayed"]) == (None, "true")
    assert Project.objects.filter(name="billing").count() == 1
    assert AuditEvent.objects.count() == events


def test_etag_of_repeated_response_is_valid(world: World) -> None:
    body = {"name": "billing"}
    world.admin.api.post(projects(world), body, Idempotency_Key="k1")
    again = world.admin.api.post(projects(world), body, Idempotency_Key="k1")

    edited = world.admin.api.put(again["Location"], {"name": "invoices"}, If_Match=again["ETag"])

    assert edited.status_code == 200


def test_equal_json_in_another_notation_counts_as_same_request(world: World) -> None:
    first = world.admin.api.post(projects(world), b'{"name": "billing", "slug": "b"}', Idempotency_Key="k1")
    again = world.admin.api.post(projects(world), b'{"slug":"b","name":"billing"}', Idempotency_Key="k1")

    assert again.json() == first.json()
    assert again["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    ("path", "body"),
    [("/projects", {"name": "other"}), ("/members", {"name": "billing"})],
)
def test_different_request_with_same_key_returns_409(world: World, path: str, body: dict[str, Any]) -> None:
    world.admin.api.post(projects(world), {"name": "billing"}, Idempotency_Key="k1")

    response = world.admin.api.post(f"/api/v1/orgs/{world.organization.pk}{path}", body, Idempotency_Key="k1")

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:idempotency_key_reused")
    assert set(Project.objects.values_list("name", flat=True)) == {"trading", "billing"}


def test_different_people_do_not_share_idempotency_keys(world: World) -> None:
    made = [
        person.api.post(
            world.path(rest="/drafts"), {"name": str(person.user.pk), "plan": {}}, Idempotency_Key="k1"
        ).status_code
        for person in (world.admin, world.operator, world.reviewer)
    ]

    assert made == [201, 201, 201]
    assert IdempotencyKey.objects.filter(key="k1").count() == 3


def test_tokens_of_same_person_share_idempotency_keys(world: World) -> None:
    further = Api(world.admin.api.post("/api/v1/tokens", {"name": "further"}).json()["token"])
    first = world.admin.api.post(projects(world), {"name": "billing"}, Idempotency_Key="k1")

    again = further.post(projects(world), {"name": "billing"}, Idempotency_Key="k1")

    assert (again.status_code, again.json()) == (201, first.json())


def test_error_responses_are_not_stored(world: World) -> None:
    taken = world.admin.api.post(projects(world), {"name": "trading"}, Idempotency_Key="k1")
    invalid = world.admin.api.post(projects(world), {"nam": "x"}, Idempotency_Key="k1")

    right = world.admin.api.post(projects(world), {"name": "billing"}, Idempotency_Key="k1")

    assert (taken.status_code, invalid.status_code, right.status_code) == (409, 400, 201)
    assert "Idempotent-Replayed" not in right


@pytest.mark.parametrize("key", ["", " " * 256, "k" * 256, "schlüssel"])
def test_invalid_idempotency_key_is_rejected(world: World, key: str) -> None:
    response = world.admin.api.post(projects(world), {"name": "billing"}, Idempotency_Key=key)

    assert response.status_code == 400
    assert not Project.objects.filter(name="billing").exists()


def test_idempotency_key_is_stored_in_same_transaction_as_write(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = IdempotencyKey.save

    def broken(key: IdempotencyKey, **options: Any) -> None:
        real(key, **options)
        raise RuntimeError("the process dies here")

    monkeypatch.setattr(IdempotencyKey, "save", broken)
    with pytest.raises(AssertionError, match="returned 500"):  # the test client raises for undocumented statuses
        world.admin.api.post(projects(world), {"name": "billing"}, Idempotency_Key="k1")

    assert not Project.objects.filter(name="billing").exists()
    assert not IdempotencyKey.objects.exists()


def test_response_without_secret_is_kept_for_one_day(world: World) -> None:
    world.admin.api.post(projects(world), {"name": "billing"}, Idempotency_Key="k1")
    kept = IdempotencyKey.objects.get()
    left = kept.expires_at - timezone.now()

    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)


def test_response_with_secret_is_kept_encrypted_for_ten_minutes(world: World) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/api-keys"
    body = {"name": "ci", "role": "viewer"}
    secret = world.admin.api.post(path, body, Idempotency_Key="k1").json()["token"]

    again = world.admin.api.post(path, body, Idempotency_Key="k1")

    assert again.json()["token"] == secret
    kept = IdempotencyKey.objects.get()
    assert timedelta(minutes=9, seconds=50) < kept.expires_at - timezone.now() <= timedelta(minutes=10)
    stored = bytes(kept.response)
    assert secret.encode() not in stored
    assert b"bor_" not in stored
    assert b"token" not in stored


def test_expired_idempotency_key_can_be_reused(world: World) -> None:
    path = f"/api/v1/orgs/{world.organization.pk}/api-keys"
    first = world.admin.api.post(path, {"name": "ci", "role": "viewer"}, Idempotency_Key="k1").json()
    IdempotencyKey.objects.update(expires_at=timezone.now())

    second = world.admin.api.post(path, {"name": "cd", "role": "viewer"}, Idempotency_Key="k1")

    assert (second.status_code, second.json()["name"]) == (201, "cd")
    assert second.json()["token"] != first["token"]
    assert OrganizationKey.objects.count() == 2
    assert IdempotencyKey.objects.count() == 1


def test_job_close_minute_deletes_only_expired_idempotency_keys(world: World) -> None:
    for key in ("old", "new"):
        world.admin.api.post(projects(world), {"name": key}, Idempotency_Key=key)
    IdempotencyKey.objects.filter(key="old").update(expires_at=timezone.now())

    close_minute()

    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["new"]


def test_enrollment_with_lost_response_can_be_repeated(world: World) -> None:
    enroller = Api(world.enrollment_token())
    path = world.path(rest="/agents")
    first = enroller.post(path, {"name": "edge"}, Idempotency_Key="k1")

    again = enroller.post(path, {"name": "edge"}, Idempotency_Key="k1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert Agent.objects.count() == 1


@pytest.mark.parametrize("headers", [{}, {"Idempotency_Key": "k2"}])
def test_used_up_enrollment_token_creates_no_second_agent(world: World, headers: dict[str, str]) -> None:
    enroller = Api(world.enrollment_token())
    enroller.post(world.path(rest="/agents"), {"name": "edge"}, Idempotency_Key="k1")

    response = enroller.post(world.path(rest="/agents"), {"name": "edge two"}, **headers)

    assert (response.status_code, response.json()["type"]) == (401, "urn:byteor:problem:unauthenticated")
    assert Agent.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_second_request_with_same_key_does_not_wait_for_first(
    concurrently: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("acme")
    real = organizations.create_project
    held: list[Any] = []

    def slow(**columns: Any) -> Project:
        project = real(**columns)
        # The first request has locked the key. The second request is sent while the first is still running.
        (response,) = concurrently(
            lambda: Api(world.admin.api.token).post(projects(world), {"name": "billing"}, Idempotency_Key="k1")
        )
        held.append(response)
        return project

    monkeypatch.setattr(organizations, "create_project", slow)
    first = world.admin.api.post(projects(world), {"name": "billing"}, Idempotency_Key="k1")

    assert first.status_code == 201
    assert held[0].status_code == 409
    assert 1 <= int(held[0]["Retry-After"]) <= 1 + 3
    assert Project.objects.filter(name="billing").count() == 1


@pytest.mark.django_db(transaction=True)
def test_only_one_of_concurrent_requests_with_same_key_is_executed(concurrently: Race) -> None:
    world = World("acme")
    calls = [lambda: Api(world.admin.api.token).post(projects(world), {"name": "billing"}, Idempotency_Key="k1")] * 8

    responses = concurrently(*calls)

    made = [a for a in responses if a.status_code == 201]
    assert {a.status_code for a in responses} <= {201, 409}
    assert len([a for a in made if "Idempotent-Replayed" not in a]) == 1
    assert len({a.json()["id"] for a in made}) == 1
    assert Project.objects.filter(name="billing").count() == 1
