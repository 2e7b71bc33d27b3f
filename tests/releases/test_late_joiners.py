"""Agents that enroll, or start to match the target, after a deployment has started."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apps.fleet.services import agents as fleet
from apps.releases.models import KnownBad
from apps.releases.services import bundles as bundle_services
from tests.releases import stories
from tests.releases.stories import Run, all_desired, report_from_all, run_sweep, state, stored_assignments, waves
from tests.worlds import World, plan, report

pytestmark = pytest.mark.django_db


def test_late_joiners_wait_for_end_of_rollout_and_are_not_counted(world: World, run_jobs: Run) -> None:
    agents, (_, two), (first,) = stories.running(world, 2)
    second = stories.offered(world, two, strategy=waves(50, 100))
    early, early_api = world.agent(name="early")
    run_jobs()
    # The late joiner is offered the current deployment until the new one is active.
    assert stories.desired(early) == (first.pk, "activate")
    report_from_all(agents[:1], "active", run_jobs)
    assert second.agents.filter(agent=early).count() == 0

    report_from_all(agents[1:], "active", run_jobs)
    assert state(second) == ("active", "")
    later, later_api = world.agent(name="later")
    run_jobs()

    joined = [(early, early_api), (later, later_api)]
    assert all_desired(joined) == [(second.pk, "activate")] * 2
    rows = second.agents.filter(counted=False).order_by("agent_id")
    assert list(rows.values_list("agent_id", "wave", "progress", "before_id")) == [
        (early.pk, 1, "offered", first.pk), (later.pk, 1, "offered", None),
    ]  # fmt: skip
    report_from_all(joined, "failed", run_jobs)
    assert (state(second), KnownBad.objects.count()) == (("active", ""), 0)
    # A manual rollback includes the late joiners. One of them ran nothing before and gets the restored bundle.
    world.operator.api.post(world.path(rest=f"/deployments/{second.pk}/rollback"), {"reason": "slow"})
    assert {a["bundle_hash"] for a in stored_assignments([*agents, *joined])} == {first.bundle_hash}


def test_late_joiners_are_not_offered_deployment_that_was_rolled_back(world: World, run_jobs: Run) -> None:
    agents, (_, two), (first,) = stories.running(world, 2)
    second = stories.offered(world, two, strategy=waves(50, 100))
    late, _ = world.agent(name="late")
    run_jobs()
    report_from_all(agents[:1], "failed", run_jobs)
    later, _ = world.agent(name="later")
    run_jobs()

    report_from_all(agents[:1], "rolled_back", run_jobs)
    run_sweep(run_jobs)

    assert state(second)[0] == "rolled_back"
    assert [stories.desired(agent) for agent in (late, later)] == [(first.pk, "activate")] * 2
    assert second.agents.filter(agent__in=[late, later]).count() == 0


def test_late_joiner_is_offered_current_deployment(world: World, run_jobs: Callable[[], int]) -> None:
    _, _, (deployment,) = stories.running(world, 1)

    late, api = world.agent(name="late")
    run_jobs()

    assert stories.desired(late) == (deployment.pk, "activate")
    row = deployment.agents.get(agent=late)
    assert (row.counted, row.progress, row.before) == (False, "offered", None)
    report(api, late, "failed")
    run_jobs()
    assert state(deployment) == ("active", "")
    assert KnownBad.objects.count() == 0


def test_agent_joining_during_rollout_is_offered_deployment_when_it_becomes_active(
    world: World, run_jobs: Callable[[], int]
) -> None:
    (agent, api), *_ = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle())
    late, _ = world.agent(name="late")
    run_jobs()
    assert stories.desired(late) == (None, None)

    report(api, agent, "active")
    run_jobs()

    assert stories.desired(late) == (deployment.pk, "activate")
    assert deployment.agents.get(agent=late).counted is False


def test_agent_with_new_label_becomes_late_joiner(world: World, run_jobs: Callable[[], int]) -> None:
    first, first_api = world.agent(name="first", tier="edge")
    second, _ = world.agent(name="second")
    target = {"selector": {"tier": "edge"}}
    deployment = stories.active(world, world.bundle(), [(first, first_api)], target=target)
    assert stories.desired(second) == (None, None)

    changed = world.operator.api.patch(world.path(rest=f"/agents/{second.pk}"), {"labels": {"tier": "edge"}})
    run_jobs()

    assert changed.status_code == 200
    assert stories.desired(second) == (deployment.pk, "activate")


def test_relabeled_agent_moves_to_newer_deployment_only_within_its_pipeline(
    world: World, run_jobs: Callable[[], int]
) -> None:
    old, old_api = world.agent(name="old", tier="edge")
    other, other_api = world.agent(name="other", tier="core")
    new, new_api = world.agent(name="new", tier="lab")
    one, two = stories.bundles(world, 2)
    stories.active(world, one, [(old, old_api)], target={"selector": {"tier": "edge"}})
    trades = world.bundle(name="trades", version=world.version(content=plan("trades")))
    kept = stories.active(world, trades, [(other, other_api)], target={"selector": {"tier": "core"}})
    current = stories.active(world, two, [(new, new_api)], target={"selector": {"tier": "lab"}})

    for agent in (old, other):
        fleet.update_agent(agent, {"labels": {"tier": "lab"}}, may_relabel=True, actor=world.operator.actor)
    run_jobs()

    assert stories.desired(old) == (current.pk, "activate")
    assert stories.desired(other) == (kept.pk, "activate")


def test_late_joiners_are_not_offered_known_bad_configuration(world: World, run_jobs: Callable[[], int]) -> None:
    deployment = stories.active(world, world.bundle(), stories.fleet(world, 1))
    bundle_services.mark_known_bad(world.dev, deployment.config_hash, reason="elsewhere", actor=world.admin.actor)

    late, _ = world.agent(name="late")
    run_jobs()

    assert stories.desired(late) == (None, None)
