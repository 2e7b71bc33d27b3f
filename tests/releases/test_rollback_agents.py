"""Agents during rollbacks: agents that fail, do not report, are taken over by other deployments, or join late."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apps.releases.services import bundles as bundle_services
from tests.releases import stories
from tests.releases.stories import report_from_all, roll_back, run_sweep
from tests.worlds import World, plan, report

pytestmark = pytest.mark.django_db


def test_rollback_fails_when_counted_agent_fails_to_roll_back(world: World, run_jobs: Callable[[], int]) -> None:
    agents, _, (first, second) = stories.running(world, 2, 2)
    roll_back(world, second)

    report(agents[0][1], agents[0][0], "rolled_back")
    report(agents[1][1], agents[1][0], "failed", detail="disk")
    run_jobs()

    second.refresh_from_db()
    first.refresh_from_db()
    assert (second.status, second.reason, second.is_current, first.is_current) == (
        "failed", "rollback_failed", False, False,
    )  # fmt: skip
    assert str(agents[1][0].pk) in second.detail
    # A second rollback succeeds.
    assert roll_back(world, second).json()["status"] == "rolling_back"
    report_from_all(agents, "rolled_back", run_jobs)
    first.refresh_from_db()
    assert first.is_current


def test_each_rollback_creates_new_offer(world: World, run_jobs: Callable[[], int]) -> None:
    agents, _, (_, second) = stories.running(world, 1, 2)
    (agent, api) = agents[0]
    path = f"/api/v1/agents/{agent.pk}/deployment"
    roll_back(world, second)
    first_offer = api.get(path).json()["desired"]
    report(api, agent, "failed")
    run_jobs()

    roll_back(world, second)

    again = api.get(path).json()["desired"]
    assert again["offered_at"] > first_offer["offered_at"]
    same = ("deployment_id", "action", "bundle_hash")
    assert {name: again[name] for name in same} == {name: first_offer[name] for name in same}
    assert report(api, agent, "rolled_back").status_code == 200


def test_rollback_fails_when_counted_agent_does_not_report_in_time(world: World, run_jobs: Callable[[], int]) -> None:
    agents, _, (_, second) = stories.running(world, 1, 2)
    roll_back(world, second)
    stories.set_offered_ago(second, 600, agents[0][0])

    run_sweep(run_jobs)

    second.refresh_from_db()
    assert (second.status, second.reason) == ("failed", "rollback_failed")
    assert stories.progress(second) == ["failed"]


def test_report_with_status_active_is_refused_for_rollback_offer(world: World) -> None:
    agents, _, (_, second) = stories.running(world, 1, 2)
    (agent, api) = agents[0]
    roll_back(world, second)

    assert report(api, agent, "active").status_code == 409
    assert stories.progress(second) == ["offered"]


def test_agents_taken_over_by_another_deployment_are_not_rolled_back(world: World, run_jobs: Callable[[], int]) -> None:
    agents, _, (first, second) = stories.running(world, 2, 2)
    trades = world.bundle(name="trades", version=world.version(content=plan("trades")))
    third = stories.active(world, trades, agents[:1], target={"agents": [str(agents[0][0].pk)]}, take_over=True)

    roll_back(world, second)

    assert [stories.desired(agent) for agent, _ in agents] == [(third.pk, "activate"), (second.pk, "rollback")]
    report_from_all(agents[1:], "rolled_back", run_jobs)
    first.refresh_from_db()
    third.refresh_from_db()
    assert (first.is_current, third.is_current) == (True, True)


def test_agents_restored_by_rollback_can_be_rolled_back_again(world: World, run_jobs: Callable[[], int]) -> None:
    agents = stories.fleet(world, 1)
    one, two, three = stories.bundles(world, 3)
    first = stories.active(world, one, agents)
    second = stories.active(world, two, agents)
    joined, api = world.agent(name="joined")
    run_jobs()
    report(api, joined, "active")
    roll_back(world, second)
    report_from_all([*agents, (joined, api)], "rolled_back", run_jobs)
    third = stories.offered(world, three)

    # The late joiner was not part of the first deployment's rollout. It is nevertheless assigned to that deployment
    # when the third one is aborted.
    world.operator.api.post(world.path(rest=f"/deployments/{third.pk}/abort"))
    assert stories.desired(joined) == (first.pk, "activate")

    # A later rollback to the first deployment also includes the late joiner.
    clear = bundle_services.clear_known_bad
    clear(second.config_bundle, reason="mended", actor=world.admin.actor)
    again = stories.active(world, two, [*agents, (joined, api)])
    roll_back(world, again)
    report_from_all([*agents, (joined, api)], "rolled_back", run_jobs)
    assert first.agents.filter(agent=joined, counted=False).count() == 1


def test_agent_joining_during_rollback_is_offered_restored_deployment_when_rollback_ends(
    world: World, run_jobs: Callable[[], int]
) -> None:
    agents, _, (first, second) = stories.running(world, 1, 2)
    roll_back(world, second)
    late, _ = world.agent(name="late")
    run_jobs()
    assert stories.desired(late) == (None, None)

    report_from_all(agents, "rolled_back", run_jobs)

    assert stories.desired(late) == (first.pk, "activate")
