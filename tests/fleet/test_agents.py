"""List, update and decommission agents; rotate agent keys; read the signing keys."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.fleet.models import Agent, AgentKey, Heartbeat
from apps.tenancy.models import AuditEvent
from byteor.engine.signing.keys import KeySet
from tests.releases import stories
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db

BEAT = {"status": "healthy", "agent_version": "1"}


def names(world: World, query: str) -> list[str]:
    response = world.viewer.api.get(world.path(rest=f"/agents?{query}"))
    assert response.status_code == 200, response.json()
    return [row["name"] for row in response.json()["results"]]


def test_agent_list_applies_filters(world: World) -> None:
    alpha, alpha_api = world.agent(name="alpha", zone="a", tier="edge")
    world.agent(name="beta", zone="a")
    world.agent(world.staging, "gamma", zone="a")
    stories.offered(world, world.bundle(), target={"agents": [str(alpha.pk)]})
    alpha_api.post(f"/api/v1/agents/{alpha.pk}/heartbeat", BEAT)
    Agent.objects.filter(pk=alpha.pk).update(hostname="rack-7.example")

    assert names(world, "") == ["beta", "alpha"]
    assert names(world, "name=LPH") == ["alpha"]
    assert names(world, "hostname=rack-7") == ["alpha"]
    assert names(world, "label=zone=a") == ["beta", "alpha"]
    assert names(world, "label=zone=a,tier=edge") == ["alpha"]
    assert names(world, "label=zone=b") == []
    assert names(world, "status=healthy") == ["alpha"]
    assert names(world, "status=failed") == []
    assert names(world, "drifted=true") == ["alpha"]
    assert names(world, "drifted=false") == ["beta"]
    assert names(world, "liveness=online") == ["beta", "alpha"]
    assert names(world, "limit=1") == ["beta"]


@pytest.mark.parametrize(
    "query", ["liveness=dead", "progress=dead", "bundle_hash=a", "label==a", "limit=0", "cursor=x", "created_after=x"]
)
def test_invalid_list_parameters_are_refused(world: World, query: str) -> None:
    response = world.viewer.api.get(world.path(rest=f"/agents?{query}"))

    assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json")


def test_query_count_does_not_depend_on_number_of_agents(world: World) -> None:
    counts = []
    for number in range(2):
        world.agent(name=f"agent-{number}")
        names(world, "")
        with CaptureQueriesContext(connection) as queries:
            names(world, "")
        counts.append(len(queries))

    assert counts[0] == counts[1]


def test_update_changes_name_and_labels_of_agent(world: World) -> None:
    agent, _ = world.agent(name="old", zone="a")
    path = world.path(rest=f"/agents/{agent.pk}")
    before = world.operator.api.get(path)

    response = world.operator.api.patch(path, {"name": "new", "labels": {"tier": "edge"}}, If_Match=before["ETag"])

    assert (response.status_code, response.json()["name"], response.json()["labels"]) == (200, "new", {"tier": "edge"})
    assert response.json()["updated_at"] > before.json()["updated_at"]
    event = AuditEvent.objects.get(action="agent.update")
    assert event.changes == {"name": ["old", "new"], "labels": [{"zone": "a"}, {"tier": "edge"}]}
    stale = world.operator.api.patch(path, {"name": "newer"}, If_Match=before["ETag"])
    assert (stale.status_code, Agent.objects.get().name) == (412, "new")


def test_changing_labels_in_prod_requires_permission_to_manage_environment(world: World) -> None:
    agent, _ = world.agent(world.prod, name="old", zone="a")
    path = world.path(world.prod, f"/agents/{agent.pk}")

    refused = world.operator.api.patch(path, {"name": "new", "labels": {"zone": "b"}})

    assert (refused.status_code, refused.json()["type"]) == (403, "urn:byteor:problem:forbidden")
    agent.refresh_from_db()
    assert (agent.name, agent.labels, agent.revision) == ("old", {"zone": "a"}, 1)
    assert not AuditEvent.objects.filter(action="agent.update").exists()
    renamed = world.operator.api.patch(path, {"name": "new", "labels": {"zone": "a"}})
    assert (renamed.status_code, renamed.json()["name"]) == (200, "new")
    relabeled = world.project_admin.api.patch(path, {"labels": {"zone": "b"}})
    assert (relabeled.status_code, relabeled.json()["labels"]) == (200, {"zone": "b"})


def test_update_with_etag_from_before_heartbeat_succeeds(world: World) -> None:
    agent, api = world.agent()
    path = world.path(rest=f"/agents/{agent.pk}")
    before = world.operator.api.get(path)["ETag"]
    api.post(f"/api/v1/agents/{agent.pk}/heartbeat", BEAT)

    assert world.operator.api.patch(path, {"name": "new"}, If_Match=before).status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"), [({"name": ""}, "/name"), ({"labels": {"a": None}}, "/labels/a"), ({"zone": "a"}, "/zone")]
)
def test_update_error_names_invalid_field(world: World, body: dict[str, Any], pointer: str) -> None:
    agent, _ = world.agent(name="old", zone="a")

    response = world.operator.api.patch(world.path(rest=f"/agents/{agent.pk}"), body)

    assert response.status_code == 400
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    agent.refresh_from_db()
    assert (agent.name, agent.labels, agent.revision) == ("old", {"zone": "a"}, 1)


def test_agent_cannot_be_renamed_to_taken_name(world: World) -> None:
    world.agent(name="one")
    two, _ = world.agent(name="two")

    response = world.operator.api.patch(world.path(rest=f"/agents/{two.pk}"), {"name": "one"})

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:name_taken")
    two.refresh_from_db()
    assert two.name == "two"


def test_viewers_cannot_change_agents(world: World) -> None:
    agent, api = world.agent(name="a")
    path = world.path(rest=f"/agents/{agent.pk}")

    responses = [
        world.viewer.api.patch(path, {"name": "b"}), world.viewer.api.delete(path),
        world.viewer.api.post(f"{path}/rotate-key"),
    ]  # fmt: skip

    assert [response.status_code for response in responses] == [403, 403, 403]
    assert api.get(f"/api/v1/agents/{agent.pk}").json()["name"] == "a"


def test_rotation_now_revokes_old_key_immediately(world: World) -> None:
    agent, old = world.agent()
    path = f"/api/v1/agents/{agent.pk}"

    response = world.operator.api.post(world.path(rest=f"/agents/{agent.pk}/rotate-key"))

    assert (response.status_code, response.json()["agent_id"]) == (201, str(agent.pk))
    new = Api(response.json()["token"])
    assert (old.get(path).status_code, new.get(path).status_code) == (401, 200)
    assert old.post(f"{path}/heartbeat", BEAT).status_code == 401
    assert new.post(f"{path}/heartbeat", BEAT).status_code == 200
    assert AgentKey.objects.filter(revoked_at=None).count() == 1
    actions = ["agent_key.create", "agent_key.revoke", "agent_key.create"]
    found = AuditEvent.objects.filter(action__startswith="agent_key").order_by("id")
    assert list(found.values_list("action", flat=True)) == actions


def test_decommissioned_agent_is_not_found_and_its_key_is_refused(world: World) -> None:
    agent, api = world.agent(name="a")
    path = world.path(rest=f"/agents/{agent.pk}")

    assert world.operator.api.delete(path).status_code == 204

    assert api.get(f"/api/v1/agents/{agent.pk}").status_code == 401
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", BEAT).status_code == 401
    for response in (
        world.operator.api.get(path), world.operator.api.delete(path), world.operator.api.post(f"{path}/rotate-key"),
        world.operator.api.patch(path, {"name": "b"}),
    ):  # fmt: skip
        assert response.status_code == 404
    assert names(world, "") == []
    assert AuditEvent.objects.filter(action="agent.decommission", resource_id=str(agent.pk)).count() == 1
    again, _ = world.agent(name="a")
    assert again.pk != agent.pk


def test_agent_cannot_read_other_agents(world: World) -> None:
    (one, api), (two, _) = stories.fleet(world, 2)

    assert api.get(f"/api/v1/agents/{one.pk}").json()["id"] == str(one.pk)
    for rest in ("", "/deployment", "/signing-key", "/deployment/bundle?hash=x"):
        assert api.get(f"/api/v1/agents/{two.pk}{rest}").status_code == 404
    assert api.get(world.path(rest=f"/agents/{one.pk}")).status_code == 403
    assert Heartbeat.objects.count() == 2


def test_signing_keys_are_returned_with_etag(world: World) -> None:
    agent, api = world.agent()
    path = f"/api/v1/agents/{agent.pk}/signing-key"

    response = api.get(path)
    again = api.get(path, If_None_Match=response["ETag"])

    keys = KeySet.parse(response.content)
    (only,) = response.json()["keys"]
    assert response.json()["active_kid"] == keys.active.kid == only["kid"]
    assert {name: only[name] for name in ("kty", "crv", "alg", "use", "status", "not_after")} == {
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "status": "active", "not_after": None,
    }  # fmt: skip
    assert "max-age" in response["Cache-Control"]
    assert (again.status_code, again.content) == (304, b"")
