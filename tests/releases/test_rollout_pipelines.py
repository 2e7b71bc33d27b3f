"""Rollouts of two pipelines at the same time, and take-overs of agents between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from apps.fleet.models import Agent
from apps.releases.models import KnownBad
from tests.releases import stories
from tests.releases.stories import (
    Run,
    all_desired,
    allow_in_flight,
    relabel,
    report_from_all,
    run_sweep,
    state,
    stored_assignments,
    waves,
)
from tests.worlds import Api, World, plan

pytestmark = pytest.mark.django_db


def ids(agents: Sequence[tuple[Agent, Api]]) -> dict[str, Any]:
    return {"agents": [str(agent.pk) for agent, _ in agents]}


def trades(world: World, count: int) -> list[Any]:
    version = world.version(content=plan("trades"))
    return [
        world.bundle(name=f"trades-{number}", version=version, env={"NUMBER": str(number)}) for number in range(count)
    ]


@pytest.fixture
def two_at_once(world: World) -> World:
    allow_in_flight(world, 2)
    return world


def test_two_pipelines_can_roll_out_concurrently(two_at_once: World, run_jobs: Run) -> None:
    world = two_at_once
    agents = stories.fleet(world, 8)
    left, right = agents[:4], agents[4:]
    (trade,) = trades(world, 1)
    quotes = world.deployment(world.bundle(), target=ids(left), strategy=waves(50, 100))
    other = world.deployment(trade, target=ids(right), strategy=waves(50, 100))
    run_jobs()
    assert all_desired(agents) == [
        *[(quotes.pk, "activate")] * 2, *[(None, None)] * 2, *[(other.pk, "activate")] * 2, *[(None, None)] * 2,
    ]  # fmt: skip

    report_from_all(right[:1], "failed", run_jobs)
    report_from_all(left[:2], "active", run_jobs)
    report_from_all(left[2:], "active", run_jobs)

    assert (state(quotes), quotes.is_current) == (("active", ""), True)
    assert state(other) == ("failed", "threshold")
    assert KnownBad.objects.get().config_hash == trade.config_hash
    assert all_desired(left) == [(quotes.pk, "activate")] * 4


def test_take_over_waits_for_other_rollout_and_rollback_of_take_over_returns_agents(
    two_at_once: World, run_jobs: Run
) -> None:
    world = two_at_once
    agents = stories.fleet(world, 4)
    left, right = agents[:2], agents[2:]
    trade = trades(world, 2)
    quotes = stories.offered(world, world.bundle(), target=ids(left))
    other = stories.active(world, trade[0], right, target=ids(right))

    taking = world.deployment(trade[1], take_over=True, strategy=waves(75, 100))
    run_jobs()
    assert state(taking) == ("approved", "")  # a deployment to some of the same agents is under way
    report_from_all(left, "active", run_jobs)
    run_sweep(run_jobs)
    assert state(taking) == ("deploying", "")
    assert all_desired(agents) == [(taking.pk, "activate")] * 3 + [(other.pk, "activate")]
    report_from_all(left, "active", run_jobs)
    report_from_all(right[:1], "failed", run_jobs)

    assert state(taking)[0] == "rolling_back"
    assert taking.restores == other
    assert [a["bundle_deployment_id"] for a in stored_assignments(agents)] == [quotes.pk, quotes.pk, other.pk, other.pk]
    report_from_all(agents[:3], "rolled_back", run_jobs)
    for deployment in (quotes, other):
        deployment.refresh_from_db()
        assert (deployment.status, deployment.is_current) == ("active", True)
    assert state(taking)[0] == "rolled_back"
    # The first two agents belong to the pipeline quotes again. Its next deployment needs no ``take_over`` for them.
    again = world.bundle(name="again", version=quotes.config_bundle.version, env={"NUMBER": "9"})
    assert stories.offered(world, again, target=ids(left)).agents.count() == 2


def test_agents_taken_over_before_start_are_not_enlisted(two_at_once: World, run_jobs: Run) -> None:
    world = two_at_once
    agents = stories.fleet(world, 3)
    one, two = stories.bundles(world, 2)
    stories.active(world, one, agents)
    (trade,) = trades(world, 1)
    taking = world.deployment(trade, target=ids(agents[:1]), take_over=True)
    waiting = world.deployment(two)

    run_jobs()
    assert (state(taking)[0], state(waiting)[0]) == ("deploying", "approved")
    report_from_all(agents[:1], "active", run_jobs)
    run_sweep(run_jobs)

    assert state(waiting)[0] == "deploying"
    assert all_desired(agents) == [(taking.pk, "activate"), *[(waiting.pk, "activate")] * 2]
    assert (waiting.target_count, waiting.agents.count()) == (3, 2)


def test_later_wave_skips_agent_of_another_pipeline(two_at_once: World, run_jobs: Run) -> None:
    """The agent lost its label while it waited for its wave, and a deployment of another pipeline took it over."""
    world = two_at_once
    agents = [world.agent(name=f"edge-{number}", tier="edge") for number in range(2)]
    target = {"selector": {"tier": "edge"}}
    quotes = stories.offered(world, world.bundle(), target=target, strategy=waves(50, 100))
    (trade,) = trades(world, 1)
    relabel(world, agents[1][0], tier="core")
    taking = stories.active(world, trade, agents[1:], target={"selector": {"tier": "core"}}, take_over=True)

    report_from_all(agents[:1], "active", run_jobs)
    run_sweep(run_jobs)

    assert all_desired(agents) == [(quotes.pk, "activate"), (taking.pk, "activate")]
    assert (state(quotes), stories.progress(quotes)) == (("active", ""), ["active", "pending"])


def test_later_wave_skips_late_joiner_of_another_pipeline(two_at_once: World, run_jobs: Run) -> None:
    world = two_at_once
    core = world.agent(name="core", tier="core")
    (trade,) = trades(world, 1)
    other = stories.active(world, trade, [core], target={"selector": {"tier": "core"}})
    agents = [world.agent(name=f"edge-{number}", tier="edge") for number in range(2)]
    quotes = stories.offered(world, world.bundle(), target={"selector": {"tier": "edge"}}, strategy=waves(50, 100))
    relabel(world, agents[1][0], tier="core")
    run_jobs()
    assert all_desired(agents[1:]) == [(other.pk, "activate")]

    report_from_all(agents[:1], "active", run_jobs)

    assert all_desired(agents) == [(quotes.pk, "activate"), (other.pk, "activate")]
    assert state(quotes) == ("active", "")
