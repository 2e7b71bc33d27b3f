"""The replay gate under concurrent changes: one change stops in its transaction while another one is attempted.

Each pair ends without a deadlock, and no deployment starts while the gate blocks it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from django.utils import timezone

from apps.artifacts.models import Artifact, Fixture
from apps.artifacts.services import fixtures, regression_runs
from apps.releases.models import Acceptance, Approval, ApprovalDecision, ConfigBundle, Deployment, Regression
from apps.releases.services import (
    acceptances,
    approvals,
    builds,
    deployments,
    regressions,
    replay_gate,
    rollout_steps,
)
from apps.releases.tasks import sweep
from apps.tenancy.services import audit
from byteor_cloud.errors import Conflict
from tests.artifacts.gate_model import Oracle, judge_with
from tests.artifacts.gate_steps import Member, accept, ask, blocked_by, decide, groups_of, release, require
from tests.artifacts.kept import MASK, cards, configured, keep
from tests.patience import PATIENCE_S, wait_until
from tests.races import count_waiting, outcome
from tests.releases.stories import send_heartbeat_running
from tests.worlds import World, report, run_jobs

pytestmark = pytest.mark.django_db(transaction=True)

# All configurations do the same with the first capture. With the second capture, only the first two do the same.
ORACLE = Oracle(["xx", "xx", "xy", "xz"], frozenset(), frozenset(), [1] * 4)


@dataclass
class Scene:
    """The initial state: two agents run the first configuration, and one capture is kept as a fixture.

    The capture ``telling`` is not kept. With it, the outputs of some configurations differ.
    """

    world: World
    agents: list[Member]
    bundles: list[ConfigBundle]
    telling: Artifact
    monkeypatch: pytest.MonkeyPatch

    def keep_telling(self) -> Fixture:
        """Keep the capture ``telling`` as a fixture."""
        return fixtures.create(
            self.telling, environment=self.world.dev, name="telling",
            checked=fixtures.Checked("quotes", None, None), actor=self.world.operator.actor,
        )  # fmt: skip

    def asked(self, config: int, **body: Any) -> Deployment:
        """Request a deployment, and run no jobs."""
        response = ask(self.world, self.bundles[config], **body)
        assert response.status_code == 201, response.json()
        return Deployment.objects.get(pk=response.json()["id"])

    def meet(
        self, first: Callable[[], Any], inside: tuple[ModuleType, str], second: Callable[[], Any]
    ) -> tuple[Any, Any]:
        """Stop ``first`` before it calls ``inside``, run ``second`` until it ends or waits for a lock, and finish both.

        Returns the results or exceptions of both.
        """
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
            return one.result(), other.result()


@pytest.fixture
def scene(world: World, monkeypatch: pytest.MonkeyPatch) -> Scene:
    agents = [world.agent(name=f"member-{site}", site="here", place=site) for site in "ab"]
    bundles = [configured(world, "config 0", check={"schema": {"title": "0"}}, redact=MASK)]
    bundles += [
        configured(world, f"config {number}", bundles[0].version, check={"schema": {"title": str(number)}}, redact=MASK)
        for number in range(1, 4)
    ]
    harmless, telling = keep(world, bundles[0], cards(0), cards(1))
    telling.delete()
    captures = [each.artifact.content_hash for each in (harmless, telling)]
    monkeypatch.setattr(regression_runs, "judge_batch", judge_with(lambda: ORACLE, captures))
    release(world, bundles[0], agents)
    require(world)
    return Scene(world, agents, bundles, telling.artifact, monkeypatch)


def status(response: Any) -> int:
    """Return the status of a response. If it is an exception instead, raise it."""
    if isinstance(response, BaseException):
        raise response
    return int(response.status_code)


def state(deployment: Deployment) -> tuple[str, str]:
    deployment.refresh_from_db()
    return deployment.status, deployment.reason


def test_fixture_added_during_approval_is_tested_and_deleted_fixture_no_longer_blocks_build(scene: Scene) -> None:
    world = scene.world
    made = scene.asked(2)
    run_jobs()

    # The approval has already evaluated the gate, so the fixture is tested before the build.
    decided, added = scene.meet(lambda: decide(world, made), (approvals, "_approve"), scene.keep_telling)
    assert status(decided) == 201
    run_jobs()
    assert (state(made), blocked_by(world, made)) == (("approved", ""), ["replay_gate.differs"])

    # The build waits until the fixture is deleted. Then the fixture no longer blocks the build.
    deleted, built = scene.meet(
        lambda: fixtures.delete(added, actor=world.admin.actor), (fixtures, "count_change"),
        lambda: builds.build(str(made.pk)),
    )  # fmt: skip
    assert (deleted, built) == (None, None)
    run_jobs()
    assert state(made) == ("deploying", "")
    deployments.abort(made, actor=world.admin.actor)

    # The build waits until the fixture is added, and does not start.
    again = scene.asked(2)
    run_jobs()
    assert status(decide(world, again)) == 201
    added, built = scene.meet(scene.keep_telling, (fixtures, "count_change"), lambda: builds.build(str(again.pk)))
    assert built is None
    assert (state(again), blocked_by(world, again)) == (("approved", ""), ["replay_gate.running"])
    run_jobs()
    assert (state(again), blocked_by(world, again)) == (("approved", ""), ["replay_gate.differs"])
    deployments.abort(again, actor=world.admin.actor)

    # A build that has evaluated the gate starts before the fixture exists.
    fixtures.delete(added, actor=world.admin.actor)
    last = scene.asked(2)
    run_jobs()
    assert status(decide(world, last)) == 201
    built, added = scene.meet(lambda: builds.build(str(last.pk)), (builds, "advance_deployment"), scene.keep_telling)
    assert (built, state(last)) == (None, ("deploying", ""))
    assert isinstance(added, Fixture)


def test_acceptance_succeeds_during_abort_and_only_one_of_two_concurrent_approvals_counts(scene: Scene) -> None:
    world = scene.world
    scene.keep_telling()
    for number, accepts_first in enumerate((True, False)):
        made = scene.asked(2)
        run_jobs()
        groups = groups_of(world, made)

        def accepts(made: Deployment = made, groups: list[str] = groups) -> Any:
            return acceptances.accept(
                Regression.objects.get(deployments=made), groups=groups, reason="why", actor=world.reviewer.actor
            )

        def aborts(made: Deployment = made) -> Any:
            return deployments.abort(Deployment.objects.get(pk=made.pk), actor=world.admin.actor)

        if accepts_first:
            accepted, aborted = scene.meet(accepts, (audit, "record"), aborts)
        else:
            aborted, accepted = scene.meet(aborts, (deployments, "advance_deployment"), accepts)
        assert (type(accepted), type(aborted)) == (Acceptance, Deployment)
        assert Acceptance.objects.count() == number + 1
        run_jobs()
        assert (state(made), blocked_by(world, made)) == (("failed", "aborted"), [])
    Acceptance.objects.all().delete()

    made = scene.asked(2)
    run_jobs()
    groups = groups_of(world, made)
    first, second = scene.meet(
        lambda: decide(world, made, accept_groups=groups, comment="wanted"), (approvals, "_approve"),
        lambda: decide(world, made, world.admin, accept_groups=groups, comment="wanted"),
    )  # fmt: skip
    assert (status(first), status(second)) == (201, 409)
    assert (Acceptance.objects.count(), ApprovalDecision.objects.count()) == (1, 1)
    run_jobs()
    assert state(made) == ("deploying", "")


def test_regression_end_is_serialized_with_decisions_expiry_cancellation_and_new_regression(scene: Scene) -> None:
    world = scene.world
    scene.keep_telling()

    def finishes(made: Deployment) -> Callable[[], None]:
        return lambda: regression_runs.run(str(made.regression_id))

    def outcomes(made: Deployment) -> tuple[str, tuple[str, str]]:
        return Regression.objects.get(deployments=made).status, state(made)

    # Nobody can approve before the regression's end is stored, and the approval does not expire meanwhile.
    made = scene.asked(2)
    Regression.objects.update(created_at=timezone.now() - timedelta(minutes=10))
    Approval.objects.filter(deployment=made).update(expires_at=timezone.now() - timedelta(minutes=5))
    ended, decided = scene.meet(finishes(made), (replay_gate, "end"), lambda: decide(world, made))
    assert (ended, status(decided)) == (None, 409)
    assert outcomes(made) == ("differs", ("pending_approval", ""))
    assert Approval.objects.get(deployment=made).expires_at > timezone.now()
    deployments.abort(made, actor=world.admin.actor)

    made = scene.asked(2)
    Regression.objects.update(created_at=timezone.now() - timedelta(minutes=10))
    Approval.objects.filter(deployment=made).update(expires_at=timezone.now() - timedelta(minutes=5))
    assert scene.meet(finishes(made), (replay_gate, "_move_deadlines"), sweep) == (None, None)
    assert outcomes(made) == ("differs", ("pending_approval", ""))
    deployments.abort(made, actor=world.admin.actor)

    # A denial, or a cancellation, while the regression ends.
    made = scene.asked(2)
    denies = lambda: decide(world, made, decision="deny", comment="no")  # noqa: E731
    decided, ended = scene.meet(denies, (approvals, "_close"), finishes(made))
    assert (status(decided), ended, outcomes(made)) == (201, None, ("differs", ("denied", "")))

    for cancels_first in (True, False):
        made = scene.asked(2)
        cancels = lambda: regressions.cancel(Regression.objects.get(deployments=made), actor=world.admin.actor)  # noqa: E731, B023
        if cancels_first:
            canceled, ended = scene.meet(cancels, (replay_gate, "end"), finishes(made))
            assert (type(canceled), ended, outcomes(made)[0]) == (Regression, None, "cancelled")
            assert blocked_by(world, made) == ["replay_gate.failed"]
        else:
            ended, canceled = scene.meet(finishes(made), (replay_gate, "end"), cancels)
            assert (type(canceled), ended, outcomes(made)[0]) == (Conflict, None, "differs")
            assert blocked_by(world, made) == ["replay_gate.differs"]
        deployments.abort(made, actor=world.admin.actor)

    # A new regression replaces the one that is ending. The deadline moves only once.
    made = scene.asked(2)
    Regression.objects.update(created_at=timezone.now() - timedelta(hours=1))
    before = Approval.objects.get(deployment=made).expires_at
    ended, again = scene.meet(
        finishes(made), (replay_gate, "end"),
        lambda: regressions.request(environment=world.dev, config_bundle=scene.bundles[2], actor=world.admin.actor),
    )  # fmt: skip
    assert (ended, type(again)) == (None, Regression)
    made.refresh_from_db()
    assert made.regression_id == again.pk
    moved = Approval.objects.get(deployment=made).expires_at - before
    assert timedelta(hours=1) <= moved < timedelta(hours=2)
    run_jobs()
    assert (state(made), blocked_by(world, made)) == (("pending_approval", ""), ["replay_gate.differs"])


def test_acceptance_ends_when_configuration_becomes_current_while_another_build_waits(scene: Scene) -> None:
    world = scene.world
    scene.keep_telling()
    made = [scene.asked(2, target={"selector": {"place": place}}) for place in "ab"]
    run_jobs()
    groups = groups_of(world, made[0])
    assert status(accept(world, made[0], groups)) == 201
    for each in made:
        assert status(decide(world, each)) == 201
    run_jobs()
    assert [state(each)[0] for each in made] == ["deploying", "approved"]
    assert blocked_by(world, made[1]) == ["in_flight_limit", "pipeline_busy"]
    agent, api = scene.agents[0]
    assert report(api, agent, "active").status_code == 200
    send_heartbeat_running(agent, api)

    stepped, built = scene.meet(
        lambda: rollout_steps.run_step(str(made[0].pk)), (acceptances, "end_of"), lambda: builds.build(str(made[1].pk))
    )
    assert (stepped, built) == (None, None)
    run_jobs()
    sweep()
    run_jobs()

    # The other agent still runs the first configuration. The difference from it must be accepted again.
    assert [state(each)[0] for each in made] == ["active", "approved"]
    assert blocked_by(world, made[1]) == ["replay_gate.differs"]
    assert status(accept(world, made[1], groups)) == 201
    run_jobs()
    assert state(made[1]) == ("deploying", "")
