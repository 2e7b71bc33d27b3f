"""Deployments taken through their life, for tests that begin somewhere in the middle of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.fleet.models import Agent, Assignment, Heartbeat
from apps.releases.models import ConfigBundle, Deployment, DeploymentAgent
from apps.tenancy.models import Environment
from tests.worlds import Api, World, report, run_jobs

type Fleet = list[tuple[Agent, Api]]


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
