"""Execute replays: which wait for approvals, which side effects are executed, and which requests are refused."""

from __future__ import annotations

import dataclasses
import socket
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from apps.artifacts.models import Replay
from apps.artifacts.services.effects import Executor
from apps.releases.models import Approval
from apps.tenancy.models import AuditEvent, Environment
from byteor.engine.allowlist import parse_url_prefix
from tests.artifacts.execute_steps import (
    audit_actions,
    bodies,
    capture_incident,
    create_environment,
    decide,
    post_replay,
    refused,
    request_replay,
    status_and_error,
)
from tests.artifacts.incidents import PAYLOADS
from tests.artifacts.servers import Receiver, serve_http
from tests.worlds import World, run_jobs

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("receiver")]


def test_execute_replay_in_dev_sends_each_record_once(world: World, receiver: Receiver) -> None:
    artifact = capture_incident(
        world, receiver, None, "exec:/bin/true|x", f"http_post:{receiver.origin}/other", "exec:/bin/sh"
    )

    replay = request_replay(world, artifact)
    assert replay.status == "queued"
    run_jobs()

    assert status_and_error(replay) == ("succeeded", None)
    assert bodies(receiver) == PAYLOADS
    assert {path for path, _, _ in receiver.requests} == {"/hook"}
    assert receiver.requests[0][1]["X-ByteOr-Replay"] == str(replay.pk)
    assert replay.audit["policy"] == {"env": "dev", "approval_provided": False, "mode": "execute"}
    lanes = {"input_lane": "quotes_in", "output_lane": "quotes_out"}
    assert replay.audit["actions"][:4] == [
        {"action": "http_post", "role": "s0", **lanes, "stage": "s0", "target": f"{receiver.origin}/hook",
         "decision": "Allow"},
        {"action": "exec", "role": "s1", **lanes, "stage": "s1", "target": "/bin/true|x", "decision": "Allow"},
        {"action": "http_post", "role": "s2", **lanes, "stage": "s2", "target": f"{receiver.origin}/other",
         "decision": "Deny"},
        {"action": "exec", "role": "s3", **lanes, "stage": "s3", "target": "/bin/sh", "decision": "Deny"},
    ]  # fmt: skip
    assert len(replay.audit["actions"]) == 12
    assert audit_actions(replay) == ["replay.request", "replay.start", "replay.succeed"]
    done = AuditEvent.objects.get(action="replay.succeed")
    assert done.changes["actions"] == {"Allow": 6, "Deny": 6}

    dry = request_replay(world, artifact, mode="dry_run")
    run_jobs()
    dry.refresh_from_db()
    assert dry.result == replay.result
    assert {action["decision"] for action in dry.audit["actions"]} == {"DryRunOnly"}
    assert len(receiver.requests) == 3


@pytest.mark.parametrize("posture", ["staging", "prod"])
def test_execute_replay_outside_dev_waits_for_approval(world: World, receiver: Receiver, posture: str) -> None:
    artifact = capture_incident(world, receiver, create_environment(world, posture))

    response = post_replay(world, artifact, last_n=2)

    body = response.json()
    assert (response.status_code, body["status"], body["mode"]) == (202, "pending_approval", "execute")
    assert run_jobs() == 0
    approval = Approval.objects.get()
    assert body["approval_id"] == str(approval.pk)
    assert (approval.status, approval.replay_id, approval.capabilities) == (
        "pending", Replay.objects.get().pk, ["replay:execute"],
    )  # fmt: skip
    assert (approval.spec_hash, approval.requested_by) == (artifact.spec_hash, world.operator.user.email)
    assert approval.target is not None
    assert approval.target.stored() == {
        "mode": "execute", "artifact_id": str(artifact.pk), "content_hash": artifact.content_hash,
        "version_id": str(artifact.version_id), "journal_lane": None, "last_n": 2,
        "side_effects": [f"http_post:{receiver.origin}/hook"],
    }  # fmt: skip

    replay = Replay.objects.get()
    assert decide(world, replay, api=world.operator.api).json()["type"] == "urn:byteor:problem:approval.self"
    decided = decide(world, replay, comment="fine").json()
    assert (decided["status"], decided["replay_id"], decided["deployment_id"]) == ("approved", str(replay.pk), None)
    listed = world.viewer.api.get(world.path(artifact.environment, f"/approvals?replay_id={replay.pk}")).json()
    assert [row["id"] for row in listed["results"]] == [str(approval.pk)]
    run_jobs()

    assert status_and_error(replay) == ("succeeded", None)
    assert bodies(receiver) == PAYLOADS[1:]
    assert replay.audit["policy"] == {"env": posture, "approval_provided": True, "mode": "execute"}
    approval.refresh_from_db()
    assert approval.used_at is not None
    assert audit_actions(replay) == ["replay.request", "replay.approve", "replay.start", "replay.succeed"]


def test_execute_replay_waits_for_two_approvers_when_required(world: World, receiver: Receiver) -> None:
    replay = request_replay(world, capture_incident(world, receiver, create_environment(world, required_approvals=2)))

    assert decide(world, replay).json()["status"] == "pending"
    assert (run_jobs(), status_and_error(replay)) == (0, ("pending_approval", None))
    assert decide(world, replay, api=world.admin.api).json()["status"] == "approved"
    run_jobs()

    assert status_and_error(replay) == ("succeeded", None)


def test_side_effects_outside_captured_allowlist_are_denied(world: World, receiver: Receiver) -> None:
    config = {"s0": {"allowlist": [f"{receiver.origin}/hook/only"]}}
    replay = request_replay(world, capture_incident(world, receiver, stage_config=config))

    run_jobs()

    assert (status_and_error(replay), receiver.requests) == (("succeeded", None), [])
    assert {action["decision"] for action in replay.audit["actions"]} == {"Deny"}


def test_side_effects_are_denied_if_host_has_no_allowlists(world: World, receiver: Receiver, settings: Any) -> None:
    settings.CONFIG = dataclasses.replace(settings.CONFIG, replay_http_allowlist=(), replay_exec_allowlist=())
    replay = request_replay(world, capture_incident(world, receiver, None, "exec:/bin/true"))

    run_jobs()

    assert (status_and_error(replay), receiver.requests) == (("succeeded", None), [])
    assert {action["decision"] for action in replay.audit["actions"]} == {"Deny"}


def test_dry_run_executes_no_side_effects(world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = request_replay(world, capture_incident(world, receiver, None, "exec:/bin/true"), mode="dry_run")

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a dry run reached outside")

    for owner, name in ((socket.socket, "connect"), (socket, "create_connection"), (Executor, "perform")):
        monkeypatch.setattr(owner, name, forbidden)
    run_jobs()

    assert (status_and_error(replay), receiver.requests) == (("succeeded", None), [])
    assert len(replay.audit["actions"]) == 6


def test_failed_side_effect_stops_replay(world: World, settings: Any) -> None:
    def fail_the_second(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200 if len(failing.requests) == 1 else 503)
        handler.end_headers()

    with serve_http(fail_the_second) as failing:
        settings.CONFIG = dataclasses.replace(
            settings.CONFIG, replay_http_allowlist=(parse_url_prefix(failing.origin),)
        )
        replay = request_replay(world, capture_incident(world, failing))
        run_jobs()

    assert status_and_error(replay) == ("failed", "stage 's0' failed on record 2: the response has the status 503")
    assert bodies(failing) == PAYLOADS[:2]
    assert [action["decision"] for action in replay.audit["actions"]] == ["Allow", "Allow"]
    assert replay.result["stages"]["s0"] == {"in": 2, "out": 1, "dropped": 0, "errors": 1, "drops": {}}


# --- refused requests


def test_execute_replay_is_refused_if_policy_permits_only_dry_runs(world: World, receiver: Receiver) -> None:
    artifact = capture_incident(world, receiver, world.prod)

    refused(post_replay(world, artifact), 409, "replay.dry_run_only", replays_before=0)

    assert Approval.objects.count() == 0
    assert not AuditEvent.objects.filter(action__in=["replay.request", "approval.request"]).exists()


def test_dry_run_refuses_approval_credential(world: World, receiver: Receiver) -> None:
    artifact = capture_incident(world, receiver)

    response = post_replay(world, artifact, mode="dry_run", approval="x")

    refused(response, 400, "invalid", replays_before=0)
    assert response.json()["errors"][0]["pointer"] == "/approval"


def test_approval_decision_must_name_exactly_one_deployment_or_replay(world: World, receiver: Receiver) -> None:
    without = request_replay(world, capture_incident(world, receiver))
    deployment = world.deployment(world.bundle(world.staging)) if world.agent(world.staging) else None
    assert deployment is not None
    waiting = request_replay(world, capture_incident(world, receiver, create_environment(world)))

    def pointers(body: dict[str, Any], environment: Environment) -> Any:
        response = world.reviewer.api.post(world.path(environment, "/approvals"), {"decision": "approve", **body})
        assert response.status_code == 400, response.json()
        return [(error["pointer"], error["code"]) for error in response.json()["errors"]]

    unknown = [("/replay_id", "does_not_exist")]
    assert pointers({"replay_id": str(without.pk)}, world.dev) == unknown
    assert pointers({"replay_id": str(waiting.pk)}, world.prod) == unknown
    assert pointers({}, world.dev) == [("/deployment_id", "required")]
    both = {"replay_id": str(waiting.pk), "deployment_id": str(deployment.pk)}
    assert pointers(both, world.staging) == [("/replay_id", "one_of")]
    assert status_and_error(waiting) == ("pending_approval", None)
