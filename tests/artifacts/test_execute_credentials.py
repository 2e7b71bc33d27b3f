"""The credential of an execute replay: what it serves for, in whose hands, and who counts as the requester."""

from __future__ import annotations

from typing import Any

import pytest

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import replays
from apps.releases.models import Approval
from apps.tenancy.models import OrganizationKey
from tests.artifacts import incidents
from tests.artifacts.execute_steps import (
    allowing,
    approved,
    ask,
    asked,
    bodies,
    captured,
    decide,
    ended,
    refused,
    revoke,
    version_of,
)
from tests.artifacts.incidents import PAYLOADS
from tests.artifacts.servers import Receiver
from tests.worlds import Api, World, run_jobs

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("receiver")]


def test_an_unused_credential_serves_another_replay_of_the_same(world: World, receiver: Receiver) -> None:
    artifact = captured(world, receiver, allowing(world))
    first, credential = approved(world, artifact)

    second = asked(world, artifact, approval=credential)

    assert (second.status, second.approval_id, Approval.objects.count()) == ("queued", first.approval_id, 1)
    run_jobs()
    assert ended(second) == ("succeeded", None)
    assert second.audit["policy"]["approval_provided"] is True
    replays.run(str(first.pk))
    assert ended(first) == ("failed", "approval.used")
    assert bodies(receiver) == PAYLOADS
    refused(ask(world, artifact, approval=credential), 409, "approval.used")


def test_in_dev_one_that_is_handed_in_must_be_good_too(world: World, receiver: Receiver) -> None:
    artifact = captured(world, receiver)

    refused(ask(world, artifact, approval="a.b"), 400, "approval.malformed", replays_before=0)


def test_a_credential_is_for_what_was_shown_only(world: World, receiver: Receiver) -> None:
    environment = allowing(world)
    artifact = captured(world, receiver, environment)
    other_artifact = captured(world, receiver, environment, quotes_in=incidents.journal([b"x"]))
    same_spec = version_of(world, environment, f"http_post:{receiver.origin}/hook")
    other_spec = version_of(world, environment, f"http_post:{receiver.origin}/hook", "identity")
    elsewhere = captured(world, receiver, allowing(world))
    _, credential = approved(world, artifact)
    flipped = credential[:-2] + ("A" if credential[-2] != "A" else "B") + credential[-1]

    assert same_spec.spec_hash == artifact.spec_hash
    tries: list[tuple[Artifact, dict[str, Any], int, str]] = [
        (artifact, {"last_n": 1}, 409, "binding"),
        (artifact, {"journal_lane": "quotes_in"}, 409, "binding"),
        (other_artifact, {}, 409, "binding"),
        (artifact, {"version_id": str(artifact.version_id)}, 409, "binding"),  # the newest of that spec was shown
        (artifact, {"version_id": str(other_spec.pk)}, 400, "spec_hash"),
        (elsewhere, {}, 400, "environment"),
        (artifact, {"approval": flipped}, 400, "bad_signature"),
        (artifact, {"approval": "bor_usr_x"}, 400, "malformed"),
    ]
    for target, body, status, code in tries:
        named = {"approval": credential, **body}
        refused(ask(world, target, **named), status, f"approval.{code}", replays_before=1)
    assert (Approval.objects.get().used_at, receiver.came) == (None, [])


def test_consent_to_deploy_is_none_to_replay_and_the_other_way_round(world: World, receiver: Receiver) -> None:
    environment = allowing(world, max_in_flight_deployments=2)
    artifact = captured(world, receiver, environment)
    bundle = world.bundle(environment, version=artifact.version)
    deployment = world.deployment(bundle)
    path = world.path(environment, "/approvals")
    decision = {"deployment_id": str(deployment.pk), "decision": "approve"}
    to_deploy = world.reviewer.api.post(path, decision).json()["credential"]
    _, to_replay = approved(world, artifact)

    refused(ask(world, artifact, approval=to_deploy), 400, "approval.capability", replays_before=1)
    body = {
        "config_bundle_id": str(bundle.pk), "target": {"all": True}, "strategy": {"kind": "all_at_once"},
        "approval": to_replay,
    }  # fmt: skip
    answer = world.operator.api.post(world.path(environment, "/deployments"), body)
    refused(answer, 400, "approval.capability")
    assert not Approval.objects.exclude(used_at=None).exists()


def test_a_revoked_credential_is_refused_at_once(world: World, receiver: Receiver) -> None:
    artifact = captured(world, receiver, allowing(world))
    replay, credential = approved(world, artifact)
    revoke(world, replay)

    refused(ask(world, artifact, approval=credential), 409, "approval.revoked", replays_before=1)


# --- four eyes: whoever made the key that asks is the requester


def key(world: World, maker: Api, name: str = "ci") -> Api:
    made = maker.post(f"/api/v1/orgs/{world.organization.pk}/api-keys", {"name": name, "role": "operator"})
    return Api(made.json()["token"])


def test_who_made_the_key_that_asks_cannot_approve(world: World, receiver: Receiver) -> None:
    answer = ask(world, captured(world, receiver, allowing(world)), key(world, world.admin.api))
    replay = Replay.objects.get(pk=answer.json()["id"])

    assert decide(world, replay, api=world.admin.api).json()["type"] == "urn:byteor:problem:approval.self"
    assert decide(world, replay, api=world.reviewer.api).status_code == 201


def test_who_approved_cannot_hand_the_credential_in(world: World, receiver: Receiver) -> None:
    artifact = captured(world, receiver, allowing(world))
    replay = asked(world, artifact)
    credential = decide(world, replay, api=world.admin.api).json()["credential"]

    for api in (world.admin.api, key(world, world.admin.api)):
        refused(ask(world, artifact, api, approval=credential), 403, "approval.self", replays_before=1)


def test_a_key_whose_maker_nobody_knows_cannot_ask(world: World, receiver: Receiver) -> None:
    strict, dev = captured(world, receiver, allowing(world)), captured(world, receiver)
    _, credential = approved(world, strict)
    api = key(world, world.admin.api)
    OrganizationKey.objects.update(created_by=None)

    refused(ask(world, strict, api), 403, "approval.requester_unknown", replays_before=1)
    refused(ask(world, strict, api, approval=credential), 403, "approval.requester_unknown", replays_before=1)
    assert ask(world, dev, api).status_code == 202
