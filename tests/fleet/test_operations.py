"""Operations on agents: drain, key rotation, and clone detection."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.fleet.models import Agent, AgentKey, Heartbeat
from apps.fleet.services import keys
from apps.tenancy.actors import Actor
from apps.tenancy.models import AuditEvent
from apps.tenancy.permissions import Role
from byteor_cloud.errors import Unauthenticated
from tests.races import Race
from tests.releases import stories
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db

BEAT = {"status": "healthy", "agent_version": "1"}


def beat(api: Api, agent: Agent, **body: Any) -> Any:
    return api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {**BEAT, **body})


def rotate(api: Api, agent: Agent) -> Any:
    return api.post(f"/api/v1/agents/{agent.pk}/rotate-key")


def listed(world: World, query: str) -> list[str]:
    return [row["name"] for row in world.viewer.api.get(world.path(rest=f"/agents?{query}")).json()["results"]]


def request_rotation(world: World, agent: Agent) -> Any:
    path = world.path(agent.environment, f"/agents/{agent.pk}/rotate-key")
    return world.operator.api.post(path, {"mode": "by_agent"})


def test_agent_can_be_drained_and_undrained(world: World) -> None:
    agent, api = world.agent()
    world.agent(name="other")
    path = world.path(rest=f"/agents/{agent.pk}")

    drained = world.operator.api.post(f"{path}/drain", {"reason": "new disk"})

    assert (drained.status_code, drained.json()["drain_reason"]) == (200, "new disk")
    assert drained.json()["drained_at"] is not None
    assert (listed(world, "drained=true"), listed(world, "drained=false")) == (["agent"], ["other"])
    assert beat(api, agent).status_code == 200
    again = world.operator.api.post(f"{path}/drain")
    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:drained")
    undrained = world.operator.api.post(f"{path}/undrain", {})
    assert (undrained.json()["drained_at"], undrained.json()["drain_reason"]) == (None, "")
    again = world.operator.api.post(f"{path}/undrain")
    assert (again.status_code, again.json()["type"]) == (409, "urn:byteor:problem:not_drained")
    events = AuditEvent.objects.filter(resource_id=str(agent.pk), action__in=["agent.drain", "agent.undrain"])
    assert [event.changes["reason"] for event in events.order_by("id")] == ["new disk", ""]


@pytest.mark.parametrize("operation", ["drain", "undrain", "rotate-key"])
def test_viewers_cannot_drain_or_undrain_agents_or_rotate_their_keys(world: World, operation: str) -> None:
    agent, _ = world.agent()

    response = world.viewer.api.post(world.path(rest=f"/agents/{agent.pk}/{operation}"))

    agent.refresh_from_db()
    assert (response.status_code, agent.drained_at) == (403, None)


def test_concurrent_drains_record_one_event(concurrently: Race, world: World) -> None:
    agent, _ = world.agent()
    path = world.path(rest=f"/agents/{agent.pk}/drain")

    responses = concurrently(*(lambda: world.operator.api.post(path) for _ in range(5)))

    assert sorted(response.status_code for response in responses) == [200] + [409] * 4
    assert AuditEvent.objects.filter(action="agent.drain").count() == 1


def test_heartbeats_return_rotate_command_until_new_key_is_used(world: World) -> None:
    agent, old = world.agent()
    assert beat(old, agent).json()["commands"] == []

    response = request_rotation(world, agent)

    assert (response.status_code, response.json()) == (202, {"agent_id": str(agent.pk), "mode": "by_agent"})
    assert beat(old, agent).json()["commands"] == ["rotate_key"]
    new = Api(rotate(old, agent).json()["token"])
    assert beat(old, agent).json()["commands"] == ["rotate_key"]
    assert beat(new, agent).json()["commands"] == []
    assert beat(old, agent).status_code == 401
    assert beat(new, agent).json()["commands"] == []
    assert AgentKey.objects.filter(revoked_at=None).count() == 1
    revoked = AuditEvent.objects.get(action="agent_key.revoke")
    assert (revoked.actor_kind, revoked.actor_id) == ("agent", str(agent.pk))


def test_rotation_request_repeated_before_rotation_is_recorded_once(world: World) -> None:
    agent, _ = world.agent()

    responses = [request_rotation(world, agent) for _ in range(2)]

    assert [response.status_code for response in responses] == [202, 202]
    assert AuditEvent.objects.filter(action="agent.request_key_rotation").count() == 1


@pytest.mark.parametrize("rest", ["", "/deployment", "/signing-key"])
def test_first_use_of_new_key_revokes_old_key(world: World, rest: str) -> None:
    agent, old = world.agent()
    new = Api(rotate(old, agent).json()["token"])
    assert old.get(f"/api/v1/agents/{agent.pk}").status_code == 200

    assert new.get(f"/api/v1/agents/{agent.pk}{rest}").status_code == 200

    assert old.get(f"/api/v1/agents/{agent.pk}").status_code == 401


def test_old_key_expires_24_hours_after_rotation_by_agent(world: World) -> None:
    agent, old = world.agent()
    new = Api(rotate(old, agent).json()["token"])
    ends = AgentKey.objects.get(is_pending=False).expires_at
    assert ends is not None
    assert timedelta(hours=23, minutes=59) < ends - timezone.now() <= timedelta(hours=24)

    AgentKey.objects.filter(is_pending=False).update(expires_at=timezone.now() - timedelta(hours=1))

    assert beat(old, agent).status_code == 401
    assert beat(new, agent).status_code == 200


def test_second_new_key_replaces_unused_key(world: World) -> None:
    agent, old = world.agent()
    lost = Api(rotate(old, agent).json()["token"])

    new = Api(rotate(old, agent).json()["token"])

    assert beat(lost, agent).status_code == 401
    assert beat(old, agent).status_code == 200
    assert beat(new, agent).status_code == 200
    assert beat(old, agent).status_code == 401


def test_key_rotated_by_agent_keeps_scopes(world: World) -> None:
    agent, api = world.agent()
    AgentKey.objects.update(scopes=["agent:heartbeat"])

    rotate(api, agent)

    assert AgentKey.objects.get(is_pending=True).scopes == ["agent:heartbeat"]


def test_revoked_key_cannot_create_new_key(world: World) -> None:
    agent, _ = world.agent()
    key = AgentKey.objects.select_related("agent__environment__project").get()
    keys.rotate_key(agent, actor=world.admin.actor)

    with pytest.raises(Unauthenticated):
        keys.rotate_own_key(key, actor=Actor("agent", str(agent.pk), "agent"))

    assert AgentKey.objects.count() == 2


def test_rotation_now_cancels_rotation_by_agent(world: World) -> None:
    agent, old = world.agent()
    request_rotation(world, agent)
    pending = Api(rotate(old, agent).json()["token"])

    response = world.operator.api.post(world.path(rest=f"/agents/{agent.pk}/rotate-key"), {"mode": "now"})

    new = Api(response.json()["token"])
    assert [beat(api, agent).status_code for api in (old, pending, new)] == [401, 401, 200]
    assert beat(new, agent).json()["commands"] == []


def test_unknown_rotation_mode_is_refused(world: World) -> None:
    agent, api = world.agent()

    response = world.operator.api.post(world.path(rest=f"/agents/{agent.pk}/rotate-key"), {"mode": "later"})

    assert (response.status_code, beat(api, agent).json()["commands"]) == (400, [])


def test_only_one_of_two_clones_keeps_access_after_rotation(concurrently: Race, world: World) -> None:
    agent, shared = world.agent()

    fetched = [
        Api(response.json()["token"]) for response in concurrently(*(lambda: rotate(shared, agent) for _ in range(2)))
    ]

    statuses = sorted(beat(api, agent).status_code for api in fetched)
    assert statuses == [200, 401]
    assert beat(shared, agent).status_code == 401


def test_concurrent_first_uses_of_new_key_finish_rotation_once(concurrently: Race, world: World) -> None:
    agent, old = world.agent()
    token = rotate(old, agent).json()["token"]

    responses = concurrently(*(lambda: beat(Api(token), agent) for _ in range(4)))

    assert [response.status_code for response in responses] == [200] * 4
    assert AuditEvent.objects.filter(action="agent_key.revoke").count() == 1
    assert beat(old, agent).status_code == 401


def suspected(agent: Agent) -> bool:
    return Heartbeat.objects.get(agent=agent).clone_suspected_at is not None


def test_return_of_recent_boot_id_raises_clone_suspicion(world: World) -> None:
    agent, api = world.agent()
    for boot in ("a", "a", "b"):
        beat(api, agent, boot_id=boot)
    assert not suspected(agent)  # a restart raises no suspicion

    beat(api, agent, boot_id="a")

    assert suspected(agent)
    since = Heartbeat.objects.get().clone_suspected_at
    beat(api, agent, boot_id="b")
    assert Heartbeat.objects.get().clone_suspected_at == since
    assert (listed(world, "cloned=true"), listed(world, "cloned=false")) == (["agent"], [])
    shown = world.viewer.api.get(world.path(rest=f"/agents/{agent.pk}")).json()
    assert shown["clone_suspected_at"] is not None


@pytest.mark.parametrize("others", [["b", None, "b"], ["b", "", "c"], ["b", "c", "d"]])
def test_new_repeated_or_missing_boot_ids_raise_no_clone_suspicion(world: World, others: list[str | None]) -> None:
    agent, api = world.agent()

    for boot in ("a", *others):
        assert beat(api, agent, boot_id=boot).status_code == 200

    assert not suspected(agent)


def test_boot_id_returning_after_24_hours_raises_no_clone_suspicion(world: World) -> None:
    agent, api = world.agent()
    beat(api, agent, boot_id="a")
    beat(api, agent, boot_id="b")
    Heartbeat.objects.update(superseded_boots={"a": timezone.now().timestamp() - 86_401})

    beat(api, agent, boot_id="a")

    assert not suspected(agent)


def test_at_most_16_earlier_boot_ids_are_stored(world: World) -> None:
    agent, api = world.agent()

    for number in range(30):
        beat(api, agent, boot_id=f"boot-{number}")

    assert set(Heartbeat.objects.get().superseded_boots) == {f"boot-{number}" for number in range(13, 29)}


def test_return_of_recent_boot_id_in_report_raises_clone_suspicion(world: World) -> None:
    agent, api = world.agent()
    deployment = stories.offered(world, world.bundle())
    beat(api, agent, boot_id="a")
    deployment.refresh_from_db()
    report = {"deployment_id": str(deployment.pk), "bundle_hash": deployment.bundle_hash}

    for boot, status in (("b", "downloading"), ("a", "activating")):
        response = api.post(f"/api/v1/agents/{agent.pk}/deployment", {**report, "status": status, "boot_id": boot})
        assert response.status_code == 200

    assert suspected(agent)


@pytest.mark.parametrize("boot_id", ["x" * 65, 5, ["a"]])
def test_invalid_boot_id_is_refused(world: World, boot_id: Any) -> None:
    agent, api = world.agent()

    response = beat(api, agent, boot_id=boot_id)

    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (400, "/boot_id")
    assert Heartbeat.objects.get().last_seen_at is None


def test_boot_id_has_at_most_64_characters(world: World) -> None:
    agent, api = world.agent()
    deployment = stories.offered(world, world.bundle())
    deployment.refresh_from_db()
    report = {"deployment_id": str(deployment.pk), "bundle_hash": deployment.bundle_hash, "status": "downloading"}

    assert beat(api, agent, boot_id="x" * 64).status_code == 200
    refused = api.post(f"/api/v1/agents/{agent.pk}/deployment", {**report, "boot_id": "x" * 65})

    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (400, "/boot_id")
    assert Heartbeat.objects.get().boot_id == "x" * 64


def suspect(world: World) -> tuple[Agent, Api]:
    """Enroll an agent, and raise a clone suspicion with alternating heartbeats of two processes."""
    agent, api = world.agent()
    for boot in "aba":
        beat(api, agent, boot_id=boot)
    assert suspected(agent)
    return agent, api


def rotate_now(api: Api, world: World, agent: Agent) -> Any:
    return api.post(world.path(rest=f"/agents/{agent.pk}/rotate-key"), {"mode": "now"})


def refused_for_clone(response: Any) -> None:
    problem = response.json()
    assert (response.status_code, problem["type"]) == (409, "urn:byteor:problem:clone_suspected"), problem
    assert "`mode: now`" in problem["detail"]


def test_immediate_key_rotation_by_person_clears_clone_suspicion(world: World) -> None:
    agent, api = suspect(world)
    since = Heartbeat.objects.get(agent=agent).clone_suspected_at

    new = Api(rotate_now(world.operator.api, world, agent).json()["token"])

    assert not suspected(agent)
    assert beat(api, agent, boot_id="b").status_code == 401
    assert beat(new, agent, boot_id="b").status_code == 200
    assert not suspected(agent)  # the earlier boot ids were deleted
    event = AuditEvent.objects.get(action="agent.clear_clone_suspicion")
    assert (event.actor_display, event.resource_id) == (world.operator.user.email, str(agent.pk))
    assert since is not None
    assert event.changes == {"clone_suspected_at": [since.isoformat(), None]}
    rotate_now(world.operator.api, world, agent)
    assert AuditEvent.objects.filter(action="agent.clear_clone_suspicion").count() == 1


def test_rotation_now_by_organization_key_keeps_clone_suspicion(world: World) -> None:
    agent, _ = suspect(world)
    made = world.admin.api.post(f"/api/v1/orgs/{world.organization.pk}/api-keys", {"name": "ci", "role": Role.OPERATOR})

    rotated = rotate_now(Api(made.json()["token"]), world, agent)

    assert (rotated.status_code, suspected(agent)) == (201, True)
    assert not AuditEvent.objects.filter(action="agent.clear_clone_suspicion").exists()
    refused_for_clone(rotate(Api(rotated.json()["token"]), agent))


def test_agent_with_suspected_clone_cannot_rotate_its_key(world: World) -> None:
    agent, api = suspect(world)

    refused_for_clone(rotate(api, agent))
    refused_for_clone(request_rotation(world, agent))

    assert suspected(agent)
    assert AgentKey.objects.get().expires_at is None
    assert beat(api, agent, boot_id="b").json()["commands"] == []
    assert not AuditEvent.objects.filter(action="agent.request_key_rotation").exists()


def test_clone_suspicion_blocks_rotation_that_agent_was_asked_for_earlier(world: World) -> None:
    agent, api = world.agent()
    assert request_rotation(world, agent).status_code == 202
    for boot in "aba":
        assert beat(api, agent, boot_id=boot).json()["commands"] == ["rotate_key"]

    refused_for_clone(rotate(api, agent))

    assert (suspected(agent), AgentKey.objects.count()) == (True, 1)


def test_use_of_key_fetched_before_clone_suspicion_keeps_suspicion(world: World) -> None:
    agent, api = world.agent()
    request_rotation(world, agent)
    for boot in "ab":
        beat(api, agent, boot_id=boot)
    new = Api(rotate(api, agent).json()["token"])
    beat(api, agent, boot_id="a")
    since = Heartbeat.objects.get(agent=agent).clone_suspected_at

    assert beat(new, agent, boot_id="b").status_code == 200

    assert beat(api, agent).status_code == 401
    heartbeat = Heartbeat.objects.get(agent=agent)
    assert (heartbeat.clone_suspected_at, heartbeat.commands) == (since, [])


def test_key_rotation_by_agent_keeps_earlier_boot_ids(world: World) -> None:
    """If the agent and a clone share the new key as well, the earlier ids still reveal the clone."""
    agent, api = world.agent()
    for boot in "ab":
        beat(api, agent, boot_id=boot)
    new = Api(rotate(api, agent).json()["token"])
    beat(new, agent, boot_id="b")
    assert not suspected(agent)

    beat(new, agent, boot_id="a")

    assert suspected(agent)


def test_enrollment_can_replace_agent_with_suspected_clone(world: World) -> None:
    agent, api = suspect(world)
    token = Api(world.enrollment_token(replace=True))

    enrolled = token.post(world.path(rest="/agents"), {"name": agent.name}).json()

    new, new_api = Agent.objects.get(pk=enrolled["agent_id"]), Api(enrolled["api_key"])
    assert beat(api, agent).status_code == 401
    assert (listed(world, "cloned=true"), listed(world, "cloned=false")) == ([], [agent.name])
    assert rotate(new_api, new).status_code == 201


def test_agent_cannot_create_key_after_concurrent_clone_suspicion(concurrently: Race, world: World) -> None:
    """Whichever request comes first, the suspicion remains and no key is created after the suspicion."""
    agent, api = world.agent()
    for boot in "ab":
        beat(api, agent, boot_id=boot)

    responses = concurrently(
        lambda: rotate(api, agent), lambda: beat(api, agent, boot_id="a"), lambda: rotate(api, agent)
    )

    assert responses[1].status_code == 200
    assert suspected(agent)
    made = [response for response in (responses[0], responses[2]) if response.status_code == 201]
    for response in (responses[0], responses[2]):
        if response not in made:
            refused_for_clone(response)
    assert AgentKey.objects.count() == 1 + len(made)
    refused_for_clone(rotate(api, agent))
