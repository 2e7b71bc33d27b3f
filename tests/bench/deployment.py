"""The benchmark of a deployment to 100,000 agents: the times of its steps and the planner, and a step's memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import connection
from django.utils import timezone

from apps.fleet.models import Assignment
from apps.releases.models import Deployment
from apps.releases.services import builds, rollout_steps
from byteor.engine.machines import AgentProgress
from byteor.engine.rollout import RolloutAgent, Strategy, plan_rollout
from byteor_cloud.ids import uuid7
from tests.worlds import ALL, World

AGENTS = 100_000
WAVES = {"kind": "waves", "percents": [5, 25, 100], "pause_s": 0}
_FLEET = """
INSERT INTO fleet_agent
    (id, created_at, updated_at, revision, environment_id, name, hostname, labels, public_key, drain_reason)
SELECT gen_random_uuid(), now(), now(), 1, %s, 'agent-' || n, '', '{}', '', '' FROM generate_series(1, %s) AS n;
INSERT INTO fleet_heartbeat (agent_id, last_seen_at, next_heartbeat_s, report, commands, superseded_boots)
SELECT id, now(), 3600, '{}', '{}', '{}' FROM fleet_agent;
INSERT INTO fleet_assignment (agent_id, progress, failed_detail) SELECT id, 'pending', '' FROM fleet_agent;
"""


def _timed[T](label: str, call: Callable[[], T]) -> T:
    began = time.perf_counter()
    result = call()
    print(f"  deployment {label:<50} {(time.perf_counter() - began) * 1000:7.0f} ms  (goal: under 1 s)", flush=True)
    return result


def _request_deployment(world: World, bundle: Any, strategy: dict[str, Any]) -> Deployment:
    body = {"config_bundle_id": str(bundle.pk), "target": ALL, "strategy": strategy}
    answer = world.operator.api.post(world.path(world.dev, "/deployments"), body)
    if answer.status_code != 201:
        raise RuntimeError(answer.content)
    return Deployment.objects.get(pk=answer.json()["id"])


def _report_all(deployment: Deployment, progress: str) -> None:
    """Set the progress of all agents with an offer, as their reports would."""
    deployment.agents.filter(progress="offered").update(progress=progress)
    Assignment.objects.filter(deployment_id=deployment.pk).update(progress=progress)


def run() -> None:
    """Print the time of each step and of the planner, and the memory of a step."""
    world = World("bench")
    with connection.cursor() as cursor:
        cursor.execute(_FLEET, [world.dev.pk, AGENTS])
        cursor.execute("ANALYZE")
    version = world.version(world.dev)
    world.operator.api.get("/api/v1/me")  # the first response generates the OpenAPI document that responses must match
    for strategy in ({"kind": "all_at_once"}, WAVES):
        kind = strategy["kind"]
        bundle = world.bundle(world.dev, f"{kind} bundle", version=version, env={"KIND": str(kind)})
        deployment = _timed(f"{kind}: request", lambda: _request_deployment(world, bundle, strategy))  # noqa: B023
        _timed(f"{kind}: build and first offers", lambda: builds.build(str(deployment.pk)))  # noqa: B023
        step = lambda: rollout_steps.run_step(str(deployment.pk))  # noqa: B023, E731
        while Deployment.objects.get(pk=deployment.pk).enlisting is not None:
            _timed(f"{kind}: step that enlists and offers 5,000", step)
        _timed(f"{kind}: step without changes", step)
        while Deployment.objects.get(pk=deployment.pk).status == "deploying":
            _report_all(deployment, "active")
            _timed(f"{kind}: step", step)
    _planner()


def _planner() -> None:
    now = timezone.now()
    agents = [
        RolloutAgent(uuid7(), number % 3, True, AgentProgress.OFFERED if number % 3 < 2 else AgentProgress.PENDING, now)
        for number in range(AGENTS)
    ]

    def plan() -> object:
        return plan_rollout(
            Strategy.waves((5, 25, 100)), agents, wave=1, wave_done_at=None, paused=False, timeout_s=60,
            now=now + timedelta(seconds=1),
        )  # fmt: skip

    _timed("planner only", plan)
    deployment = Deployment.objects.order_by("-id")[0]
    Deployment.objects.filter(pk=deployment.pk).update(status="deploying", is_current=False)
    tracemalloc.start()
    rollout_steps.run_step(str(deployment.pk))
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(f"  deployment memory of a step over all agents {peak:22.0f} MiB (goal: under 200 MiB)")
