"""Invocations of the commands that steer a rollout."""

from __future__ import annotations

from pathlib import Path

from apps.releases.services import deployments
from tests.releases import stories
from tests.releases.stories import report_from_all, waves
from tests.worlds import World, run_jobs


def examples(world: World, folder: Path) -> dict[str, list[str]]:
    """Create two rollouts, and return arguments by command.

    One rollout has a failed agent and a hold before wave 2. The other one is paused.
    """
    agents, (_, second), _ = stories.running(world, 2)
    strategy = {**waves(50, 100, threshold=100), "holds": [None, "manual"]}
    deployment = stories.offered(world, second, strategy=strategy)
    report_from_all(agents[:1], "failed", run_jobs)
    world.agent(world.staging)
    paused = stories.offered(world, world.bundle(world.staging))
    deployments.set_paused(paused, paused=True, actor=world.operator.actor)
    named = str(deployment.pk)
    return {
        "next-wave": [named],
        "pause": [named],
        "resume": [str(paused.pk), "--env", "staging"],
        "retry": [named],
        "abort": [named, "--yes"],
        "rollback": [named, "--reason", "latency", "--yes"],
    }
