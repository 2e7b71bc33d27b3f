"""Concurrent changes to assignments, such as a report during a rollback, and the rows that result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from apps.fleet.models import Assignment
from apps.fleet.services import agents as fleet_services
from apps.releases.models import DeploymentAgent
from apps.releases.services import assignments, builds, rollout_steps
from tests.races import Race
from tests.releases import stories
from tests.worlds import World, report

WAITS_S = 30  # the maximum wait for the other thread, in seconds, which only a failing test reaches
_BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Pause:
    """Blocks the first thread that calls ``name`` in ``assignments``, until the test releases the thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self._entered, self._released = threading.Event(), threading.Event()
        function = getattr(assignments, name)

        def paused(*args: Any, **kwargs: Any) -> Any:
            if not self._entered.is_set():
                self._entered.set()
                assert self._released.wait(WAITS_S)
            return function(*args, **kwargs)

        monkeypatch.setattr(assignments, name, paused)

    def then[T](self, call: Callable[[], T]) -> Callable[[], T]:
        """Return a function that waits until another thread is blocked, and then calls ``call``."""

        def run() -> T:
            assert self._entered.wait(WAITS_S)
            return call()

        return run

    def release_when_blocked(self) -> None:
        """Wait until a thread is blocked and a database session waits for a lock. Then release the thread."""
        assert self._entered.wait(WAITS_S)
        until = time.monotonic() + WAITS_S
        try:
            with connection.cursor() as cursor:
                while time.monotonic() < until:
                    cursor.execute(_BLOCKED)
                    if cursor.fetchone()[0]:
                        return
                    time.sleep(0.01)
            raise AssertionError("no thread waits for the blocked one")
        finally:
            self._released.set()

    def release(self) -> None:
        """Release the blocked thread."""
        self._released.set()


def rows_agree() -> bool:
    """Return whether each assignment with an offer has the progress and the action of its deployment agent."""
    parts: dict[tuple[UUID | None, UUID], tuple[str, str]] = {
        (deployment_id, agent_id): (action, progress)
        for deployment_id, agent_id, action, progress in DeploymentAgent.objects.values_list(
            "deployment_id", "agent_id", "action", "progress"
        )
    }
    return all(
        parts[assignment.deployment_id, assignment.agent_id] == (assignment.action, assignment.progress)
        for assignment in Assignment.objects.filter(deployment_id__isnull=False)
    )


def test_rollback_waits_for_concurrent_report_then_replaces_offer(
    concurrently: Race, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = stories.fleet(world, 3)
    first, second = stories.bundles(world, 2)
    stories.active(world, first, agents)
    deployment = stories.offered(world, second)
    pause = Pause(monkeypatch, "record_report")

    reported, rolled_back, _ = concurrently(
        lambda: report(agents[1][1], agents[1][0], "active").status_code,
        pause.then(lambda: stories.roll_back(world, deployment).status_code),
        pause.release_when_blocked,
    )

    assert (reported, rolled_back) == (200, 200)
    assert stories.all_desired(agents) == [(deployment.pk, "rollback")] * 3
    assert stories.progress(deployment) == ["offered"] * 3
    assert rows_agree()


def test_report_that_waited_for_rollback_is_refused(
    concurrently: Race, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = stories.fleet(world, 3)
    first, second = stories.bundles(world, 2)
    stories.active(world, first, agents)
    deployment = stories.offered(world, second)
    pause = Pause(monkeypatch, "_change")  # after the assignments are changed, but before the deployment agents are

    rolled_back, reported, _ = concurrently(
        lambda: stories.roll_back(world, deployment).status_code,
        pause.then(lambda: report(agents[1][1], agents[1][0], "active").status_code),
        pause.release_when_blocked,
    )

    assert (rolled_back, reported) == (200, 409)
    assert stories.all_desired(agents) == [(deployment.pk, "rollback")] * 3
    assert stories.progress(deployment) == ["offered"] * 3
    assert rows_agree()


def test_rollback_includes_agents_restored_by_abort(
    concurrently: Race, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = stories.fleet(world, 2)
    first, second, third = stories.bundles(world, 3)
    stories.active(world, first, agents)
    current = stories.active(world, second, agents)
    newest = stories.offered(world, third)
    pause = Pause(monkeypatch, "_assign")

    aborted, rolled_back, _ = concurrently(
        lambda: stories.command(world.operator.api, world, newest, "abort").status_code,
        pause.then(lambda: stories.roll_back(world, current).status_code),
        pause.release_when_blocked,
    )

    assert (aborted, rolled_back) == (200, 200)
    assert stories.all_desired(agents) == [(current.pk, "rollback")] * 2
    assert rows_agree()


def test_agent_can_be_decommissioned_while_deployment_is_being_offered(
    concurrently: Race, world: World, run_jobs: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (stays, api), (leaves, _) = stories.fleet(world, 2)
    deployment = world.deployment(world.bundle())
    pause = Pause(monkeypatch, "offer")

    def leave() -> None:
        fleet_services.decommission(leaves, actor=world.operator.actor)
        pause.release()

    results = concurrently(lambda: builds.build(str(deployment.pk)), pause.then(leave))

    assert results == [None, None]
    assert stories.progress(deployment) == ["offered", "offered"]
    assert report(api, stays, "active").status_code == 200
    run_jobs()
    assert stories.state(deployment) == ("active", "")
    assert stories.progress(deployment) == ["active", "offered"]


@pytest.mark.parametrize("change", ["abort", "retry", "rollback", "step"])
def test_rows_are_consistent_after_reports_during_abort_retry_rollback_or_rollout_step(
    concurrently: Race, world: World, run_jobs: Callable[[], int], change: str
) -> None:
    agents = stories.fleet(world, 6)
    first, second = stories.bundles(world, 2)
    stories.active(world, first, agents)
    deployment = stories.offered(world, second, strategy=stories.waves(100, threshold=100))
    assert report(agents[0][1], agents[0][0], "failed").status_code == 200
    stories.set_offered_ago(deployment, 10_000, *(agent for agent, _ in agents[3:]))

    def change_all() -> int:
        if change == "step":
            rollout_steps.run_step(str(deployment.pk))
            return 200
        response = stories.command(world.operator.api, world, deployment, change, reason="now")
        return int(response.status_code)

    changed, *reported = concurrently(
        change_all,
        *(lambda agent=agent, api=api: report(api, agent, "active").status_code for agent, api in agents),
    )

    assert changed == 200
    assert set(reported) <= {200, 409}
    assert rows_agree()
    run_jobs()
    assert rows_agree()
