"""The benchmark of a list of 50 deployments to 2,000 agents each, compared with a list of 50 to 20 agents each."""

from __future__ import annotations

from typing import Any

from tests.bench import load
from tests.bench.results import Row, ratio
from tests.bench.serving import analyze, server, store_fleet

DEPLOYMENTS, LARGE, SMALL = 50, 2000, 20


def _fill(world: Any, environment: Any, agents: int) -> None:
    """Store a fleet, and active deployments to all of it."""
    from apps.releases.models import Deployment, DeploymentAgent
    from byteor_cloud.ids import uuid7

    fleet = store_fleet(environment, agents)
    bundle = world.bundle(environment)
    first = world.deployment(bundle)
    for _ in range(DEPLOYMENTS - 1):
        first.pk, first._state.adding, first.approval_id = uuid7(), True, None
        first.save(force_insert=True)
    Deployment.objects.filter(environment=environment).update(status="active", enlisting=None, target_count=agents)
    for deployment in Deployment.objects.filter(environment=environment):
        DeploymentAgent.objects.bulk_create(
            (DeploymentAgent(deployment=deployment, agent_id=agent_id, wave=0, progress="active")
             for agent_id, _ in fleet),
            batch_size=5000,
        )  # fmt: skip


def run(port: int, *, seconds: float = 4.0, rounds: int = 3) -> list[Row]:
    """Print the time of each list. Return the ratio of the medians."""
    from apps.releases.services import progress
    from tests.worlds import World

    world = World("bench")
    environments = {LARGE: world.dev, SMALL: world.environment("dev", "small")}
    for agents, environment in environments.items():
        _fill(world, environment, agents)
    progress.sum_up()  # in production, the worker does this
    analyze()
    names = {agents: f"list of {DEPLOYMENTS} deployments of {agents:,} agents" for agents in environments}
    times: dict[str, list[float]] = {name: [] for name in names.values()}
    with server(port):
        for number in range(rounds + 1):
            for agents, environment in environments.items():
                path = world.path(environment, f"/deployments?limit={DEPLOYMENTS}")
                found = load.median_ms(port, path, str(world.viewer.api.token), seconds=seconds)
                if number:  # the first round only warms up
                    times[names[agents]].append(found)
            if number:
                shown = "  ".join(f"{name} {found[-1]:.1f} ms" for name, found in times.items())
                print(f"  lists      round {number}  {shown}", flush=True)
    return [ratio(f"{names[LARGE]} / {names[SMALL]}", times, goal=1.2, is_most=True)]
