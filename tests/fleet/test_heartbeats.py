"""Heartbeats: how they are checked, limited, stored and answered, and the liveness and drift that result from them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.fleet.models import Agent, AgentKey, Heartbeat
from apps.fleet.services import agents as fleet
from apps.fleet.services.heartbeats import LoadSpreader
from apps.tenancy.api import limits
from apps.tenancy.models import AuditEvent, Environment, Organization, Project
from byteor.engine.canonical import format_time
from byteor_cloud.ids import uuid7
from tests.races import Race
from tests.releases import stories
from tests.worlds import Api, World

pytestmark = pytest.mark.django_db

HASH, OTHER_HASH, SPEC = (f"sha256:{digit * 64}" for digit in "abc")
BEAT = {"status": "healthy", "agent_version": "1.2.3"}


def active(deployment_id: Any = None, bundle_hash: str = HASH) -> dict[str, Any]:
    return {"deployment_id": str(deployment_id or uuid7()), "bundle_hash": bundle_hash, "spec_hash": SPEC}


def beat(api: Api, agent: Agent, **body: Any) -> Any:
    return api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {**BEAT, **body})


def test_accepted_heartbeat_is_stored(world: World) -> None:
    agent, api = world.agent()
    deployment_id = uuid7()
    more = {
        "runtime_version": "r-1", "uptime_s": 12.5,
        "tuning": {"profile": "default", "applied": {"wait": "spin"}, "degraded": [], "failed": []},
        "resources": {"cpu_percent": 3.5, "memory_bytes": 1 << 40}, "pipeline": {"records_in": 5, "records_out": 4},
    }  # fmt: skip
    before = timezone.now()

    response = beat(api, agent, status="degraded", active=active(deployment_id), **more)

    assert response.status_code == 200
    stored = Heartbeat.objects.get(agent=agent)
    assert (stored.status, stored.agent_version, stored.report) == ("degraded", "1.2.3", more)
    assert (stored.running_deployment_id, stored.running_bundle_hash, stored.running_spec_hash) == (
        deployment_id, HASH, SPEC,
    )  # fmt: skip
    assert stored.last_seen_at is not None
    assert stored.last_seen_at >= before - timedelta(seconds=1)
    assert stored.running_since == stored.last_seen_at
    body = response.json()
    assert body == {
        "server_time": stored.last_seen_at.isoformat().replace("+00:00", "Z"),
        "next_heartbeat_s": body["next_heartbeat_s"],
        "desired": None,
        "signing_key_etag": Organization.objects.get().key_set_etag,
        "commands": [],
    }
    assert f'"{body["signing_key_etag"]}"' == api.get(f"/api/v1/agents/{agent.pk}/signing-key")["ETag"]


def test_heartbeat_replaces_previous_bundle_and_report(world: World) -> None:
    agent, api = world.agent()
    beat(api, agent, active=active(), resources={"cpu_percent": 1})

    beat(api, agent, active=None)

    stored = Heartbeat.objects.get(agent=agent)
    assert (stored.running_bundle_hash, stored.running_deployment_id, stored.report) == (None, None, {})


def test_heartbeat_is_stored_with_one_statement_and_no_audit_event(world: World) -> None:
    agent, api = world.agent()
    events = AuditEvent.objects.count()

    with CaptureQueriesContext(connection) as queries:
        assert beat(api, agent).status_code == 200

    # In an event loop the uses of many keys are stored together in the background.
    looked_up, used, stored = (query["sql"].strip() for query in queries)
    assert "UPDATE fleet_agentkey SET last_used_at" in used
    assert looked_up.startswith("SELECT k.digest")
    assert stored.startswith("WITH locked AS")
    assert AuditEvent.objects.count() == events


def test_concurrent_heartbeats_of_different_agents_are_all_stored(concurrently: Race, world: World) -> None:
    agents = stories.fleet(world, 16)

    responses = concurrently(
        *(lambda agent=agent, api=api, n=n: beat(api, agent, uptime_s=n) for n, (agent, api) in enumerate(agents))
    )

    assert [response.status_code for response in responses] == [200] * 16
    stored = {row.agent_id: row.report for row in Heartbeat.objects.all()}
    assert [stored[agent.pk] for agent, _ in agents] == [{"uptime_s": n} for n in range(16)]


def test_refused_heartbeats_do_not_affect_concurrent_heartbeats_of_other_agents(
    concurrently: Race, world: World
) -> None:
    agents = stories.fleet(world, 8)
    for agent, _ in agents[4:]:
        fleet.decommission(agent, actor=world.admin.actor)

    responses = concurrently(*(lambda agent=agent, api=api: beat(api, agent) for agent, api in agents))

    assert [response.status_code for response in responses] == [200] * 4 + [401] * 4


def test_running_since_changes_only_when_running_bundle_changes(world: World) -> None:
    agent, api = world.agent()
    beat(api, agent, active=active())
    then = timezone.now() - timedelta(hours=1)
    Heartbeat.objects.update(running_since=then)

    beat(api, agent, active=active())
    assert Heartbeat.objects.get().running_since == then
    beat(api, agent, active=active(bundle_hash=OTHER_HASH))

    assert Heartbeat.objects.get().running_since == Heartbeat.objects.get().last_seen_at


def test_heartbeat_returns_desired_deployment_even_if_agent_already_runs_it(world: World) -> None:
    agents = stories.fleet(world, 1)
    (agent, api) = agents[0]
    deployment = stories.offered(world, world.bundle())
    offered_at = deployment.agents.get().offered_at
    assert offered_at is not None
    expected = {
        "deployment_id": str(deployment.pk), "action": "activate", "bundle_hash": deployment.bundle_hash,
        "bundle_url": f"/api/v1/agents/{agent.pk}/deployment/bundle?hash={deployment.bundle_hash}",
        "offered_at": format_time(offered_at),
    }  # fmt: skip

    before = beat(api, agent).json()["desired"]
    after = beat(api, agent, active=active(deployment.pk, deployment.bundle_hash or "")).json()["desired"]

    assert before == after == expected


@pytest.mark.parametrize("interval", [30, 5])
def test_next_heartbeat_is_spread_around_interval(world: World, interval: int) -> None:
    environment = world.environment("dev", "paced", heartbeat_interval_s=interval)
    agent, api = world.agent(environment)

    waits = {beat(api, agent).json()["next_heartbeat_s"] for _ in range(30)}

    assert all(0.9 * interval <= wait <= 1.1 * interval for wait in waits)
    assert len(waits) > 1


def test_heartbeat_interval_grows_under_load_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("apps.fleet.services.heartbeats.time.monotonic", lambda: clock[0])
    spreader = LoadSpreader()
    for _ in range(20):
        clock[0] += 1
        waits = [30 * spreader.next_factor() for _ in range(4 * int(spreader.COMFORTABLE_PER_S))]

    assert min(waits) >= 30 * 0.9 * 3.9
    assert max(waits) <= 30 * 1.1 * 4

    clock[0] += 1000
    spreader.next_factor()
    for _ in range(20):
        clock[0] += 1
        calm = 30 * spreader.next_factor()
    assert 27 <= calm <= 33


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"status": "fine"}, "/status", "invalid_choice"),
        ({"status": None}, "/status", "invalid_choice"),
        ({"status": []}, "/status", "invalid_choice"),
        ({"agent_version": ""}, "/agent_version", "invalid"),
        ({"agent_version": 1}, "/agent_version", "invalid"),
        ({"agent_version": "x" * 65}, "/agent_version", "invalid"),
        ({"runtime_version": 1}, "/runtime_version", "invalid"),
        ({"runtime_version": "x" * 65}, "/runtime_version", "invalid"),
        ({"uptime_s": -1}, "/uptime_s", "invalid"),
        ({"uptime_s": True}, "/uptime_s", "invalid"),
        ({"uptime_s": "1"}, "/uptime_s", "invalid"),
        ({"tuning": []}, "/tuning", "invalid"),
        ({"resources": "many"}, "/resources", "invalid"),
        ({"pipeline": 1}, "/pipeline", "invalid"),
        ({"active": "yes"}, "/active", "invalid"),
        ({"active": {**active(), "deployment_id": "x"}}, "/active/deployment_id", "invalid"),
        ({"active": {**active(), "deployment_id": None}}, "/active/deployment_id", "invalid"),
        ({"active": {**active(), "bundle_hash": "x"}}, "/active/bundle_hash", "invalid"),
        ({"active": {**active(), "spec_hash": HASH.upper()}}, "/active/spec_hash", "invalid"),
        ({"active": {**active(), "since": "now"}}, "/active/since", "unknown_field"),
        ({"hostname": "h"}, "/hostname", "unknown_field"),
    ],
)
def test_invalid_heartbeat_is_not_stored_and_error_names_field(
    world: World, change: dict[str, Any], pointer: str, code: str
) -> None:
    agent, api = world.agent()

    response = beat(api, agent, **change)

    assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json")
    assert [(error["pointer"], error["code"]) for error in response.json()["errors"]] == [(pointer, code)]
    assert Heartbeat.objects.get().last_seen_at is None


def test_heartbeat_error_names_all_missing_fields(world: World) -> None:
    agent, api = world.agent()

    response = api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"active": {}})

    assert [error["pointer"] for error in response.json()["errors"]] == [
        "/status", "/agent_version", "/active/bundle_hash", "/active/spec_hash", "/active/deployment_id",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"status": "healthy"', "application/json", 400),
        (b'{"status": "healthy", "agent_version": "\\u0000"}', "application/json", 400),
        (b'{"status": "healthy", "agent_version": NaN}', "application/json", 400),
        (b"[]", "application/json", 400),
        (b"status=healthy", "application/x-www-form-urlencoded", 415),
        (b'{"pad": "' + b"x" * (5 << 20) + b'"}', "application/json", 413),
    ],
    ids=["truncated", "NUL", "NaN", "a list", "a form", "5 MiB"],
)
def test_malformed_heartbeat_stores_nothing(world: World, body: bytes, content_type: str, status: int) -> None:
    agent, api = world.agent()

    response = api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body, Content_Type=content_type)

    assert (response.status_code, response["Content-Type"]) == (status, "application/problem+json")
    assert Heartbeat.objects.get().last_seen_at is None


def test_heartbeat_for_another_agent_returns_404(world: World) -> None:
    (agent, _), (_, other_api) = stories.fleet(world, 2)

    assert beat(other_api, agent).status_code == 404
    assert other_api.post(f"/api/v1/agents/{uuid7()}/heartbeat", BEAT).status_code == 404
    assert set(Heartbeat.objects.values_list("last_seen_at", flat=True)) == {None}


def test_heartbeat_without_valid_agent_key_is_refused(world: World) -> None:
    agent, _ = world.agent()

    responses = [
        beat(api, agent) for api in (world.admin.api, Api(world.enrollment_token()), Api(None), Api("bor_agt_x"))
    ]

    assert [response.status_code for response in responses] == [403, 403, 401, 401]
    assert [response.get("WWW-Authenticate") for response in responses] == [None, None, "Bearer", "Bearer"]
    assert Heartbeat.objects.get().last_seen_at is None


@pytest.mark.parametrize(
    "invalidate",
    [
        lambda: AgentKey.objects.update(revoked_at=timezone.now()),
        lambda: AgentKey.objects.update(expires_at=timezone.now() - timedelta(minutes=1)),
        lambda: Agent.objects.update(decommissioned_at=timezone.now()),
        lambda: Environment.objects.update(deleted_at=timezone.now()),
        lambda: Project.objects.update(deleted_at=timezone.now()),
    ],
    ids=["revoked", "expired", "decommissioned", "environment deleted", "project deleted"],
)
def test_heartbeat_with_unusable_key_returns_401(world: World, invalidate: Callable[[], Any]) -> None:
    agent, api = world.agent()
    invalidate()

    response = beat(api, agent)

    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Bearer")
    assert Heartbeat.objects.get().last_seen_at is None


def test_heartbeat_requires_heartbeat_scope(world: World) -> None:
    agent, api = world.agent()
    AgentKey.objects.update(scopes=["agent:deployment"])

    assert beat(api, agent).status_code == 403
    assert Heartbeat.objects.get().last_seen_at is None


def test_get_request_to_heartbeat_route_returns_405(world: World) -> None:
    agent, api = world.agent()

    response = api.get(f"/api/v1/agents/{agent.pk}/heartbeat")

    assert (response.status_code, response["Content-Type"]) == (405, "application/problem+json")


def test_each_agent_has_its_own_rate_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (agent, api), (_, other_api) = stories.fleet(world, 2)
    monkeypatch.setitem(limits.PER_MINUTE, AgentKey.family, 3)
    monkeypatch.setattr("apps.tenancy.api.limits.time.time", lambda: 120.0)

    for _ in range(5):  # these count only toward the limit of the other agent
        beat(other_api, agent)
    responses = [beat(api, agent) for _ in range(4)]

    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    assert [response["X-RateLimit-Remaining"] for response in responses[:3]] == ["2", "1", "0"]
    assert (responses[0]["X-RateLimit-Limit"], responses[0]["X-RateLimit-Reset"]) == ("3", "180")
    assert 61 <= int(responses[3]["Retry-After"]) <= 61 + 30


def seen(seconds_ago: float) -> None:
    Heartbeat.objects.update(last_seen_at=timezone.now() - timedelta(seconds=seconds_ago))


@pytest.mark.parametrize(
    ("intervals", "liveness"), [(0, "online"), (2.9, "online"), (3.1, "stale"), (9.9, "stale"), (10.1, "offline")]
)
def test_liveness_depends_on_last_heartbeat(world: World, intervals: float, liveness: str) -> None:
    environment = world.environment("dev", "paced", heartbeat_interval_s=20)
    agent, _ = world.agent(environment)
    seen(intervals * 20)
    path = world.path(environment, "/agents")

    assert world.viewer.api.get(f"{path}/{agent.pk}").json()["liveness"] == liveness
    for other in ("online", "stale", "offline"):
        found = world.viewer.api.get(f"{path}?liveness={other}").json()["results"]
        assert len(found) == (other == liveness)


@pytest.mark.parametrize(
    ("intervals", "liveness"), [(2.9, "online"), (3.1, "stale"), (9.9, "stale"), (10.1, "offline")]
)
def test_liveness_uses_interval_last_given_to_agent(
    world: World, monkeypatch: pytest.MonkeyPatch, intervals: float, liveness: str
) -> None:
    environment = world.environment("dev", "busy", heartbeat_interval_s=20)
    agent, api = world.agent(environment)
    monkeypatch.setattr(LoadSpreader, "next_factor", lambda self: 5.0)  # as under heavy load

    assert beat(api, agent).json()["next_heartbeat_s"] == 100
    seen(intervals * 100)
    # This interval has not been sent to the agent yet.
    world.admin.api.put(world.path(environment), {"settings": {"heartbeat_interval_s": 1}})

    path = world.path(environment, "/agents")
    assert world.viewer.api.get(f"{path}/{agent.pk}").json()["liveness"] == liveness
    assert len(world.viewer.api.get(f"{path}?liveness={liveness}").json()["results"]) == 1


def test_agent_list_omits_large_reports(world: World) -> None:
    (small, small_api), (large, large_api) = stories.fleet(world, 2)
    beat(small_api, small, resources={"note": "x" * 3000})
    beat(large_api, large, resources={"note": "x" * 5000})

    listed = {row["id"]: row["report"] for row in world.viewer.api.get(world.path(rest="/agents")).json()["results"]}

    assert listed == {str(small.pk): {"resources": {"note": "x" * 3000}}, str(large.pk): None}
    whole = world.viewer.api.get(world.path(rest=f"/agents/{large.pk}")).json()
    assert whole["report"] == {"resources": {"note": "x" * 5000}}


def test_agent_with_desired_bundle_is_drifted_until_it_runs_that_bundle(world: World) -> None:
    agents = stories.fleet(world, 1)
    (agent, api) = agents[0]
    path = f"/api/v1/agents/{agent.pk}"
    beat(api, agent, active=active())
    assert api.get(path).json()["drifted"] is False

    deployment = stories.offered(world, world.bundle())
    assert api.get(path).json()["drifted"] is True
    beat(api, agent)
    assert api.get(path).json()["drifted"] is True
    beat(api, agent, active=active(deployment.pk, deployment.bundle_hash or ""))

    shown = api.get(path).json()
    assert shown["drifted"] is False
    assert (shown["running"]["bundle_hash"], shown["running"]["spec_hash"]) == (deployment.bundle_hash, SPEC)
