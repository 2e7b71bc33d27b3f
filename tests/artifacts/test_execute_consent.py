"""Consent to an execute replay: denied, revoked, expired or outdated, nothing runs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.artifacts.services import replays
from apps.releases.models import Approval
from apps.releases.tasks import sweep
from apps.tenancy.services import organizations
from tests.artifacts.execute_steps import allowing, approved, asked, captured, decide, ended, events, revoke
from tests.artifacts.servers import Receiver
from tests.worlds import World, run_jobs

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("receiver")]


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
