"""Execute replays: what may leave, under whose consent, once; and that nothing else ever does."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from apps.artifacts import effects
from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import replays, uploads
from apps.artifacts.tasks import replay as replay_job
from apps.releases.models import Approval
from apps.releases.tasks import sweep
from apps.tenancy.models import AuditEvent, Environment, OrganizationKey
from apps.tenancy.services import organizations
from byteor_cloud.engine.allowlist import url_prefix
from byteor_cloud.engine.replay import IncidentBundle
from byteor_cloud.errors import Unavailable
from byteor_cloud.ids import uuid7
from byteor_cloud.jobs import Claim
from tests.artifacts import incidents
from tests.artifacts.incidents import PAYLOADS, incident
from tests.artifacts.servers import Receiver, plainly, receiving
from tests.races import Race
from tests.worlds import Api, World, plan, run_jobs

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def receiver(settings: Any) -> Iterator[Receiver]:
    """Where the pipeline posts to; the server permits that, and one program."""
    with receiving() as receiver:
        settings.CONFIG = dataclasses.replace(
            settings.CONFIG,
            replay_http_allowlist=(url_prefix(receiver.origin + "/hook"),),
            replay_exec_allowlist=("/bin/true",),
        )
        yield receiver


def bodies(receiver: Receiver) -> list[bytes]:
    return [body for _, _, body in receiver.came]


def version_of(world: World, environment: Environment, *ops: str) -> Any:
    stages = [{"id": f"s{number}", "op": op, "depends_on": []} for number, op in enumerate(ops)]
    for number, stage in enumerate(stages[1:]):
        stage["depends_on"] = [f"s{number}"]
    # A version of its own each time, as a description is no part of the spec.
    return world.version(environment, {**plan(stages=stages), "description": str(uuid7())})


def captured(
    world: World, receiver: Receiver, environment: Environment | None = None, *more: str, **bundle: Any
) -> Artifact:
    """A verified incident of a pipeline that posts each record to the receiver."""
    environment = environment or world.dev
    version = version_of(world, environment, f"http_post:{receiver.origin}/hook", *more)
    agent, api = world.agent(environment, f"agent-{uuid7()}")
    answer = incidents.upload(api, agent, incident(version.spec_kv, **bundle), kind="incident_bundle")
    run_jobs()
    artifact = Artifact.objects.get(pk=answer.json()["id"])
    assert artifact.status == "verified", artifact.reasons
    return artifact


def allowing(world: World, posture: str = "prod", **settings: Any) -> Environment:
    return world.environment(posture, f"{posture}-{uuid7()}", replay_policy="allowed", **settings)


def ask(world: World, artifact: Artifact, api: Api | None = None, **body: Any) -> Any:
    path = world.path(artifact.environment, f"/artifacts/{artifact.pk}/replay")
    return (api or world.operator.api).post(path, {"mode": "execute", **body})


def asked(world: World, artifact: Artifact, **body: Any) -> Replay:
    answer = ask(world, artifact, **body)
    assert answer.status_code == 202, answer.json()
    return Replay.objects.get(pk=answer.json()["id"])


def decide(world: World, replay: Replay, decision: str = "approve", api: Api | None = None, **body: Any) -> Any:
    path = world.path(replay.environment, "/approvals")
    return (api or world.reviewer.api).post(path, {"replay_id": str(replay.pk), "decision": decision, **body})


def approved(world: World, artifact: Artifact, **body: Any) -> tuple[Replay, str]:
    """A replay that was approved and has not begun, and the credential."""
    replay = asked(world, artifact, **body)
    answer = decide(world, replay)
    assert answer.status_code == 201, answer.json()
    replays.follow_approval(answer.json()["id"])
    ProcrastinateJob.objects.all().delete()
    replay.refresh_from_db()
    assert replay.status == "queued"
    return replay, answer.json()["credential"]


def ended(replay: Replay) -> tuple[str, str | None]:
    replay.refresh_from_db()
    assert (replay.finished_at is None) is (replay.status in {"queued", "running", "pending_approval"})
    return replay.status, replay.error


def events(replay: Replay) -> list[str]:
    found = AuditEvent.objects.filter(resource_id=str(replay.pk)).order_by("id")
    return list(found.values_list("action", flat=True))


# --- what happens


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
    assert approval.target == {
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
        settings.CONFIG = dataclasses.replace(settings.CONFIG, replay_http_allowlist=(url_prefix(failing.origin),))
        replay = asked(world, captured(world, failing))
        run_jobs()

    assert ended(replay) == ("failed", "stage 's0' failed on record 2: answered 503")
    assert bodies(failing) == PAYLOADS[:2]
    assert [action["decision"] for action in replay.audit["actions"]] == ["Allow", "Allow"]
    assert replay.result["stages"]["s0"] == {"in": 2, "out": 1, "dropped": 0, "errors": 1}


# --- once, and never again by itself


class Killed(BaseException):
    """The worker is gone."""


def test_interrupted_it_is_failed_and_not_run_again(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = asked(world, captured(world, receiver))
    post = effects.Executor._post

    def die_after_the_first(*arguments: Any) -> None:
        post(*arguments)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(effects.Executor, "_post", die_after_the_first)
        with pytest.raises(Killed):
            replays.run(str(replay.pk))
    assert (ended(replay), bodies(receiver)) == (("running", None), PAYLOADS[:1])

    replays.run(str(replay.pk))

    assert (ended(replay), bodies(receiver)) == (("failed", "interrupted"), PAYLOADS[:1])
    replays.run(str(replay.pk))
    assert len(receiver.came) == 1
    assert events(replay) == ["replay.request", "replay.start", "replay.fail"]


def test_it_says_running_and_has_spent_the_approval_before_anything_leaves(at_once: Race, settings: Any) -> None:
    seen: list[tuple[str, bool]] = []

    def look(handler: BaseHTTPRequestHandler) -> None:
        """On the server's own connection, which sees only what is committed."""
        try:
            row = Replay.objects.select_related("approval").get()
            assert row.approval is not None
            seen.append((row.status, row.approval.used_at is not None))
        finally:
            connection.close()
        plainly(handler)

    world = World("acme")
    with receiving(look) as watching:
        settings.CONFIG = dataclasses.replace(settings.CONFIG, replay_http_allowlist=(url_prefix(watching.origin),))
        replay, _ = approved(world, captured(world, watching, allowing(world)), last_n=1)
        replays.run(str(replay.pk))

    assert (ended(replay), seen) == (("succeeded", None), [("running", True)])


def test_two_workers_with_the_same_job_run_it_once(
    at_once: Race, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("acme")
    replay, _ = approved(world, captured(world, receiver, allowing(world)))
    both, unpacked = threading.Barrier(2), uploads.unpacked

    @contextmanager
    def together(artifact: Artifact) -> Iterator[IncidentBundle]:
        """Both have seen it queued."""
        with unpacked(artifact) as bundle:
            both.wait(10)
            yield bundle

    monkeypatch.setattr(replays, "unpacked", together)

    assert at_once(*[lambda: replays.run(str(replay.pk))] * 2) == [None, None]

    assert (ended(replay), bodies(receiver)) == (("succeeded", None), PAYLOADS)
    assert events(replay).count("replay.start") == 1


def test_two_replays_at_once_with_one_credential(at_once: Race, receiver: Receiver) -> None:
    world = World("acme")
    artifact = captured(world, receiver, allowing(world))
    one, credential = approved(world, artifact)
    two = asked(world, artifact, approval=credential)

    at_once(lambda: replays.run(str(one.pk)), lambda: replays.run(str(two.pk)))

    assert sorted([ended(one), ended(two)]) == [("failed", "approval.used"), ("succeeded", None)]
    assert bodies(receiver) == PAYLOADS


def test_broken_off_it_is_failed_at_once(world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = asked(world, captured(world, receiver))

    def broken(*_: Any, **__: Any) -> None:
        raise ArithmeticError("not\0finite")

    monkeypatch.setattr(replays, "replay", broken)
    with pytest.raises(ArithmeticError, match="finite"):
        replay_job(Claim(), replay_id=str(replay.pk))

    assert ended(replay) == ("failed", "ArithmeticError: not?finite")
    replay_job(Claim(), replay_id=str(replay.pk))
    assert receiver.came == []


def test_a_store_that_does_not_answer_costs_no_approval(world: World, receiver: Receiver, store: Path) -> None:
    replay, _ = approved(world, captured(world, receiver, allowing(world)))
    store.rename(store.with_name("away"))

    with pytest.raises(Unavailable, match="store's folder is missing"):
        replay_job(Claim(), replay_id=str(replay.pk))

    assert (ended(replay), Approval.objects.get().used_at) == (("queued", None), None)
    store.with_name("away").rename(store)
    replays.run(str(replay.pk))
    assert ended(replay) == ("succeeded", None)


# --- consent


def test_denied_nothing_runs(world: World, receiver: Receiver) -> None:
    replay = asked(world, captured(world, receiver, allowing(world)))

    assert decide(world, replay, "deny").status_code == 400  # without a comment
    assert decide(world, replay, "deny", comment="not this week").json()["status"] == "denied"
    run_jobs()

    assert (ended(replay), receiver.came) == (("denied", "approval.denied"), [])
    assert events(replay) == ["replay.request", "replay.deny"]
    assert decide(world, replay).json()["type"] == "urn:byteor:problem:approval.decided"


def test_not_decided_in_time(world: World, receiver: Receiver) -> None:
    replay = asked(world, captured(world, receiver, allowing(world)))
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    sweep()
    run_jobs()

    assert (ended(replay), receiver.came) == (("denied", "approval.expired"), [])


def revoke(world: World, replay: Replay) -> Any:
    path = world.path(replay.environment, f"/approvals/{replay.approval_id}/revoke")
    return world.reviewer.api.post(path)


def test_revoked_while_it_waits(world: World, receiver: Receiver) -> None:
    replay = asked(world, captured(world, receiver, allowing(world)))

    assert revoke(world, replay).status_code == 200
    run_jobs()

    assert (ended(replay), receiver.came) == (("denied", "approval.revoked"), [])


@pytest.mark.parametrize("told_first", [True, False])
def test_revoked_between_approval_and_start(world: World, receiver: Receiver, told_first: bool) -> None:
    replay, _ = approved(world, captured(world, receiver, allowing(world)))

    assert revoke(world, replay).status_code == 200
    if told_first:
        run_jobs()
    replays.run(str(replay.pk))

    assert (ended(replay), receiver.came) == (("failed", "approval.revoked"), [])
    assert (replay.started_at, events(replay)[-1]) == (None, "replay.fail")


def test_expired_between_approval_and_start(world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    replay, _ = approved(world, captured(world, receiver, allowing(world)))
    later = timezone.now() + timedelta(hours=2)

    with monkeypatch.context() as patched:
        patched.setattr(timezone, "now", lambda: later)
        replays.run(str(replay.pk))

    assert (ended(replay), receiver.came) == (("failed", "approval.expired"), [])
    assert Approval.objects.get().used_at is None


def test_the_policy_at_the_start_counts(world: World, receiver: Receiver) -> None:
    environment = allowing(world)
    replay, _ = approved(world, captured(world, receiver, environment))
    path = world.path(environment)
    assert world.admin.api.put(path, {"settings": {"replay_policy": "dry_run_only"}}).status_code == 200

    replays.run(str(replay.pk))

    assert (ended(replay), receiver.came) == (("failed", "replay.dry_run_only"), [])
    assert Approval.objects.get().used_at is None


def test_of_a_deleted_environment_nothing_runs(world: World, receiver: Receiver) -> None:
    environment = allowing(world, "dev")
    replay = asked(world, captured(world, receiver, environment))
    organizations.delete(environment, kind="environment", actor=world.admin.actor)

    replays.run(str(replay.pk))

    assert (ended(replay), receiver.came) == (("queued", None), [])


# --- a credential that was given before


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


def refused(answer: Any, status: int, code: str, *, replays_before: int | None = None) -> None:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:byteor:problem:{code}"), answer.json()
    assert not ProcrastinateJob.objects.filter(task_name="artifacts.replay").exists()
    if replays_before is not None:
        assert Replay.objects.count() == replays_before


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
