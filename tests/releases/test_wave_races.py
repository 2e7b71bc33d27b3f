"""Decisions on waves, and concurrent changes: two calls end without a deadlock, as if one came after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from django.utils import timezone

from apps.fleet.services.agents import set_drained
from apps.releases.models import Approval, ApprovalDecision, Deployment, TimelineEntry
from apps.releases.services import approvals, deployments, reports, reviewers, rollout_steps
from apps.releases.tasks import sweep
from apps.tenancy.models import Environment
from apps.tenancy.services.state import lock_row
from byteor_cloud.errors import DomainError, Unavailable
from tests.patience import PATIENCE_S, wait_until
from tests.races import count_waiting, outcome
from tests.releases import stories
from tests.worlds import Person, World, report, run_jobs

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class Scene:
    """A deployment and its agents.

    In a scene that ``Scenes`` creates, the agents are in two waves of equal size, the first agent has reported, and the
    second wave is held.
    """

    world: World
    environment: Environment
    agents: stories.Fleet
    deployment: Deployment

    @property
    def held(self) -> Approval:
        """The approval of the hold in effect."""
        self.deployment.refresh_from_db()
        hold = self.deployment.wave_hold
        assert hold is not None
        assert hold.approval_id is not None
        return Approval.objects.get(pk=hold.approval_id)

    def decides(self, by: Person, decision: str = "approve") -> Callable[[], Any]:
        """Return a function that makes the decision of a person who has read the report of the wave."""
        approval = self.held
        assert approval.wave_report is not None
        digest = approval.wave_report.digest
        return lambda: approvals.decide(
            approval, decision=decision, comment="why", digest=digest, user=by.user, actor=by.actor
        )

    def does(self, function: Callable[..., Any], **options: Any) -> Callable[[], Any]:
        return lambda: function(Deployment.objects.get(pk=self.deployment.pk), actor=self.world.admin.actor, **options)

    def steps(self) -> Callable[[], None]:
        return lambda: rollout_steps.run_step(str(self.deployment.pk))

    def state(self) -> tuple[str, int, list[str]]:
        """Run the jobs. Return the status, the wave, and the progress of each agent."""
        run_jobs()
        self.deployment.refresh_from_db()
        return self.deployment.status, self.deployment.wave, stories.progress(self.deployment)


class Scenes:
    """Creates scenes, and makes two calls in a scene concurrently."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.monkeypatch = world, monkeypatch
        self.environment = world.environment("dev", "race")
        self.agents = stories.fleet(world, 2, self.environment)
        self.bundle = world.bundle(self.environment)

    def new(
        self, hold: str = "approval", first: str = "active", *, required: int = 1, listed: list[UUID] | None = None
    ) -> Scene:
        """End the previous scene, and create another one with the same bundle and agents."""
        for under_way in Deployment.objects.filter(environment=self.environment, status="deploying"):
            deployments.abort(under_way, actor=self.world.admin.actor)
        Environment.objects.filter(pk=self.environment.pk).update(settings={"required_approvals": required})
        strategy = {**stories.waves(50, 100, threshold=100), "holds": [None, hold]}
        deployment = stories.offered(self.world, self.bundle, strategy=strategy, reviewer_ids=listed)
        stories.report_from_all(self.agents[:1], first, run_jobs)
        scene = Scene(self.world, self.environment, self.agents, deployment)
        assert scene.state() == ("deploying", 0, [first, "pending"])
        return scene

    def new_with_late_report(self) -> Scene:
        """Create a scene with four agents, of which the second was drained after it was offered the bundle."""
        self.agents += [self.world.agent(self.environment, name) for name in ("third", "fourth")]
        strategy = {**stories.waves(50, 100, threshold=100), "holds": [None, "approval"]}
        deployment = stories.offered(self.world, self.bundle, strategy=strategy)
        set_drained(self.agents[1][0], drained=True, actor=self.world.admin.actor)
        stories.report_from_all(self.agents[:1], "active", run_jobs)
        scene = Scene(self.world, self.environment, self.agents, deployment)
        assert scene.state() == ("deploying", 0, ["active", "offered", "pending", "pending"])
        return scene

    def in_order(self, scene: Scene, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
        """Let both calls wait for the environment's lock, in this order. Return the result of ``checked`` for both."""
        with ThreadPoolExecutor(2) as threads:
            with transaction.atomic():
                lock_row(scene.environment)
                one = threads.submit(outcome, first)
                wait_until(lambda: one.done() or count_waiting() == 1)
                other = threads.submit(outcome, second)
                wait_until(lambda: one.done() or other.done() or count_waiting() == 2)
            return checked(one.result()), checked(other.result())

    def meet(
        self, first: Callable[[], Any], inside: tuple[ModuleType, str], second: Callable[[], Any]
    ) -> tuple[Any, Any]:
        """Stop ``first`` before it calls a function, run ``second`` until it ends or waits, and finish both."""
        stopped, go_on = threading.Event(), threading.Event()
        module, name = inside
        function = getattr(module, name)

        def stop(*args: Any, **kwargs: Any) -> Any:
            if not stopped.is_set():
                stopped.set()
                assert go_on.wait(PATIENCE_S)
            return function(*args, **kwargs)

        with ThreadPoolExecutor(2) as threads, self.monkeypatch.context() as patched:
            patched.setattr(module, name, stop)
            try:
                one = threads.submit(outcome, first)
                wait_until(lambda: stopped.is_set() or one.done())
                assert stopped.is_set(), one.result()
                other = threads.submit(outcome, second)
                wait_until(lambda: other.done() or count_waiting())
            finally:
                go_on.set()
            return checked(one.result()), checked(other.result())


def checked(result: Any) -> str:
    """Return the code of a refusal, or "done". Raises all other exceptions, such as those of deadlocks."""
    if isinstance(result, Unavailable) or (isinstance(result, Exception) and not isinstance(result, DomainError)):
        raise result
    return result.reason if isinstance(result, DomainError) else "done"


@pytest.fixture
def scenes(world: World, monkeypatch: pytest.MonkeyPatch) -> Scenes:
    return Scenes(world, monkeypatch)


WAITS, STARTED = ("deploying", 0, ["active", "pending"]), ("deploying", 1, ["active", "offered"])


def test_concurrent_decisions_on_wave_are_counted_until_it_is_decided(scenes: Scenes, world: World) -> None:
    one, two = world.reviewer, world.operator
    for required, expected in ((1, ("done", "approval.decided")), (2, ("done", "done"))):
        scene = scenes.new(required=required)
        approval = scene.held
        assert scenes.in_order(scene, scene.decides(one), scene.decides(two)) == expected
        assert approval.decisions.count() == required
        assert scene.state() == STARTED
        assert stories.events(scene.deployment).count("wave_approved") == 1
    for first, second, (status, events) in (
        ("deny", "approve", ("failed", "wave_denied")),
        ("approve", "deny", ("deploying", "wave_approved")),
    ):
        scene = scenes.new()
        results = scenes.in_order(scene, scene.decides(one, first), scene.decides(two, second))
        assert results == ("done", "approval.decided")
        assert (scene.state()[0], events in stories.events(scene.deployment)) == (status, True)


def test_late_failure_withdraws_concurrent_approval_of_wave(scenes: Scenes, world: World) -> None:
    """The wave does not start until a report that contains the failure is approved."""

    def fails(scene: Scene) -> Callable[[], Any]:
        agent, api = scene.agents[1]
        return lambda: report(api, agent, "failed", detail="no memory").status_code

    scene = scenes.new_with_late_report()
    approval, decides = scene.held, scene.decides(world.reviewer)
    # The decision does not see the report, which is not committed.
    assert scenes.meet(fails(scene), (reports, "enqueue_rollout_step"), decides) == ("done", "done")
    approval.refresh_from_db()
    assert approval.status == "approved"
    assert scene.state() == ("deploying", 0, ["active", "failed", "pending", "pending"])
    approval.refresh_from_db()
    assert (approval.status, approval.used_at, scene.held.status) == ("revoked", None, "pending")
    assert scene.held.pk != approval.pk
    assert checked(outcome_here(decides)) == "approval.decided"
    scene.decides(world.reviewer)()
    assert scene.state() == ("deploying", 1, ["active", "failed", "offered", "offered"])


def outcome_here(call: Callable[[], Any]) -> Any:
    """Return the call's result or its refusal."""
    try:
        return call()
    except DomainError as error:
        return error


def test_retry_and_abort_withdraw_concurrent_approval_of_wave_but_pause_keeps_it(scenes: Scenes, world: World) -> None:
    reviewer = world.reviewer
    retried = ("deploying", 0, ["offered", "pending"])
    aborted = ("failed", 0, ["active", "pending"])
    for name, first, results, state in (
        ("retry", False, ("done", "approval.decided"), retried),
        ("retry", True, ("done", "done"), retried),
        ("abort", False, ("done", "approval.decided"), aborted),
        ("abort", True, ("done", "done"), aborted),
    ):
        scene = scenes.new(first="failed" if name == "retry" else "active")
        approval, decides = scene.held, scene.decides(reviewer)
        commands = scene.does(getattr(deployments, name))
        calls = (decides, commands) if first else (commands, decides)
        assert scenes.in_order(scene, *calls) == results, (name, first)
        assert scene.state() == state, (name, first)
        approval.refresh_from_db()
        assert (approval.status, approval.used_at, scene.deployment.wave_hold) == ("revoked", None, None)

    # A wave of a paused deployment can be approved, and starts after the deployment is resumed.
    for decides_first in (True, False):
        scene = scenes.new()
        calls = (scene.decides(reviewer), scene.does(deployments.set_paused, paused=True))
        assert scenes.in_order(scene, *(calls if decides_first else reversed(calls))) == ("done", "done")
        assert scene.state() == WAITS
        scene.does(deployments.set_paused, paused=False)()
        assert scene.state() == STARTED


def test_wave_starts_at_most_once_despite_concurrent_commands_and_decisions(scenes: Scenes, world: World) -> None:
    reviewer, next_wave = world.reviewer, rollout_steps.start_next_wave
    scene = scenes.new("manual")
    start = scene.does(next_wave)
    assert scenes.in_order(scene, start, start) == ("done", "next_wave.not_ready")
    assert scene.state() == STARTED
    assert stories.events(scene.deployment).count("next_wave") == 1

    for starts_first in (True, False):
        scene = scenes.new("manual")
        start, pause = scene.does(next_wave), scene.does(deployments.set_paused, paused=True)
        results = scenes.in_order(scene, *((start, pause) if starts_first else (pause, start)))
        assert results == ("done", "done" if starts_first else "next_wave.paused")
        assert scene.state() == (STARTED if starts_first else WAITS)

    # A denial or a revocation at the same time as the start of the wave.
    denied = ("failed", 0, ["active", "pending"])
    for denies_first in (True, False):
        scene = scenes.new()
        deny, start = scene.decides(reviewer, "deny"), scene.does(next_wave)
        results = scenes.in_order(scene, *((deny, start) if denies_first else (start, deny)))
        assert results == (
            ("done", "next_wave.needs_approval") if denies_first else ("next_wave.needs_approval", "done")
        )
        assert scene.state() == denied
    for revokes_first in (True, False):
        scene = scenes.new()
        scene.decides(reviewer)()
        approval = scene.held

        def revokes(approval: Approval = approval) -> Any:
            return approvals.revoke(approval, actor=reviewer.actor)

        if revokes_first:
            assert scenes.in_order(scene, revokes, scene.steps()) == ("done", "done")
            assert (scene.state(), scene.held.status) == (WAITS, "pending")
        else:
            assert scenes.in_order(scene, scene.does(next_wave), revokes) == ("done", "approval.used")
            assert scene.state() == STARTED

    # A rollout step runs in the middle of a decision.
    scene = scenes.new()
    assert scenes.meet(scene.decides(reviewer), (approvals, "_approve"), scene.steps()) == ("done", "done")
    assert scene.state() == STARTED


def test_decision_is_refused_after_concurrent_expiry_or_removal_of_reviewer(scenes: Scenes, world: World) -> None:
    reviewer, viewer = world.reviewer, world.viewer
    for decides_first in (True, False):
        scene = scenes.new()
        approval, decides = scene.held, scene.decides(reviewer)
        Approval.objects.filter(pk=approval.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
        results = scenes.in_order(scene, *((decides, sweep) if decides_first else (sweep, decides)))
        assert results == (("approval.expired", "done") if decides_first else ("done", "approval.decided"))
        assert scene.state() == WAITS
        approval.refresh_from_db()
        assert (approval.status, scene.held.status) == ("expired", "pending")
        scene.decides(reviewer)()
        assert scene.state() == STARTED

    def changes(scene: Scene, *people: Person) -> Callable[[], Any]:
        return scene.does(reviewers.change, reviewers=[each.user.pk for each in people])

    listed = [reviewer.user.pk, viewer.user.pk]
    for decides_first in (True, False):
        scene = scenes.new(listed=listed)
        approval, decides, change = scene.held, scene.decides(reviewer), changes(scene, viewer)
        results = scenes.in_order(scene, *((decides, change) if decides_first else (change, decides)))
        assert results == ("done", "done" if decides_first else "approval.reviewer")
        approval.refresh_from_db()
        assert approval.reviewers == [str(each) for each in (sorted(listed) if decides_first else listed[1:])]
        assert scene.state() == (STARTED if decides_first else WAITS)

    # The approval of the deployment itself: a decision on it takes only a shared lock on the environment.
    for decides_first in (True, False):
        environment = world.environment("prod", f"first {decides_first}")
        stories.fleet(world, 1, environment)
        deployment = world.deployment(world.bundle(environment), reviewer_ids=listed, is_org_admin=True)
        scene = Scene(world, environment, [], deployment)
        change = changes(scene, viewer)

        def decides_on_start(deployment: Deployment = deployment) -> Any:
            assert deployment.approval is not None
            return approvals.decide(deployment.approval, decision="approve", user=reviewer.user, actor=reviewer.actor)

        if decides_first:
            results = scenes.meet(decides_on_start, (approvals, "advance_deployment"), change)
            assert results == ("done", "reviewers.closed")
        else:
            results = scenes.meet(change, (reviewers, "record_event"), decides_on_start)
            assert results == ("done", "approval.reviewer")
        deployment.refresh_from_db()
        assert deployment.status == ("approved" if decides_first else "pending_approval")
        assert ApprovalDecision.objects.filter(approval__deployment=deployment).count() == int(decides_first)
        count = TimelineEntry.objects.filter(deployment=deployment, event="change_reviewers").count()
        assert count == int(not decides_first)
