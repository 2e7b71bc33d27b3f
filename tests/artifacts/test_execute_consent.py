"""Execute replays do not run if the policy forbids them, or in a deleted environment.

Those that need an approval do not run without a valid one.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.artifacts.services import replay_runs
from apps.releases.models import Approval
from apps.releases.tasks import sweep
from apps.tenancy.services import organizations
from tests.artifacts.execute_steps import (
    audit_actions,
    capture_incident,
    create_environment,
    decide,
    request_approved_replay,
    request_replay,
    revoke,
    status_and_error,
)
from tests.artifacts.servers import Receiver
from tests.worlds import World, run_jobs

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("receiver")]


def test_denied_replay_does_not_run(world: World, receiver: Receiver) -> None:
    replay = request_replay(world, capture_incident(world, receiver, create_environment(world)))

    assert decide(world, replay, "deny").status_code == 400  # a denial requires a comment
    assert decide(world, replay, "deny", comment="not this week").json()["status"] == "denied"
    run_jobs()

    assert (status_and_error(replay), receiver.requests) == (("denied", "approval.denied"), [])
    assert audit_actions(replay) == ["replay.request", "replay.deny"]
    assert decide(world, replay).json()["type"] == "urn:byteor:problem:approval.decided"


def test_pending_replay_is_denied_when_its_approval_expires(world: World, receiver: Receiver) -> None:
    replay = request_replay(world, capture_incident(world, receiver, create_environment(world)))
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    sweep()
    run_jobs()

    assert (status_and_error(replay), receiver.requests) == (("denied", "approval.expired"), [])


def test_pending_replay_is_denied_when_its_approval_is_revoked(world: World, receiver: Receiver) -> None:
    replay = request_replay(world, capture_incident(world, receiver, create_environment(world)))

    assert revoke(world, replay).status_code == 200
    run_jobs()

    assert (status_and_error(replay), receiver.requests) == (("denied", "approval.revoked"), [])


@pytest.mark.parametrize("is_job_first", [True, False])
def test_queued_replay_fails_when_its_approval_is_revoked(world: World, receiver: Receiver, is_job_first: bool) -> None:
    replay, _ = request_approved_replay(world, capture_incident(world, receiver, create_environment(world)))

    assert revoke(world, replay).status_code == 200
    if is_job_first:
        run_jobs()  # the job that handles the revocation
    replay_runs.run(str(replay.pk))

    assert (status_and_error(replay), receiver.requests) == (("failed", "approval.revoked"), [])
    assert (replay.started_at, audit_actions(replay)[-1]) == (None, "replay.fail")


def test_queued_replay_fails_if_its_approval_has_expired(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay, _ = request_approved_replay(world, capture_incident(world, receiver, create_environment(world)))
    later = timezone.now() + timedelta(hours=2)

    with monkeypatch.context() as patched:
        patched.setattr(timezone, "now", lambda: later)
        replay_runs.run(str(replay.pk))

    assert (status_and_error(replay), receiver.requests) == (("failed", "approval.expired"), [])
    assert Approval.objects.get().used_at is None


def test_queued_replay_fails_if_policy_no_longer_permits_it(world: World, receiver: Receiver) -> None:
    environment = create_environment(world)
    replay, _ = request_approved_replay(world, capture_incident(world, receiver, environment))
    path = world.path(environment)
    assert world.admin.api.put(path, {"settings": {"replay_policy": "dry_run_only"}}).status_code == 200

    replay_runs.run(str(replay.pk))

    assert (status_and_error(replay), receiver.requests) == (("failed", "replay.dry_run_only"), [])
    assert Approval.objects.get().used_at is None


def test_replay_in_deleted_environment_does_not_run(world: World, receiver: Receiver) -> None:
    environment = create_environment(world, "dev")
    replay = request_replay(world, capture_incident(world, receiver, environment))
    organizations.delete(environment, kind="environment", actor=world.admin.actor)

    replay_runs.run(str(replay.pk))

    assert (status_and_error(replay), receiver.requests) == (("queued", None), [])
