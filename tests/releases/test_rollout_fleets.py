"""Rollouts and rollbacks with agents that are offline, are decommissioned or get other labels."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apps.fleet.services import agents as fleet
from apps.releases.models import KnownBad
from tests.releases import stories
from tests.releases.stories import (
    Run,
    all_desired,
    relabel,
    report_from_all,
    send_heartbeat,
    state,
    waves,
)
from tests.worlds import World, report

pytestmark = pytest.mark.django_db


def test_agents_offline_at_start_do_not_delay_waves(world: World, run_jobs: Run) -> None:
    agents, (_, two), (_,) = stories.running(world, 4)
    (away, away_api) = agents[1]
    stories.set_last_seen(away, for_s=301)
    second = stories.offered(world, two, strategy=waves(50, 100))
    assert stories.progress(second) == ["offered", "offered", "pending", "pending"]

    report_from_all(agents[:1], "active", run_jobs)
    assert stories.progress(second) == ["active", "offered", "offered", "offered"]
    # The offline agent sends a report, but still does not count toward the threshold.
    assert report(away_api, away, "failed").status_code == 200
    report_from_all(agents[2:], "active", run_jobs)

    assert state(second) == ("active", "")
    assert stories.progress(second) == ["active", "failed", "active", "active"]
    assert KnownBad.objects.count() == 0


def test_rollback_does_not_wait_for_agents_offline_at_start_of_rollout(world: World, run_jobs: Run) -> None:
    agents, (_, two), (first,) = stories.running(world, 4)
    (away, away_api) = agents[1]
    stories.set_last_seen(away, for_s=301)
    second = stories.offered(world, two, strategy=waves(50, 100))
    report_from_all(agents[:1], "failed", run_jobs)
    assert all_desired(agents[:2]) == [(second.pk, "rollback")] * 2

    report_from_all(agents[:1], "rolled_back", run_jobs)

    assert state(second)[0] == "rolled_back"
    assert send_heartbeat(away, away_api)["bundle_hash"] == first.bundle_hash
    assert report(away_api, away, "rolled_back").status_code == 200
    run_jobs()
    assert stories.progress(second) == ["rolled_back", "rolled_back", "pending", "pending"]


def test_offline_agent_and_empty_wave_do_not_delay_rollout(world: World, run_jobs: Run) -> None:
    agents, (_, two), (_,) = stories.running(world, 3)
    stories.set_last_seen(agents[1][0], for_s=301)
    second = stories.offered(world, two, strategy=waves(34, 67, 100))
    # Percentages are rounded up: the first wave has two agents, the second has one, and the third has none.
    assert list(second.agents.order_by("agent_id").values_list("wave", flat=True)) == [0, 0, 1]
    third_agent = agents[2:]

    report_from_all(agents[:1], "active", run_jobs)
    assert stories.progress(second) == ["active", "offered", "offered"]
    report_from_all(third_agent, "active", run_jobs)

    assert state(second) == ("active", "")


def test_rollout_ignores_decommissioned_agents(world: World, run_jobs: Run) -> None:
    agents, (_, two), (first,) = stories.running(world, 6)
    second = stories.offered(world, two, strategy=waves(34, 100))
    assert stories.progress(second) == ["offered"] * 3 + ["pending"] * 3
    report_from_all(agents[:2], "active", run_jobs)

    fleet.decommission(agents[5][0], actor=world.admin.actor)
    fleet.decommission(agents[2][0], actor=world.admin.actor)
    run_jobs()

    # The wave was only waiting for the third agent.
    assert stories.progress(second)[3:5] == ["offered", "offered"]
    report_from_all(agents[3:4], "failed", run_jobs)
    assert state(second)[0] == "rolling_back"
    fleet.decommission(agents[3][0], actor=world.admin.actor)
    report_from_all([agents[0], agents[1], agents[4]], "rolled_back", run_jobs)
    assert state(second)[0] == "rolled_back"
    first.refresh_from_db()
    assert first.is_current
    assert agents[5][1].get(f"/api/v1/agents/{agents[5][0].pk}/deployment").status_code == 401


def test_next_wave_starts_when_all_agents_of_wave_are_decommissioned(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100))

    fleet.decommission(agents[0][0], actor=world.admin.actor)
    run_jobs()

    assert all_desired(agents[1:]) == [(deployment.pk, "activate")]
    report_from_all(agents[1:], "active", run_jobs)
    assert state(deployment) == ("active", "")


def test_target_is_resolved_at_start_of_rollout_and_not_again(world: World, run_jobs: Run) -> None:
    """An agent that loses the label stays in the rollout, and an agent that gets the label is a late joiner."""
    agents = [world.agent(name=f"edge-{number}", tier="edge") for number in range(4)]
    outside = world.agent(name="outside", tier="core")
    target = {"selector": {"tier": "edge"}}
    deployment = stories.offered(world, world.bundle(), target=target, strategy=waves(50, 100))

    relabel(world, agents[3][0], tier="core")
    relabel(world, outside[0], tier="edge")
    run_jobs()
    report_from_all(agents[:2], "active", run_jobs)
    assert all_desired([*agents[2:], outside]) == [(deployment.pk, "activate")] * 2 + [(None, None)]
    report_from_all(agents[2:], "active", run_jobs)

    assert state(deployment) == ("active", "")
    assert all_desired([outside]) == [(deployment.pk, "activate")]
    assert deployment.agents.get(agent=outside[0]).counted is False


def test_rollout_uses_agents_that_match_target_at_start_not_at_creation(world: World, run_jobs: Run) -> None:
    staying, leaving = (world.agent(name=name, tier="edge") for name in ("staying", "leaving"))
    deployment = world.deployment(world.bundle(), target={"selector": {"tier": "edge"}}, strategy=waves(50, 100))
    assert deployment.target_count == 2
    relabel(world, leaving[0], tier="core")
    coming = world.agent(name="coming", tier="edge")

    run_jobs()

    assert all_desired([staying, leaving, coming]) == [(deployment.pk, "activate"), (None, None), (None, None)]
    assert list(deployment.agents.order_by("agent_id").values_list("agent_id", "wave", "counted")) == [
        (staying[0].pk, 0, True), (coming[0].pk, 1, True),
    ]  # fmt: skip


def test_rollout_finishes_when_last_unfinished_agent_is_decommissioned(
    world: World, run_jobs: Callable[[], int]
) -> None:
    (one, api), (two, _) = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle())
    report(api, one, "active")

    fleet.decommission(two, actor=world.admin.actor)
    run_jobs()

    assert state(deployment) == ("active", "")


def test_rollout_fails_with_empty_target_when_only_offline_agents_are_left(
    world: World, run_jobs: Callable[[], int]
) -> None:
    (agent, _), (away, _) = stories.fleet(world, 2)
    stories.set_last_seen(away, for_s=3600)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100))

    fleet.decommission(agent, actor=world.admin.actor)
    run_jobs()

    assert state(deployment) == ("failed", "empty_target")
    assert not KnownBad.objects.exists()
    assert stories.desired(away) == (None, None)
