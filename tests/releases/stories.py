"""Helpers that bring deployments and agents into the states that tests need, and read their states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.fleet.models import Agent, Assignment, Heartbeat
from apps.fleet.services import agents as fleet_services
from apps.releases.models import ConfigBundle, Deployment, DeploymentAgent
from apps.releases.tasks import sweep
from apps.tenancy.models import Environment
from tests.recorded import recorded
from tests.worlds import Api, World, report, run_jobs

type Fleet = list[tuple[Agent, Api]]
type Run = Callable[[], int]


def fleet(world: World, count: int, environment: Environment | None = None) -> Fleet:
    """Enroll ``count`` agents."""
    return [world.agent(environment, f"agent-{number}") for number in range(count)]


def bundles(world: World, count: int, environment: Environment | None = None) -> list[ConfigBundle]:
    """Create config bundles of one version with different configurations."""
    version = world.version(environment)
    return [
        world.bundle(environment, f"bundle-{number}", version=version, env={"NUMBER": str(number)})
        for number in range(count)
    ]


def offered(world: World, bundle: ConfigBundle, **options: Any) -> Deployment:
    """Create a deployment and run the jobs, which bring it to ``deploying``."""
    deployment = world.deployment(bundle, **options)
    run_jobs()
    deployment.refresh_from_db()
    assert deployment.status == "deploying"
    return deployment


def active(world: World, bundle: ConfigBundle, agents: Fleet, **options: Any) -> Deployment:
    """Create a deployment that becomes active, because each of ``agents`` reports that it runs the bundle."""
    deployment = offered(world, bundle, **options)
    for agent, api in agents:
        assert report(api, agent, "active").status_code == 200
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, deployment.is_current) == ("active", True)
    return deployment


@dataclass
class Running:
    """A fleet, two config bundles, and one or two deployments of them. The agents run the newest deployment."""

    agents: Fleet
    bundles: list[ConfigBundle]
    deployments: list[Deployment]


def running(world: World, agents: int, deployments: int = 1) -> tuple[Fleet, list[ConfigBundle], list[Deployment]]:
    """Return a fleet in ``dev``, two config bundles, and active deployments of the first ``deployments`` bundles.

    Call this first in a test. The rows are recorded, and later tests insert the recorded rows only if the same audit
    event precedes them. Otherwise the rows are created again, which takes longer.
    """

    def make() -> Running:
        enrolled, made = fleet(world, agents), bundles(world, 2)
        return Running(enrolled, made, [active(world, bundle, enrolled) for bundle in made[:deployments]])

    found = recorded(("running", world.name, agents, deployments), make)
    return found.agents, found.bundles, found.deployments


def waves(*percents: int, pause_s: int = 0, threshold: int = 0, auto_rollback: bool = True) -> dict[str, Any]:
    """Return a strategy for a request body, with waves up to these percentages of the agents."""
    return {
        "kind": "waves", "percents": list(percents), "pause_s": pause_s, "failure_threshold_percent": threshold,
        "auto_rollback": auto_rollback,
    }  # fmt: skip


def report_from_all(agents: Fleet, status: str, run_jobs: Run) -> None:
    """Send a report with ``status`` from each agent, and run the jobs."""
    for agent, api in agents:
        assert report(api, agent, status).status_code == 200
    run_jobs()


def run_sweep(run_jobs: Run) -> None:
    """Run the sweep once, then run the jobs."""
    sweep()
    run_jobs()


def allow_in_flight(world: World, count: int) -> None:
    """Set the in-flight limit of ``dev``, and remove its other settings."""
    world.dev.settings = {"max_in_flight_deployments": count}
    world.dev.save(update_fields=["settings"])


def state(deployment: Deployment) -> tuple[str, str]:
    """Return the stored status and reason of the deployment."""
    deployment.refresh_from_db()
    return deployment.status, deployment.reason


def events(deployment: Deployment) -> list[str]:
    """Return the events on the deployment's timeline, oldest first."""
    return list(deployment.timeline.order_by("id").values_list("event", flat=True))


def progress(deployment: Deployment) -> list[str]:
    """Return the progress of each agent, in enrollment order."""
    return list(deployment.agents.order_by("agent_id").values_list("progress", flat=True))


def desired(agent: Agent) -> tuple[Any, str | None]:
    """Return the id of the deployment that made the agent's offer, and the offer's action. Both may be None."""
    assignment = Assignment.objects.get(agent=agent)
    return assignment.deployment_id, assignment.action


def set_last_seen(agent: Agent, *, for_s: int) -> None:
    """Set the agent's last heartbeat to ``for_s`` seconds ago."""
    then = timezone.now() - timedelta(seconds=for_s)
    Heartbeat.objects.filter(agent=agent).update(last_seen_at=then)


def set_offered_ago(deployment: Deployment, seconds: int, *agents: Agent) -> None:
    """Set the time of the agents' offers to ``seconds`` ago."""
    DeploymentAgent.objects.filter(deployment=deployment, agent__in=agents).update(
        offered_at=timezone.now() - timedelta(seconds=seconds)
    )


def send_heartbeat(agent: Agent, api: Api) -> Any:
    """Send a heartbeat and return ``desired`` of the response."""
    response = api.post(f"/api/v1/agents/{agent.pk}/heartbeat", {"status": "healthy", "agent_version": "1"})
    assert response.status_code == 200
    return response.json()["desired"]


def send_heartbeat_running(agent: Agent, api: Api, *, runs: Deployment | None = None) -> None:
    """Send a heartbeat of an agent that runs the bundle of ``runs`` or, by default, the bundle that it should run."""
    assignment = Assignment.objects.get(agent=agent)
    deployment_id, bundle_hash = assignment.bundle_deployment_id, assignment.bundle_hash
    if runs is not None:
        deployment_id, bundle_hash = runs.pk, runs.bundle_hash
    active = {"deployment_id": str(deployment_id), "bundle_hash": bundle_hash, "spec_hash": "sha256:" + "0" * 64}
    body = {"status": "healthy", "agent_version": "1", "active": active}
    assert api.post(f"/api/v1/agents/{agent.pk}/heartbeat", body).status_code == 200
    # PostgreSQL's now() does not advance in a test that is one transaction.
    Heartbeat.objects.filter(agent=agent).update(last_seen_at=timezone.now())


def stored_assignments(agents: Fleet) -> list[Any]:
    """Return all columns of the agents' assignments."""
    return list(Assignment.objects.filter(agent__in=[agent for agent, _ in agents]).order_by("agent_id").values())


def all_desired(agents: Fleet) -> list[tuple[Any, str | None]]:
    """Return the result of ``desired`` for each agent."""
    return [desired(agent) for agent, _ in agents]


def relabel(world: World, agent: Agent, **labels: str) -> None:
    """Replace the agent's labels."""
    fleet_services.update_agent(agent, {"labels": labels}, may_relabel=True, actor=world.operator.actor)


def command(api: Api, world: World, deployment: Deployment, verb: str, **body: Any) -> Any:
    """Send a command such as ``pause`` or ``abort`` for the deployment, and return the response."""
    return api.post(world.path(deployment.environment, f"/deployments/{deployment.pk}/{verb}"), body)


def roll_back(world: World, deployment: Deployment, reason: str = "latency") -> Any:
    """Request a rollback of the deployment as the operator, and return the response."""
    path = world.path(deployment.environment, f"/deployments/{deployment.pk}/rollback")
    return world.operator.api.post(path, {"reason": reason})


class Clock:
    """A replacement for ``timezone.now()`` that only the test moves. PostgreSQL's ``now()`` is not replaced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = timezone.now()
        monkeypatch.setattr(timezone, "now", lambda: self.now)

    def forward(self, **by: float) -> None:
        """Advance the time."""
        self.now += timedelta(**by)

    def set(self, moment: str) -> None:
        """Set the time, which is in RFC 3339 format."""
        self.now = datetime.fromisoformat(moment)
