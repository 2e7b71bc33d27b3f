"""Tests of the commands that steer a rollout."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from apps.releases.models import Deployment, KnownBad
from byteor.client import runtime
from byteor.command import deploying, steering
from tests.artifacts.fixture_steps import STRICT
from tests.artifacts.incidents import incident, ingested
from tests.artifacts.kept import CHECK, configured
from tests.command.conftest import Terminal
from tests.releases import stories
from tests.releases.stories import Run, report_from_all, state, waves
from tests.worlds import World, plan, report

pytestmark = pytest.mark.django_db


def held(world: World, agents: stories.Fleet, bundle: Any, run_jobs: Run, first: str = "active") -> Deployment:
    """Create a deployment whose first agent has reported, and whose second wave waits for a manual start."""
    strategy = {**waves(25, 100, threshold=100), "holds": [None, "manual"]}
    deployment = stories.offered(world, bundle, strategy=strategy)
    report_from_all(agents[:1], first, run_jobs)
    return deployment


def test_rollout_is_steered_without_id(terminal: Terminal, world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    assert terminal("pause").err.startswith("byteor: No rollout is in progress. The newest deployment, quotes:1 (")
    deployment = held(world, agents, second, run_jobs)
    title = f"quotes:1 ({deployment.pk})"

    assert terminal("pause", "--reason", "latency") == (0, f"Paused {title}\n", "")
    refused = terminal("next-wave")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("byteor: The deployment is paused. Resume it first. (request ")
    assert terminal("resume", "quotes") == (0, f"Resumed {title}\n", "")
    assert terminal("next-wave") == (0, f"Started wave 2 of 2 of {title}\n", "")
    assert stories.progress(deployment) == ["active", "offered", "offered", "offered"]

    terminal("pause")
    waiting = terminal("resume", "--wait", "--timeout", "0.001", "--json", "status,paused_at")
    assert (waiting.code, waiting.json) == (8, {"status": "deploying", "paused_at": None})
    assert waiting.err.startswith(f"Resumed {title}\n")
    report_from_all(agents[1:], "active", run_jobs)
    for ended in (["next-wave"], ["abort", "--yes"]):
        found = terminal(*ended, str(deployment.pk))
        message = f"byteor: The rollout of {title} is not in progress. Its status is: active.\n"
        assert (found.code, found.err) == (1, message)


def test_abort_requires_confirmation_and_counts_agents_that_keep_running_new_bundle(
    terminal: Terminal, world: World, run_jobs: Run
) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = held(world, agents, second, run_jobs)

    unasked = terminal("abort")
    assert (unasked.code, unasked.err) == (
        2,
        "byteor: Cannot prompt for confirmation without a terminal. Use --yes to confirm.\n",
    )
    terminal.use(world.viewer.api.token or "", organization="acme", project=world.project.name, environment="dev")
    assert terminal("abort", "--yes").code == 1
    assert state(deployment) == ("deploying", "")

    terminal.use(world.operator.api.token or "", organization="acme", project=world.project.name, environment="dev")
    aborted = terminal("abort", "--yes", "--reason", "Wrong bundle")
    assert aborted.out == (
        f"Aborted quotes:1 ({deployment.pk}). 1 agent already runs the new bundle and will keep running it.\n"
    )  # fmt: skip
    assert state(deployment) == ("failed", "aborted")


def test_failed_agents_are_retried_by_name(terminal: Terminal, world: World, run_jobs: Run) -> None:
    agents, (_, second), _ = stories.running(world, 4)
    deployment = held(world, agents, second, run_jobs, "failed")
    # Without an argument, the command could also mean the current deployment.
    ambiguous = terminal("retry")
    assert (ambiguous.code, str(deployment.pk) in ambiguous.err) == (2, True)

    retried = terminal("retry", str(deployment.pk), "--agent", agents[0][0].name)

    assert retried == (0, f"Retrying 1 agent of quotes:1 ({deployment.pk})\n", "")
    assert stories.progress(deployment)[0] == "offered"
    wrong = terminal("retry", str(deployment.pk), "--agent", "no-such-agent")
    assert (wrong.code, wrong.err.startswith("byteor: No agent matches no-such-agent.")) == (1, True)


def test_rollback_of_current_deployment_is_followed_until_it_ends(
    terminal: Terminal, world: World, run_jobs: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents, _, (first, second) = stories.running(world, 2, 2)

    def continue_rollback(_: float) -> None:
        """Let the agents confirm the rollback while the command waits for it."""
        for agent, api in agents:
            report(api, agent, "rolled_back")
        run_jobs()

    monkeypatch.setattr(deploying, "sleep", continue_rollback)
    assert terminal("rollback", "--yes").code == 2  # without a reason
    assert terminal("rollback", "--reason", "latency").err == (
        "byteor: Cannot prompt for confirmation without a terminal. Use --yes to confirm.\n"
    )  # fmt: skip
    assert state(second)[0] == "active"

    found = terminal("rollback", "--reason", "latency", "--yes", "--wait", "--json", "status,rollback_reason")

    assert (found.code, found.json) == (0, {"status": "rolled_back", "rollback_reason": "latency"}), found.err
    assert f"Rolling back quotes:1 ({second.pk}) to quotes:1 ({first.pk})\n" in found.err
    assert KnownBad.objects.get().config_hash == second.config_hash
    first.refresh_from_db()
    assert first.is_current
    refused = terminal("rollback", str(first.pk), "--reason", "latency", "--yes")
    assert refused.err.startswith("byteor: The pipeline has no earlier deployment to roll back to.")


def test_rollback_refuses_to_choose_between_several_deployments(
    terminal: Terminal, world: World, run_jobs: Run
) -> None:
    agents, (_, second), (first,) = stories.running(world, 4)
    rollout = held(world, agents, second, run_jobs)
    stories.allow_in_flight(world, 2)

    ambiguous = terminal("rollback", "--reason", "latency", "--yes")
    assert (ambiguous.code, ambiguous.out) == (2, "")
    assert all(f"{each.pk}, {word}" in ambiguous.err for each, word in ((rollout, "deploying"), (first, "active")))
    assert not KnownBad.objects.exists()
    assert terminal("rollback", str(rollout.pk), "--reason", "latency", "--yes").code == 0
    assert state(rollout)[0] == "rolling_back"


def test_rollback_with_capture_starts_after_replays_have_finished(
    terminal: Terminal, world: World, run_jobs: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = stories.fleet(world, 1)
    good = configured(world, "good", check=CHECK)
    stories.active(world, good, agents)
    bad = stories.active(world, configured(world, "bad", good.version, check=STRICT), agents)
    artifact = str(ingested(world, incident(good.version.spec_kv)).pk)
    rollback = ["rollback", str(bad.pk), "--reason", "latency", "--yes", "--artifact", artifact[-12:]]

    monkeypatch.setattr(runtime, "time", SimpleNamespace(sleep=lambda _: None))
    pauses: list[float] = []
    with monkeypatch.context() as patched:
        patched.setattr(steering, "time", SimpleNamespace(monotonic=lambda: sum(pauses), sleep=pauses.append))
        late = terminal(*rollback, "--timeout", "3")
    assert (late.code, late.out) == (8, "")
    assert "The replays have not finished after 3 s. Nothing was rolled back." in late.err
    assert sum(pauses) == 3
    assert state(bad)[0] == "active"
    monkeypatch.setattr(runtime, "time", SimpleNamespace(sleep=lambda _: run_jobs()))
    assert terminal(*rollback, "--json", "status").json == {"status": "rolling_back"}


def test_abort_without_argument_is_refused_if_two_rollouts_are_in_progress(
    terminal: Terminal, world: World, run_jobs: Run
) -> None:
    stories.allow_in_flight(world, 2)
    rollouts = []
    for name in ("quotes", "trades"):
        agent, _ = world.agent(name=name)
        bundle = world.bundle(name=name, version=world.version(content=plan(name)))
        rollouts.append(stories.offered(world, bundle, target={"agents": [str(agent.pk)]}))

    ambiguous = terminal("abort", "--yes")

    assert (ambiguous.code, ambiguous.out) == (2, "")
    assert all(str(each.pk) in ambiguous.err for each in rollouts)
    assert terminal("pause", "trades").code == 0
    assert [state(each)[0] for each in rollouts] == ["deploying", "deploying"]
