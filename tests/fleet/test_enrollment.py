"""Enrollment tokens: create and revoke them, and enroll agents with them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.fleet.api import authentication
from apps.fleet.models import Agent, AgentKey, EnrollmentToken
from apps.tenancy.credentials import credential_digest
from apps.tenancy.models import AuditEvent, Environment
from byteor.engine.signing.keys import KeySet
from tests.races import Race
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db


def enroll(world: World, token: str, environment: Environment | None = None, **body: Any) -> Any:
    return Api(token).post(world.path(environment, "/agents"), body)


def refused(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response.json()["type"]) == (status, f"urn:byteor:problem:{code}"), response.json()
    assert not Agent.objects.exists()
    assert not EnrollmentToken.objects.filter(uses__gt=0).exists()


def test_enrollment_returns_agent_key_and_signing_keys(world: World) -> None:
    token = world.enrollment_token()

    response = enroll(world, token, name="edge-1", hostname="host.example", labels={"zone": "a"})

    assert response.status_code == 201
    body = response.json()
    agent = Agent.objects.get()
    assert {name: body[name] for name in ("agent_id", "name", "environment_id", "heartbeat_interval_s")} == {
        "agent_id": str(agent.pk), "name": "edge-1", "environment_id": str(world.dev.pk), "heartbeat_interval_s": 30,
    }  # fmt: skip
    assert len(KeySet.from_document(body["signing_keys"]).keys) == 1
    assert response["Location"] == world.path(rest=f"/agents/{agent.pk}")
    own = Api(body["api_key"]).get(f"/api/v1/agents/{agent.pk}").json()
    assert (own["name"], own["hostname"], own["labels"]) == ("edge-1", "host.example", {"zone": "a"})
    assert (own["status"], own["last_seen_at"], own["liveness"], own["drifted"]) == (None, None, "online", False)
    assert [own[state] for state in ("desired", "attempted", "running", "last_failed")] == [None] * 4
    key = AgentKey.objects.get()
    assert (key.digest, body["api_key"][:14]) == (credential_digest(body["api_key"]), key.prefix)
    assert key.scopes == ["agent:heartbeat", "agent:deployment", "agent:artifact_upload", "agent:signing_key"]
    event = AuditEvent.objects.get(action="agent.enroll")
    assert (event.actor_kind, event.resource_id, event.environment_id) == (
        "enrollment_token", str(agent.pk), world.dev.pk,
    )  # fmt: skip
    assert body["api_key"] not in str(list(AuditEvent.objects.values_list("changes", flat=True)))


def test_single_use_token_enrolls_one_of_fifty_concurrent_agents(concurrently: Race, world: World) -> None:
    token = world.enrollment_token()

    responses = concurrently(*(lambda n=n: enroll(world, token, name=f"racer-{n}") for n in range(50)))

    assert sorted(response.status_code for response in responses) == [201] + [401] * 49
    assert all(response["WWW-Authenticate"] == "Bearer" for response in responses if response.status_code == 401)
    assert (Agent.objects.count(), AgentKey.objects.count()) == (1, 1)
    assert EnrollmentToken.objects.get().uses == 1
    assert AuditEvent.objects.filter(action="agent.enroll").count() == 1


def test_token_enrolls_as_many_agents_as_max_uses_allows(concurrently: Race, world: World) -> None:
    token = world.enrollment_token(max_uses=3)

    responses = concurrently(*(lambda: enroll(world, token, hostname="same") for _ in range(6)))

    assert sorted(response.status_code for response in responses) == [201] * 3 + [401] * 3
    names = list(Agent.objects.values_list("name", flat=True))
    assert len(set(names)) == 3
    assert "same" in names
    assert all(name.startswith("same") for name in names)


def test_batched_token_lookup_returns_token_or_none_for_each_digest(world: World) -> None:
    one, two = (credential_digest(world.enrollment_token(max_uses=uses)) for uses in (1, 2))

    found = authentication._find_tokens([two, "unknown", one, two])

    assert [token and token.max_uses for token in found] == [2, None, 1, 2]


@pytest.mark.parametrize(
    "invalidate",
    [
        lambda token: EnrollmentToken.objects.update(expires_at=timezone.now()),
        lambda token: EnrollmentToken.objects.update(revoked_at=timezone.now()),
        lambda token: Environment.objects.update(deleted_at=timezone.now()),
    ],
    ids=["expired", "revoked", "environment deleted"],
)
def test_token_that_is_expired_revoked_or_of_deleted_environment_is_refused(
    world: World, invalidate: Callable[[str], Any]
) -> None:
    token = world.enrollment_token()
    invalidate(token)

    refused(enroll(world, token, name="late"), 401, "unauthenticated")


def test_spent_token_is_refused(world: World) -> None:
    token = world.enrollment_token()
    assert enroll(world, token, name="first").status_code == 201

    again = enroll(world, token, name="second")

    assert (again.status_code, Agent.objects.count()) == (401, 1)


def test_mistyped_token_is_refused(world: World) -> None:
    token = world.enrollment_token()
    wrong = token[:-1] + ("a" if token[-1] != "a" else "b")

    refused(enroll(world, wrong, name="x"), 401, "unauthenticated")


def test_token_is_refused_in_another_environment(world: World, other: World) -> None:
    token = world.enrollment_token()

    refused(enroll(world, token, world.staging, name="x"), 404, "not_found")
    refused(enroll(other, token, name="x"), 404, "not_found")


def test_user_token_cannot_enroll_agents(world: World) -> None:
    response = world.admin.api.post(world.path(rest="/agents"), {"name": "x"})

    refused(response, 403, "wrong_credential")


def test_enrollment_token_cannot_list_agents(world: World) -> None:
    assert Api(world.enrollment_token()).get(world.path(rest="/agents")).status_code == 403


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"name": 5}, "/name"),
        ({"name": "a\u0007"}, "/name"),
        ({"hostname": "white space"}, "/hostname"),
        ({"hostname": "x" * 254}, "/hostname"),
        ({"labels": []}, "/labels"),
        ({"labels": {"a": 5 * ["x"]}}, "/labels/a"),
        ({"labels": {"a,b": "x"}}, "/labels/a,b"),
        ({"labels": {"a": "x" * 256}}, "/labels/a"),
        ({"labels": {str(n): "" for n in range(65)}}, "/labels"),
        ({"public_key": "x" * 2001}, "/public_key"),
        ({"nmae": "x"}, "/nmae"),
    ],
)
def test_invalid_enrollment_does_not_consume_token_use(world: World, body: dict[str, Any], pointer: str) -> None:
    token = world.enrollment_token()

    response = enroll(world, token, **body)

    refused(response, 400, "invalid")
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "body", [b'{"name": "x"', b'{"name": "a", "name": "b"}', b'{"name": "\\u0000"}', b"\xff", b"[]"]
)
def test_malformed_enrollment_does_not_consume_token_use(world: World, body: bytes) -> None:
    response = Api(world.enrollment_token()).post(world.path(rest="/agents"), body)

    assert response.status_code == 400
    assert (Agent.objects.count(), EnrollmentToken.objects.get().uses) == (0, 0)


def test_unnamed_agent_gets_unique_name_from_host_name_or_default(world: World) -> None:
    token = world.enrollment_token(max_uses=3)

    first, second = (enroll(world, token, hostname="h").json()["name"] for _ in range(2))
    third = enroll(world, token).json()["name"]

    assert first == "h"
    assert second.startswith("h-")
    assert third == "agent"


def test_agent_name_from_long_host_name_is_truncated(world: World) -> None:
    token = world.enrollment_token(max_uses=2)
    host = "x" * 253

    names = [enroll(world, token, hostname=host).json()["name"] for _ in range(2)]

    assert names[0] == "x" * 200
    assert names[1].startswith("x" * 180 + "-")
    assert set(Agent.objects.values_list("hostname", flat=True)) == {host}


def test_taken_agent_name_is_refused_without_consuming_token_use(world: World) -> None:
    agent, api = world.agent(name="edge-1")
    token = world.enrollment_token()

    response = enroll(world, token, name="edge-1")

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:name_taken")
    assert EnrollmentToken.objects.get(digest=credential_digest(token)).uses == 0
    assert list(Agent.objects.values_list("pk", flat=True)) == [agent.pk]
    assert api.get(f"/api/v1/agents/{agent.pk}").status_code == 200
    assert enroll(world, token, name="edge-2").status_code == 201


def test_enrollment_with_token_that_allows_replacement_supersedes_agent_with_same_name(world: World) -> None:
    old, old_api = world.agent(name="edge-1")
    bystander, bystander_api = world.agent(name="edge-2")
    elsewhere, elsewhere_api = world.agent(world.staging, "edge-1")

    response = enroll(world, world.enrollment_token(replace=True), name="edge-1")

    assert response.status_code == 201
    assert response.json()["agent_id"] != str(old.pk)
    assert old_api.get(f"/api/v1/agents/{old.pk}").status_code == 401
    beat = {"status": "healthy", "agent_version": "1"}
    assert old_api.post(f"/api/v1/agents/{old.pk}/heartbeat", beat).status_code == 401
    for agent, api in ((bystander, bystander_api), (elsewhere, elsewhere_api)):
        assert api.get(f"/api/v1/agents/{agent.pk}").status_code == 200
    listed = world.viewer.api.get(world.path(rest="/agents")).json()["results"]
    assert [row["name"] for row in listed] == ["edge-1", "edge-2"]
    assert AuditEvent.objects.get(action="agent.supersede").resource_id == str(old.pk)


def test_labels_of_token_and_agent_together_are_limited(world: World) -> None:
    token = world.enrollment_token(labels={f"t{n}": "" for n in range(40)})
    own = {f"a{n}": "" for n in range(25)}

    refused = enroll(world, token, name="a", labels=own)

    assert (refused.status_code, [each["pointer"] for each in refused.json()["errors"]]) == (400, ["/labels"])
    assert not Agent.objects.exists()
    assert EnrollmentToken.objects.get().uses == 0
    own.pop("a0")
    assert enroll(world, token, name="a", labels=own).status_code == 201
    assert len(Agent.objects.get().labels) == 64


def test_token_labels_take_precedence_over_labels_of_agent(world: World) -> None:
    token = world.enrollment_token(labels={"zone": "token", "tier": "edge"})

    body = enroll(world, token, name="a", labels={"zone": "mine", "disk": "ssd"}).json()

    assert Agent.objects.get(pk=body["agent_id"]).labels == {"zone": "token", "tier": "edge", "disk": "ssd"}


def test_repeated_enrollment_with_idempotency_key_returns_same_agent(world: World) -> None:
    api, path = Api(world.enrollment_token(max_uses=2)), world.path(rest="/agents")

    first, second = (api.post(path, {"name": "a"}, Idempotency_Key="once") for _ in range(2))

    assert second.json() == first.json()
    assert (second["Idempotent-Replayed"], Agent.objects.count(), EnrollmentToken.objects.get().uses) == ("true", 1, 1)


def test_revoking_token_does_not_affect_enrolled_agents(world: World) -> None:
    text = world.enrollment_token(max_uses=5)
    body = enroll(world, text, name="a").json()
    token = EnrollmentToken.objects.get()
    path = world.path(rest=f"/enrollment-tokens/{token.pk}")

    assert world.operator.api.delete(path).status_code == 403
    assert world.project_admin.api.delete(path).status_code == 204

    assert enroll(world, text, name="b").status_code == 401
    assert Api(body["api_key"]).get(f"/api/v1/agents/{body['agent_id']}").status_code == 200
    assert world.project_admin.api.delete(path).status_code == 409


def test_new_token_has_defaults_and_secret_is_shown_once(world: World) -> None:
    path = world.path(rest="/enrollment-tokens")
    before = timezone.now()

    created = world.project_admin.api.post(path, {})

    assert created.status_code == 201
    body = created.json()
    token = EnrollmentToken.objects.get()
    assert (token.max_uses, token.uses, token.replace, token.labels) == (1, 0, False, {})
    assert token.expires_at is not None
    assert abs(token.expires_at - before - timedelta(hours=1)) < timedelta(seconds=30)
    assert token.digest == credential_digest(body["token"])
    (listed,) = world.project_admin.api.get(path).json()["results"]
    assert body["token"] not in str(listed)
    assert "token" not in listed
    assert listed["prefix"] == body["token"][:14]
    assert world.operator.api.post(path, {}).status_code == 403


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"max_uses": 0}, "/max_uses"), ({"expires_in_s": 1}, "/expires_in_s"), ({"labels": {"": "x"}}, "/labels/"),
        ({"replace": "perhaps"}, "/replace"), ({"maximum": 2}, "/maximum"), ({"uses": -1}, "/uses"),
    ],
)  # fmt: skip
def test_token_creation_error_names_invalid_field(world: World, body: dict[str, Any], pointer: str) -> None:
    response = world.project_admin.api.post(world.path(rest="/enrollment-tokens"), body)

    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert EnrollmentToken.objects.count() == 0
