"""Drained agents get no new offers except rollbacks, nothing waits for them, and they catch up after undraining."""

from __future__ import annotations

from typing import Any

import pytest

from apps.fleet.models import Agent
from apps.fleet.services import agents
from tests.releases import stories
from tests.releases.stories import Run, all_desired, report_from_all, state, waves
from tests.worlds import World, report

pytestmark = pytest.mark.django_db


def drain(world: World, agent: Agent, *, drained: bool = True) -> None:
    agents.set_drained(agent, drained=drained, reason="disk", actor=world.operator.actor)


def explained(world: World, agent: Agent) -> tuple[list[str], list[str]]:
    """Return the codes in the agent's explanation: those of the reasons and those of the next events."""
    body = world.viewer.api.get(world.path(rest=f"/agents/{agent.pk}/explain")).json()
    return [each["code"] for each in body["because"]], [each["code"] for each in body["next"]]


def test_new_deployment_skips_drained_agent(world: World, run_jobs: Run) -> None:
    agents, (_, two), (first,) = stories.running(world, 2)
    drain(world, agents[0][0])

    second = stories.active(world, two, agents[1:])

    assert (second.target_count, second.agents.count()) == (1, 1)
    assert all_desired(agents) == [(first.pk, "activate"), (second.pk, "activate")]
    because, coming = explained(world, agents[0][0])
    assert because[0] == "runs_desired" or "drained" in because
    assert "undrain" in coming


def test_undrained_agent_is_offered_current_deployment(world: World, run_jobs: Run) -> None:
    agents, (_, two), (_,) = stories.running(world, 2)
    drain(world, agents[0][0])
    second = stories.active(world, two, agents[1:])

    drain(world, agents[0][0], drained=False)
    run_jobs()

    assert all_desired(agents) == [(second.pk, "activate")] * 2
    assert second.agents.get(agent=agents[0][0]).counted is False


def test_drained_agent_is_skipped_by_its_wave_and_offered_deployment_when_undrained(
    world: World, run_jobs: Run
) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100))
    late = agents[1][0]
    drain(world, late)

    report_from_all(agents[:1], "active", run_jobs)

    assert state(deployment) == ("active", "")
    assert deployment.agents.get(agent=late).progress == "pending"
    assert stories.desired(late) is None or stories.desired(late) == (None, None)
    drain(world, late, drained=False)
    run_jobs()
    assert all_desired(agents) == [(deployment.pk, "activate")] * 2
    assert deployment.agents.get(agent=late).progress == "offered"


def test_agent_is_offered_deployment_if_undrained_before_its_wave(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle(), strategy=waves(50, 100))
    drain(world, agents[1][0])
    drain(world, agents[1][0], drained=False)

    report_from_all(agents[:1], "active", run_jobs)

    assert all_desired(agents) == [(deployment.pk, "activate")] * 2
    assert state(deployment) == ("deploying", "")


def test_rollout_does_not_wait_for_drained_agent(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle())
    report_from_all(agents[:1], "active", run_jobs)
    assert state(deployment) == ("deploying", "")

    drain(world, agents[1][0])
    run_jobs()

    assert state(deployment) == ("active", "")
    assert report(agents[1][1], agents[1][0], "active").status_code == 200
    assert deployment.agents.get(agent=agents[1][0]).progress == "active"


def test_failure_of_agent_before_its_drain_counts_toward_threshold(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 2)
    deployment = stories.offered(world, world.bundle())
    report(agents[0][1], agents[0][0], "failed")
    drain(world, agents[0][0])

    run_jobs()

    assert state(deployment) == ("failed", "threshold")


def test_rollback_includes_drained_agent_but_does_not_wait_for_it(world: World, run_jobs: Run) -> None:
    agents, _, (first, second) = stories.running(world, 2, 2)
    drain(world, agents[0][0])

    world.operator.api.post(world.path(rest=f"/deployments/{second.pk}/rollback"), {"reason": "slow"})

    assert all_desired(agents) == [(second.pk, "rollback")] * 2
    report_from_all(agents[1:], "rolled_back", run_jobs)
    assert state(second)[0] == "rolled_back"
    first.refresh_from_db()
    assert first.is_current


def test_retry_is_refused_if_all_failed_agents_are_drained(world: World, run_jobs: Run) -> None:
    agents = stories.fleet(world, 1)
    deployment = stories.offered(world, world.bundle(), strategy=waves(100, threshold=100))
    report(agents[0][1], agents[0][0], "failed")
    drain(world, agents[0][0])

    response = world.operator.api.post(world.path(rest=f"/deployments/{deployment.pk}/retry"))

    assert (response.status_code, response.json()["type"]) == (409, "urn:byteor:problem:nothing_to_retry")


@pytest.mark.parametrize("named", [True, False])
def test_target_with_only_drained_agents_is_refused(world: World, named: bool) -> None:
    agent, _ = world.agent()
    drain(world, agent)
    target: dict[str, Any] = {"agents": [str(agent.pk)]} if named else {"all": True}

    response = world.operator.api.post(
        world.path(rest="/deployments"), {"config_bundle_id": str(world.bundle().pk), "target": target}
    )

    assert (response.status_code, response.json()["errors"][0]["code"]) == (400, "empty_target")
    assert response.json()["errors"][0]["detail"] == "All agents that the target matches are drained."


def test_drained_agent_listed_in_target_is_skipped(world: World) -> None:
    agents = stories.fleet(world, 2)
    drain(world, agents[0][0])

    deployment = stories.offered(world, world.bundle(), target={"agents": [str(agent.pk) for agent, _ in agents]})

    assert list(deployment.agents.values_list("agent_id", flat=True)) == [agents[1][0].pk]
