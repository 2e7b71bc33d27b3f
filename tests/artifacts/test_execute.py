"""Execute replays: what may leave, and what is refused when it is asked for."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from apps.artifacts.models import Replay
from apps.releases.models import Approval
from apps.tenancy.models import AuditEvent, Environment
from byteor_cloud.engine.allowlist import parse_url_prefix
from tests.artifacts.execute_steps import allowing, ask, asked, bodies, captured, decide, ended, events, refused
from tests.artifacts.incidents import PAYLOADS
from tests.artifacts.servers import Receiver, receiving
from tests.worlds import World, run_jobs

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("receiver")]


def test_in_dev_it_runs_and_each_record_leaves_once(world: World, receiver: Receiver) -> None:
    artifact = captured(world, receiver, None, "exec:/bin/true|x", f"http_post:{receiver.origin}/other", "exec:/bin/sh")

    replay = asked(world, artifact)
    assert replay.status == "queued"
    run_jobs()

    assert ended(replay) == ("succeeded", None)
    assert bodies(receiver) == PAYLOADS
    assert {path for path, _, _ in receiver.came} == {"/hook"}
    assert receiver.came[0][1]["X-ByteOr-Replay"] == str(replay.pk)
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
    assert events(replay) == ["replay.request", "replay.start", "replay.succeed"]
    done = AuditEvent.objects.get(action="replay.succeed")
    assert done.changes["actions"] == {"Allow": 6, "Deny": 6}

    dry = asked(world, artifact, mode="dry_run")
    run_jobs()
    dry.refresh_from_db()
    assert dry.result == replay.result
    assert {action["decision"] for action in dry.audit["actions"]} == {"DryRunOnly"}
    assert len(receiver.came) == 3


@pytest.mark.parametrize("posture", ["staging", "prod"])
def test_elsewhere_it_waits_for_approval(world: World, receiver: Receiver, posture: str) -> None:
    artifact = captured(world, receiver, allowing(world, posture))

    answer = ask(world, artifact, last_n=2)

    body = answer.json()
    assert (answer.status_code, body["status"], body["mode"]) == (202, "pending_approval", "execute")
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

    assert ended(replay) == ("succeeded", None)
    assert bodies(receiver) == PAYLOADS[1:]
    assert replay.audit["policy"] == {"env": posture, "approval_provided": True, "mode": "execute"}
    approval.refresh_from_db()
    assert approval.used_at is not None
    assert events(replay) == ["replay.request", "replay.approve", "replay.start", "replay.succeed"]


def test_two_people_where_two_are_wanted(world: World, receiver: Receiver) -> None:
    replay = asked(world, captured(world, receiver, allowing(world, required_approvals=2)))

    assert decide(world, replay).json()["status"] == "pending"
    assert (run_jobs(), ended(replay)) == (0, ("pending_approval", None))
    assert decide(world, replay, api=world.admin.api).json()["status"] == "approved"
    run_jobs()

    assert ended(replay) == ("succeeded", None)


def test_a_stage_of_the_bundle_narrows(world: World, receiver: Receiver) -> None:
    config = {"s0": {"allowlist": [f"{receiver.origin}/hook/only"]}}
    replay = asked(world, captured(world, receiver, stage_config=config))

    run_jobs()

    assert (ended(replay), receiver.came) == (("succeeded", None), [])
    assert {action["decision"] for action in replay.audit["actions"]} == {"Deny"}


def test_without_allowlists_nothing_leaves(world: World, receiver: Receiver, settings: Any) -> None:
    settings.CONFIG = dataclasses.replace(settings.CONFIG, replay_http_allowlist=(), replay_exec_allowlist=())
    replay = asked(world, captured(world, receiver, None, "exec:/bin/true"))

    run_jobs()

    assert (ended(replay), receiver.came) == (("succeeded", None), [])
    assert {action["decision"] for action in replay.audit["actions"]} == {"Deny"}


def test_nothing_leaves_in_a_dry_run(world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = asked(world, captured(world, receiver, None, "exec:/bin/true"), mode="dry_run")

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a dry run reached outside")

    for owner, name in ((socket, "socket"), (socket, "create_connection"), (subprocess, "Popen")):
        monkeypatch.setattr(owner, name, forbidden)
    run_jobs()

    assert (ended(replay), receiver.came) == (("succeeded", None), [])
    assert len(replay.audit["actions"]) == 6


def test_an_effect_that_fails_stops_it(world: World, settings: Any) -> None:
    def fail_the_second(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200 if len(failing.came) == 1 else 503)
        handler.end_headers()

    with receiving(fail_the_second) as failing:
        settings.CONFIG = dataclasses.replace(
            settings.CONFIG, replay_http_allowlist=(parse_url_prefix(failing.origin),)
        )
        replay = asked(world, captured(world, failing))
        run_jobs()

    assert ended(replay) == ("failed", "stage 's0' failed on record 2: answered 503")
    assert bodies(failing) == PAYLOADS[:2]
    assert [action["decision"] for action in replay.audit["actions"]] == ["Allow", "Allow"]
    assert replay.result["stages"]["s0"] == {"in": 2, "out": 1, "dropped": 0, "errors": 1}


# --- what is refused when it is asked for


def test_where_only_dry_runs_are_permitted(world: World, receiver: Receiver) -> None:
    artifact = captured(world, receiver, world.prod)

    refused(ask(world, artifact), 409, "replay.dry_run_only", replays_before=0)

    assert Approval.objects.count() == 0
    assert not AuditEvent.objects.filter(action__in=["replay.request", "approval.request"]).exists()


def test_a_dry_run_takes_no_credential(world: World, receiver: Receiver) -> None:
    artifact = captured(world, receiver)

    answer = ask(world, artifact, mode="dry_run", approval="x")

    refused(answer, 400, "invalid", replays_before=0)
    assert answer.json()["errors"][0]["pointer"] == "/approval"


def test_a_decision_names_one_request(world: World, receiver: Receiver) -> None:
    without = asked(world, captured(world, receiver))
    deployment = world.deployment(world.bundle(world.staging)) if world.agent(world.staging) else None
    assert deployment is not None
    waiting = asked(world, captured(world, receiver, allowing(world)))

    def pointers(body: dict[str, Any], environment: Environment) -> Any:
        answer = world.reviewer.api.post(world.path(environment, "/approvals"), {"decision": "approve", **body})
        assert answer.status_code == 400, answer.json()
        return [(error["pointer"], error["code"]) for error in answer.json()["errors"]]

    unknown = [("/replay_id", "does_not_exist")]
    assert pointers({"replay_id": str(without.pk)}, world.dev) == unknown
    assert pointers({"replay_id": str(waiting.pk)}, world.prod) == unknown
    assert pointers({}, world.dev) == [("/deployment_id", "required")]
    both = {"replay_id": str(waiting.pk), "deployment_id": str(deployment.pk)}
    assert pointers(both, world.staging) == [("/replay_id", "one_of")]
    assert ended(waiting) == ("pending_approval", None)
