"""The replay gate while agents switch to other configurations: its regressions, and its deadline.

An oracle replaces the replays.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apps.artifacts.services import regression_runs
from apps.releases.models import ConfigBundle, Deployment, Regression
from apps.releases.services import regressions
from apps.releases.tasks import renew_tests
from tests.artifacts.gate_model import Oracle, judge_with
from tests.artifacts.gate_steps import Member, accept, ask, asked, blocked_by, decide, groups_of, release, require
from tests.artifacts.kept import MASK, cards, configured, keep
from tests.releases.stories import send_heartbeat_running
from tests.worlds import World, run_jobs

pytestmark = pytest.mark.django_db
# The first and the third configuration do the same, and each of the others does something different.
ORACLE = Oracle(["x", "y", "x", "z"], frozenset(), frozenset(), [1] * 4)

type Fleet = tuple[list[ConfigBundle], list[Member], Deployment]


@pytest.fixture
def fleet(world: World, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Let one agent run the first configuration and the other one the second.

    One capture is kept as a fixture. The gate is required, but approvals are not.
    """
    agents = [world.agent(name=f"member-{place}", site="here", place=place) for place in "ab"]
    bundles = [configured(world, "config 0", check={"schema": {"title": "0"}}, redact=MASK)]
    bundles += [
        configured(world, f"config {number}", bundles[0].version, check={"schema": {"title": str(number)}}, redact=MASK)
        for number in range(1, 4)
    ]
    [kept] = keep(world, bundles[0], cards(0))
    monkeypatch.setattr(regression_runs, "judge_batch", judge_with(lambda: ORACLE, [kept.artifact.content_hash]))
    first = release(world, bundles[0], agents)
    release(world, bundles[1], agents[1:], target={"selector": {"place": "b"}})
    require(world, approvals_required=False)
    return bundles, agents, first


@pytest.mark.parametrize("cancels", [False, True])
def test_difference_from_configuration_that_agents_no_longer_run_does_not_block(
    world: World, fleet: Fleet, cancels: bool
) -> None:
    bundles, agents, first = fleet
    made = Deployment.objects.get(pk=ask(world, bundles[2]).json()["id"])
    if cancels:
        regressions.cancel(Regression.objects.get(deployments=made), actor=world.operator.actor)
    run_jobs()
    assert blocked_by(world, made) == ["replay_gate.failed" if cancels else "replay_gate.differs"]

    agent, api = agents[1]
    send_heartbeat_running(agent, api, runs=first)
    renew: Callable[[], object] = renew_tests
    if cancels:  # a canceled regression is not renewed, so another one is requested
        renew = lambda: regressions.request(  # noqa: E731
            environment=world.dev, config_bundle=bundles[2], actor=world.operator.actor
        )
    renew()
    run_jobs()

    made.refresh_from_db()
    assert made.status == "deploying"
    assert [each["config_hash"] for each in Regression.objects.get(deployments=made).baselines] == [
        bundles[0].config_hash
    ]


def test_deadline_of_gate_is_cleared_when_gate_opens(world: World, fleet: Fleet) -> None:
    bundles, _, _ = fleet
    made = asked(world, bundles[3])
    made.refresh_from_db()
    assert (blocked_by(world, made), made.gate_until is not None) == (["replay_gate.differs"], True)
    urgent = asked(world, bundles[2], by=world.admin, override_replay_gate={"reason": "urgent"})
    assert urgent.status == "deploying"

    assert accept(world, made, groups_of(world, made)).status_code == 201
    run_jobs()

    made.refresh_from_db()
    assert (blocked_by(world, made), made.gate_until) == (["in_flight_limit", "pipeline_busy"], None)


def test_build_is_blocked_by_difference_from_configuration_that_agents_run_only_since_regression(
    world: World, fleet: Fleet
) -> None:
    bundles, agents, first = fleet
    agent, api = agents[1]
    send_heartbeat_running(agent, api, runs=first)
    require(world)
    made = asked(world, bundles[2])
    assert blocked_by(world, made) == []
    send_heartbeat_running(agent, api)  # the second configuration again

    assert decide(world, made).status_code == 201
    run_jobs()

    made.refresh_from_db()
    assert (made.status, blocked_by(world, made)) == ("approved", ["replay_gate.differs"])
