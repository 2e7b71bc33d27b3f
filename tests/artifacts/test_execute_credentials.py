"""Approval credentials of execute replays: what they permit, and who may use them."""

from __future__ import annotations

from typing import Any

import pytest

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import replay_runs
from apps.releases.models import Approval
from apps.tenancy.models import OrganizationKey
from tests.artifacts import incidents
from tests.artifacts.execute_steps import (
    bodies,
    capture_incident,
    create_environment,
    create_version,
    decide,
    post_replay,
    refused,
    request_approved_replay,
    request_replay,
    revoke,
    status_and_error,
)
from tests.artifacts.incidents import PAYLOADS
from tests.artifacts.servers import Receiver
from tests.worlds import Api, World, run_jobs

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("receiver")]


def test_unused_credential_permits_identical_replay(world: World, receiver: Receiver) -> None:
    artifact = capture_incident(world, receiver, create_environment(world))
    first, credential = request_approved_replay(world, artifact)

    second = request_replay(world, artifact, approval=credential)

    assert (second.status, second.approval_id, Approval.objects.count()) == ("queued", first.approval_id, 1)
    run_jobs()
    assert status_and_error(second) == ("succeeded", None)
    assert second.audit["policy"]["approval_provided"] is True
    replay_runs.run(str(first.pk))
    assert status_and_error(first) == ("failed", "approval.used")
    assert bodies(receiver) == PAYLOADS
    refused(post_replay(world, artifact, approval=credential), 409, "approval.used")


def test_malformed_approval_credential_is_refused_even_in_dev(world: World, receiver: Receiver) -> None:
    artifact = capture_incident(world, receiver)

    refused(post_replay(world, artifact, approval="a.b"), 400, "approval.malformed", replays_before=0)


def test_credential_permits_only_replays_identical_to_approved_one(world: World, receiver: Receiver) -> None:
    environment = create_environment(world)
    artifact = capture_incident(world, receiver, environment)
    other_artifact = capture_incident(world, receiver, environment, quotes_in=incidents.journal([b"x"]))
    same_spec = create_version(world, environment, f"http_post:{receiver.origin}/hook")
    other_spec = create_version(world, environment, f"http_post:{receiver.origin}/hook", "identity")
    elsewhere = capture_incident(world, receiver, create_environment(world))
    bundle = world.bundle(environment, version=same_spec)
    _, credential = request_approved_replay(world, artifact)
    flipped = credential[:-2] + ("A" if credential[-2] != "A" else "B") + credential[-1]

    assert same_spec.spec_hash == artifact.spec_hash
    tries: list[tuple[Artifact, dict[str, Any], int, str]] = [
        (artifact, {"last_n": 1}, 409, "binding"),
        (artifact, {"journal_lane": "quotes_in"}, 409, "binding"),
        (artifact, {"config_bundle_id": str(bundle.pk)}, 409, "binding"),
        (other_artifact, {}, 409, "binding"),
        (artifact, {"version_id": str(artifact.version_id)}, 409, "binding"),  # the approval is for a newer version
        (artifact, {"version_id": str(other_spec.pk)}, 400, "spec_hash"),
        (elsewhere, {}, 400, "environment"),
        (artifact, {"approval": flipped}, 400, "bad_signature"),
        (artifact, {"approval": "bor_usr_x"}, 400, "malformed"),
    ]
    for target, body, status, code in tries:
        named = {"approval": credential, **body}
        refused(post_replay(world, target, **named), status, f"approval.{code}", replays_before=1)
    assert (Approval.objects.get().used_at, receiver.requests) == (None, [])


def test_deployment_and_replay_credentials_are_not_interchangeable(world: World, receiver: Receiver) -> None:
    environment = create_environment(world, max_in_flight_deployments=2)
    artifact = capture_incident(world, receiver, environment)
    bundle = world.bundle(environment, version=artifact.version)
    deployment = world.deployment(bundle)
    path = world.path(environment, "/approvals")
    decision = {"deployment_id": str(deployment.pk), "decision": "approve"}
    to_deploy = world.reviewer.api.post(path, decision).json()["credential"]
    _, to_replay = request_approved_replay(world, artifact)

    refused(post_replay(world, artifact, approval=to_deploy), 400, "approval.capability", replays_before=1)
    body = {
        "config_bundle_id": str(bundle.pk), "target": {"all": True}, "strategy": {"kind": "all_at_once"},
        "approval": to_replay,
    }  # fmt: skip
    response = world.operator.api.post(world.path(environment, "/deployments"), body)
    refused(response, 400, "approval.capability")
    assert not Approval.objects.exclude(used_at=None).exists()


def test_revoked_credential_is_refused_immediately(world: World, receiver: Receiver) -> None:
    artifact = capture_incident(world, receiver, create_environment(world))
    replay, credential = request_approved_replay(world, artifact)
    revoke(world, replay)

    refused(post_replay(world, artifact, approval=credential), 409, "approval.revoked", replays_before=1)


# --- four-eyes principle: the person who created an API key counts as the requester


def key(world: World, maker: Api, name: str = "ci") -> Api:
    made = maker.post(f"/api/v1/orgs/{world.organization.pk}/api-keys", {"name": name, "role": "operator"})
    return Api(made.json()["token"])


def test_creator_of_requesting_key_cannot_approve_where_self_approval_is_forbidden(
    world: World, receiver: Receiver
) -> None:
    response = post_replay(
        world, capture_incident(world, receiver, create_environment(world)), key(world, world.admin.api)
    )
    replay = Replay.objects.get(pk=response.json()["id"])

    assert decide(world, replay, api=world.admin.api).json()["type"] == "urn:byteor:problem:approval.self"
    assert decide(world, replay, api=world.reviewer.api).status_code == 201


def test_sole_approver_cannot_use_credential_where_self_approval_is_forbidden(world: World, receiver: Receiver) -> None:
    artifact = capture_incident(world, receiver, create_environment(world))
    replay = request_replay(world, artifact)
    credential = decide(world, replay, api=world.admin.api).json()["credential"]

    for api in (world.admin.api, key(world, world.admin.api)):
        refused(post_replay(world, artifact, api, approval=credential), 403, "approval.self", replays_before=1)


def test_key_without_known_creator_cannot_request_replay_that_needs_approval(world: World, receiver: Receiver) -> None:
    strict, dev = capture_incident(world, receiver, create_environment(world)), capture_incident(world, receiver)
    _, credential = request_approved_replay(world, strict)
    api = key(world, world.admin.api)
    OrganizationKey.objects.update(created_by=None)

    refused(post_replay(world, strict, api), 403, "approval.requester_unknown", replays_before=1)
    refused(post_replay(world, strict, api, approval=credential), 403, "approval.requester_unknown", replays_before=1)
    assert post_replay(world, dev, api).status_code == 202
