"""Reviewers and start times together with execute replays and with the replay gate."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.artifacts.models import Artifact, Replay
from apps.artifacts.services import replay_runs
from apps.releases.models import Acceptance, Approval, ApprovalDecision, Deployment
from apps.tenancy.models import Environment, Membership
from byteor.engine.canonical import format_time
from tests.artifacts import gate_steps, incidents
from tests.artifacts.execute_steps import create_environment, create_version, decide, post_replay
from tests.artifacts.fixture_steps import bundle, code
from tests.artifacts.gate_steps import accept, ask, asked, blocked_by, groups_of, pass_a_minute, ready, require
from tests.artifacts.kept import OTHER_MASK
from tests.worlds import Person, World, run_jobs

pytestmark = pytest.mark.django_db


def ids(*people: Person) -> list[str]:
    return [str(each.user.pk) for each in people]


def set_reviewers(world: World, environment: Environment, *people: Person) -> None:
    body = {"settings": {"reviewers": ids(*people)}}
    assert world.admin.api.put(world.path(environment), body).status_code == 200


def captured(world: World, environment: Environment) -> Artifact:
    version = create_version(world, environment, "identity")
    agent, api = world.agent(environment, "agent")
    response = incidents.upload(api, agent, incidents.incident(version.spec_kv), kind="incident_bundle")
    run_jobs()
    artifact = Artifact.objects.get(pk=response.json()["id"])
    assert artifact.status == "verified", artifact.reasons
    return artifact


def kind(response: Any) -> tuple[int, str]:
    return response.status_code, str(response.json().get("type")).rpartition(":")[2]


def test_reviewers_of_environment_decide_on_execute_replays(world: World) -> None:
    environment = create_environment(world)
    artifact = captured(world, environment)
    set_reviewers(world, environment, world.viewer, world.reviewer)
    replay = Replay.objects.get(pk=post_replay(world, artifact).json()["id"])
    assert replay.approval is not None
    assert replay.approval.reviewers == sorted(ids(world.viewer, world.reviewer))
    assert kind(decide(world, replay, api=world.admin.api)) == (403, "approval.reviewer")
    assert ApprovalDecision.objects.count() == 0
    assert decide(world, replay, api=world.viewer.api).json()["status"] == "approved"

    # Changed settings do not stop an approved replay, but the approval does not cover a new request.
    set_reviewers(world, environment, world.reviewer)
    credential = Approval.objects.get().credential
    assert kind(post_replay(world, artifact, approval=credential)) == (409, "approval.binding")
    run_jobs()
    replay.refresh_from_db()
    assert (replay.status, replay.error) == ("succeeded", None), replay.error

    # A submitted credential stays valid when the environment's reviewers change later.
    again = Replay.objects.get(pk=post_replay(world, artifact).json()["id"])
    assert decide(world, again).json()["status"] == "approved"
    credential = Approval.objects.get(replay_id=again.pk).credential
    assert post_replay(world, artifact, approval=credential).json()["status"] == "queued"
    last = Replay.objects.latest("pk")
    set_reviewers(world, environment)
    replay_runs.run(str(last.pk))
    last.refresh_from_db()
    assert (last.status, last.error) == ("succeeded", None), last.error

    # The request is refused if nobody can approve it.
    set_reviewers(world, environment, world.operator)
    before = Replay.objects.count()
    refused = post_replay(world, artifact)
    assert kind(refused) == (409, "approval.too_few_reviewers")
    assert refused.json()["detail"].startswith(
        "1 person must approve, but only 0 of the reviewers can approve or already did. "
    )
    set_reviewers(world, environment, world.viewer)
    Membership.objects.filter(user=world.viewer.user).delete()
    assert kind(post_replay(world, artifact)) == (409, "approval.too_few_reviewers")
    assert (Replay.objects.count(), Approval.objects.filter(status="pending").count()) == (before, 0)


def test_only_reviewers_accept_differences(world: World) -> None:
    ready(world)
    changed = bundle(world, "changed", redact=OTHER_MASK)
    made = asked(world, changed, reviewers=ids(world.viewer))
    [group] = groups_of(world, made)
    assert code(accept(world, made, [group])) == (403, "acceptance.reviewer", None)
    assert code(gate_steps.decide(world, made, accept_groups=[group], comment="fine"))[:2] == (403, "approval.reviewer")
    assert not Acceptance.objects.exists()

    # Without a waiting deployment, the environment's setting ``reviewers`` counts.
    assert world.operator.api.post(world.path(rest=f"/deployments/{made.pk}/abort"), {}).status_code == 200
    require(world, reviewers=ids(world.viewer))
    assert code(accept(world, made, [group])) == (403, "acceptance.reviewer", None)
    require(world)
    assert accept(world, made, [group]).status_code == 201

    # An acceptance does not count for a later deployment if the person is not a reviewer of that deployment.
    again = asked(world, changed, reviewers=ids(world.viewer))
    assert blocked_by(world, again) == ["replay_gate.differs"]
    given = gate_steps.decide(world, again, world.viewer, accept_groups=[group], comment="The new mask is wanted.")
    assert given.status_code == 201
    run_jobs()
    again.refresh_from_db()
    assert (again.status, Acceptance.objects.count()) == ("deploying", 2)


def test_gate_blocks_scheduled_deployment_and_its_deadline_runs_from_start_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(world, approvals_required=False)
    now = timezone.now()

    def at(**by: float) -> None:
        monkeypatch.setattr(timezone, "now", lambda: now + timedelta(**by))

    at()
    start = now + timedelta(hours=3)
    response = ask(world, bundle(world, "changed", redact=OTHER_MASK), start_at=format_time(start))
    made = Deployment.objects.get(pk=response.json()["id"])
    run_jobs()
    pass_a_minute()
    assert blocked_by(world, made) == ["start_at", "replay_gate.differs"]
    for hours in (2, 2.99):  # longer than ``approval_ttl_s``
        at(hours=hours)
        pass_a_minute()
    made.refresh_from_db()
    assert (made.status, made.gate_until) == ("approved", None)

    at(hours=3)
    pass_a_minute()
    made.refresh_from_db()
    assert (made.status, made.gate_until) == ("approved", start + timedelta(hours=1))
    assert blocked_by(world, made) == ["replay_gate.differs"]
    at(hours=4)
    pass_a_minute()
    made.refresh_from_db()
    assert (made.status, made.reason) == ("failed", "replay_gate")
