"""After a restore, queued and running execute replays fail, and a finished dry run is repeated and compared."""

from __future__ import annotations

import pytest

from apps.artifacts.models import Replay
from apps.artifacts.services import restored
from tests.artifacts.execute_steps import (
    bodies,
    capture_incident,
    create_environment,
    request_approved_replay,
    request_replay,
    status_and_error,
)
from tests.artifacts.servers import Receiver
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db


def test_queued_and_running_execute_replays_fail_after_restore(world: World, receiver: Receiver) -> None:
    prod = create_environment(world)
    captures = [capture_incident(world, receiver, environment) for environment in (None, prod, prod)]
    running, _ = request_approved_replay(world, captures[1])
    Replay.objects.filter(pk=running.pk).update(status="running")
    queued, waiting = request_replay(world, captures[0]), request_replay(world, captures[2])

    counts = restored.settle()
    run_jobs()

    assert counts == {"replays_interrupted": 2}
    assert [status_and_error(each) for each in (queued, running)] == [("failed", "interrupted")] * 2
    assert status_and_error(waiting) == ("pending_approval", None)
    assert bodies(receiver) == []


def test_completed_dry_run_is_repeated_and_digests_are_compared(world: World, receiver: Receiver) -> None:
    artifact = capture_incident(world, receiver)
    assert restored.repeat_replay() is None
    world.operator.api.post(world.path(rest=f"/artifacts/{artifact.pk}/replay"), {"mode": "dry_run"})
    run_jobs()
    replay = Replay.objects.get()
    before = replay.result

    assert restored.repeat_replay() == restored.Repeated(replay.pk, is_equal=True)

    replay.refresh_from_db()
    assert (replay.result, bodies(receiver)) == (before, [])
    altered = {**before, "egress": {name: {**each, "sha256": "sha256:0"} for name, each in before["egress"].items()}}
    Replay.objects.filter(pk=replay.pk).update(result=altered)
    assert restored.repeat_replay() == restored.Repeated(replay.pk, is_equal=False)
