"""Deployments taken through their life, for tests that begin somewhere in the middle of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.fleet import services as fleet_services
from apps.fleet.models import Agent, Assignment, Heartbeat
from apps.releases.models import ConfigBundle, Deployment, DeploymentAgent
from apps.releases.tasks import sweep
from apps.tenancy.models import Environment
from tests.worlds import Api, World, report, run_jobs

type Fleet = list[tuple[Agent, Api]]
type Run = Callable[[], int]


def fleet(world: World, count: int, environment: Environment | None = None) -> Fleet:
    """``count`` enrolled agents."""
    return [world.agent(environment, f"agent-{number}") for number in range(count)]


def bundles(world: World, count: int, environment: Environment | None = None) -> list[ConfigBundle]:
    """Config bundles of one version, each with a configuration of its own."""
    version = world.version(environment)
    return [
        world.bundle(environment, f"bundle-{number}", version=version, env={"NUMBER": str(number)})
        for number in range(count)
    ]


def offered(world: World, bundle: ConfigBundle, **options: Any) -> Deployment:
    """A deployment in ``deploying``."""
    deployment = world.deployment(bundle, **options)
    run_jobs()
    deployment.refresh_from_db()
    assert deployment.status == "deploying"
    return deployment


def active(world: World, bundle: ConfigBundle, agents: Fleet, **options: Any) -> Deployment:
    """A deployment that all of ``agents`` run."""
    deployment = offered(world, bundle, **options)
    for agent, api in agents:
        assert report(api, agent, "active").status_code == 200
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, deployment.is_current) == ("active", True)
    return deployment


def waves(*percents: int, pause_s: int = 0, threshold: int = 0, auto_rollback: bool = True) -> dict[str, Any]:
    """A strategy of waves up to each of these percents of the agents."""
    return {
        "kind": "waves", "percents": list(percents), "pause_s": pause_s, "failure_threshold_percent": threshold,
        "auto_rollback": auto_rollback,
    }  # fmt: skip


def all_say(agents: Fleet, status: str, run_jobs: Run) -> None:
    """Let each of these agents report ``status``, and the worker act on it."""
    for agent, api in agents:
        assert report(api, agent, status).status_code == 200
    run_jobs()


def time_passes(run_jobs: Run) -> None:
    """The sweep looks after everything once."""
    sweep()
    run_jobs()


def allow_in_flight(world: World, count: int) -> None:
    """Let ``count`` deployments of ``dev`` be in flight at once."""
    world.dev.settings = {"max_in_flight_deployments": count}
    world.dev.save(update_fields=["settings"])


def state(deployment: Deployment) -> tuple[str, str]:
    """The stored status, and the reason for it."""
    deployment.refresh_from_db()
    return deployment.status, deployment.reason


def events(deployment: Deployment) -> list[str]:
    """What its timeline says has happened, in order."""
    return list(deployment.timeline.order_by("id").values_list("event", flat=True))


def progress(deployment: Deployment) -> list[str]:
    """How far each agent is, in the order of their enrollment."""
    return list(deployment.agents.order_by("agent_id").values_list("progress", flat=True))


def desired(agent: Agent) -> tuple[Any, str | None]:
    """The deployment that offers, and the action."""
    assignment = Assignment.objects.get(agent=agent)
    return assignment.deployment_id, assignment.action


def unheard(agent: Agent, *, for_s: int) -> None:
    """The agent's last sign of life was ``for_s`` seconds ago."""
    then = timezone.now() - timedelta(seconds=for_s)
    Heartbeat.objects.filter(agent=agent).update(last_seen_at=then)


def offered_before(deployment: Deployment, seconds: int, *agents: Agent) -> None:
    """These agents were offered the deployment ``seconds`` ago."""
    DeploymentAgent.objects.filter(deployment=deployment, agent__in=agents).update(
        offered_at=timezone.now() - timedelta(seconds=seconds)
    )


def beat(agent: Agent, api: Api) -> Any:
    """What a heartbeat's answer desires."""
    answer = api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1"})
    assert answer.status_code == 200
    return answer.json()["desired"]


def beat_running(agent: Agent, api: Api, *, runs: Deployment | None = None) -> None:
    """A heartbeat that says what the agent runs: what is desired of it, unless told otherwise."""
    wanted = Assignment.objects.get(agent=agent)
    deployment_id, bundle_hash = wanted.bundle_deployment_id, wanted.bundle_hash
    if runs is not None:
        deployment_id, bundle_hash = runs.pk, runs.bundle_hash
    active = {"deployment_id": str(deployment_id), "bundle_hash": bundle_hash, "spec_hash": "sha256:" + "0" * 64}
    body = {"status": "healthy", "agent_version": "1", "active": active}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body).status_code == 200
    # The database's clock stands still in a test's one transaction.
    Heartbeat.objects.filter(agent=agent).update(last_seen_at=timezone.now())


def stored_assignments(agents: Fleet) -> list[Any]:
    """Everything that is stored of what these agents should run."""
    return list(Assignment.objects.filter(agent__in=[agent for agent, _ in agents]).order_by("agent_id").values())


def wanted(agents: Fleet) -> list[tuple[Any, str | None]]:
    """What ``desired`` gives for each of these agents."""
    return [desired(agent) for agent, _ in agents]


def relabel(world: World, agent: Agent, **labels: str) -> None:
    """Give the agent these labels instead of its own."""
    fleet_services.update_agent(agent, {"labels": labels}, actor=world.operator.actor)


def command(api: Api, world: World, deployment: Deployment, verb: str, **body: Any) -> Any:
    """The answer to pause, resume or abort."""
    return api.post(world.path(deployment.environment, f"/deployments/{deployment.pk}/{verb}"), body)


def roll_back(world: World, deployment: Deployment, reason: str = "latency") -> Any:
    """The answer to the operator's rollback."""
    path = world.path(deployment.environment, f"/deployments/{deployment.pk}/rollback")
    return world.operator.api.post(path, {"reason": reason})


class Clock:
    """The time, which stands still until it is moved. The database's own ``now()`` goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = timezone.now()
        monkeypatch.setattr(timezone, "now", lambda: self.now)

    def forward(self, **by: float) -> None:
        """Move it on."""
        self.now += timedelta(**by)

    def set(self, moment: str) -> None:
        """Move it to an RFC 3339 time."""
        self.now = datetime.fromisoformat(moment)
