"""Helpers for tests of execute replays: capture an incident, request and approve a replay, and read its outcome."""

from __future__ import annotations

from typing import Any

from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import replays
from apps.tenancy.models import AuditEvent, Environment
from byteor_cloud.ids import uuid7
from tests.artifacts import incidents
from tests.artifacts.incidents import incident
from tests.artifacts.servers import Receiver
from tests.worlds import Api, World, plan, run_jobs


def bodies(receiver: Receiver) -> list[bytes]:
    return [body for _, _, body in receiver.requests]


def create_version(world: World, environment: Environment, *ops: str) -> Any:
    stages = [{"id": f"s{number}", "op": op, "depends_on": []} for number, op in enumerate(ops)]
    for number, stage in enumerate(stages[1:]):
        stage["depends_on"] = [f"s{number}"]
    # A draft's name contains a digest of its plan. The unique description avoids a taken name if the ops are the same.
    return world.version(environment, {**plan(stages=stages), "description": str(uuid7())})


def capture_incident(
    world: World, receiver: Receiver, environment: Environment | None = None, *more: str, **bundle: Any
) -> Artifact:
    """Upload an incident bundle of a pipeline that posts each record to the receiver. Returns the verified artifact."""
    environment = environment or world.dev
    version = create_version(world, environment, f"http_post:{receiver.origin}/hook", *more)
    agent, api = world.agent(environment, f"agent-{uuid7()}")
    response = incidents.upload(api, agent, incident(version.spec_kv, **bundle), kind="incident_bundle")
    run_jobs()
    artifact = Artifact.objects.get(pk=response.json()["id"])
    assert artifact.status == "verified", artifact.reasons
    return artifact


def create_environment(world: World, posture: str = "prod", **settings: Any) -> Environment:
    """Create an environment that permits execute replays."""
    return world.environment(posture, f"{posture}-{uuid7()}", replay_policy="allowed", **settings)


def post_replay(world: World, artifact: Artifact, api: Api | None = None, **body: Any) -> Any:
    path = world.path(artifact.environment, f"/artifacts/{artifact.pk}/replay")
    return (api or world.operator.api).post(path, {"mode": "execute", **body})


def request_replay(world: World, artifact: Artifact, **body: Any) -> Replay:
    response = post_replay(world, artifact, **body)
    assert response.status_code == 202, response.json()
    return Replay.objects.get(pk=response.json()["id"])


def decide(world: World, replay: Replay, decision: str = "approve", api: Api | None = None, **body: Any) -> Any:
    path = world.path(replay.environment, "/approvals")
    return (api or world.reviewer.api).post(path, {"replay_id": str(replay.pk), "decision": decision, **body})


def request_approved_replay(world: World, artifact: Artifact, **body: Any) -> tuple[Replay, str]:
    """Request and approve a replay without running it. Returns the replay and the approval credential."""
    replay = request_replay(world, artifact, **body)
    response = decide(world, replay)
    assert response.status_code == 201, response.json()
    replays.follow_approval(response.json()["id"])
    ProcrastinateJob.objects.all().delete()
    replay.refresh_from_db()
    assert replay.status == "queued"
    return replay, response.json()["credential"]


def status_and_error(replay: Replay) -> tuple[str, str | None]:
    replay.refresh_from_db()
    assert (replay.finished_at is None) is (replay.status in {"queued", "running", "pending_approval"})
    return replay.status, replay.error


def audit_actions(replay: Replay) -> list[str]:
    found = AuditEvent.objects.filter(resource_id=str(replay.pk)).order_by("id")
    return list(found.values_list("action", flat=True))


def revoke(world: World, replay: Replay) -> Any:
    path = world.path(replay.environment, f"/approvals/{replay.approval_id}/revoke")
    return world.reviewer.api.post(path)


def refused(response: Any, status: int, code: str, *, replays_before: int | None = None) -> None:
    assert (response.status_code, response.json()["type"]) == (status, f"urn:byteor:problem:{code}"), response.json()
    assert not ProcrastinateJob.objects.filter(task_name="artifacts.replay").exists()
    if replays_before is not None:
        assert Replay.objects.count() == replays_before
