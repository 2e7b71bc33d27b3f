"""Steps of tests about the replay gate: settings, agents, deployments, decisions and acceptances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apps.fleet.models import Agent
from apps.releases.models import ConfigBundle, Deployment
from apps.releases.tasks import renew_tests, sweep
from apps.tenancy.models import Environment
from tests.artifacts.fixture_steps import bundle, capture, kept
from tests.releases.stories import send_heartbeat_running
from tests.worlds import Api, Person, World, report, run_jobs

type Member = tuple[Agent, Api]
TARGET = {"selector": {"site": "here"}}  # agents that upload captures are not in the target


def require(world: World, **settings: Any) -> None:
    """Replace the settings of ``dev``. By default, it requires the replay gate and the approval of another person."""
    chosen = {"replay_gate": "require", "approvals_required": True, "allow_self_approval": False, **settings}
    Environment.objects.filter(pk=world.dev.pk).update(settings=chosen)
    world.dev.refresh_from_db()


def members(world: World, count: int = 1) -> list[Member]:
    """Enroll agents that are in ``TARGET``."""
    return [world.agent(name=f"member-{number}", site="here") for number in range(count)]


def ask(world: World, candidate: ConfigBundle, *, by: Person | None = None, **body: Any) -> Any:
    """Request a deployment through the API, by default as the operator for ``TARGET``, and return the response."""
    sent = {"config_bundle_id": str(candidate.pk), "target": TARGET, **body}
    return (by or world.operator).api.post(world.path(rest="/deployments"), sent)


def asked(world: World, candidate: ConfigBundle, **body: Any) -> Deployment:
    """Request a deployment through the API, run the jobs, and return the deployment."""
    response = ask(world, candidate, **body)
    assert response.status_code == 201, response.json()
    run_jobs()
    return Deployment.objects.get(pk=response.json()["id"])


def decide(world: World, deployment: Deployment, by: Person | None = None, **body: Any) -> Any:
    """Decide on a deployment through the API and return the response. By default, the reviewer approves it."""
    sent = {"deployment_id": str(deployment.pk), "decision": "approve", **body}
    return (by or world.reviewer).api.post(world.path(rest="/approvals"), sent)


def shown(world: World, deployment: Deployment) -> dict[str, Any]:
    """Return the deployment as the API shows it to the operator."""
    body: dict[str, Any] = world.operator.api.get(world.path(rest=f"/deployments/{deployment.pk}")).json()
    return body


def blocked_by(world: World, deployment: Deployment) -> list[str]:
    """Return the codes of the deployment's blockers."""
    return [each["code"] for each in shown(world, deployment)["blockers"]]


def groups_of(world: World, deployment: Deployment) -> list[str]:
    """Return the ids of the groups that the deployment's regression shows."""
    path = world.path(rest=f"/regressions/{shown(world, deployment)['regression_id']}")
    return [each["id"] for each in world.operator.api.get(path).json()["groups"]]


def accept(world: World, deployment: Deployment, groups: Sequence[str], by: Person | None = None) -> Any:
    """Accept groups of the deployment's regression, by default as the reviewer, and return the response."""
    path = world.path(rest=f"/regressions/{shown(world, deployment)['regression_id']}/acceptances")
    return (by or world.reviewer).api.post(path, {"groups": list(groups), "reason": "The new mask is wanted."})


def run_everywhere(agents: Sequence[Member], deployment: Deployment) -> None:
    """Let the agents report that they run the deployment, and check that it becomes active and current."""
    run_jobs()
    for agent, api in agents:
        assert report(api, agent, "active").status_code == 200
        send_heartbeat_running(agent, api)
    run_jobs()
    deployment.refresh_from_db()
    assert (deployment.status, deployment.is_current) == ("active", True)


def release(world: World, candidate: ConfigBundle, agents: Sequence[Member], **options: Any) -> Deployment:
    """Deploy a configuration and let the agents run it. ``dev`` must not require the gate or an approval."""
    deployment = world.deployment(candidate, **{"target": TARGET, **options})
    run_everywhere(agents, deployment)
    return deployment


def ready(world: World, **settings: Any) -> tuple[list[Member], ConfigBundle]:
    """Let an agent run a configuration with one fixture, and then call ``require``.

    Return a list with the agent, and the config bundle.
    """
    agents, now = members(world), bundle(world, "now")
    kept(world, capture(world, now))
    release(world, now, agents)
    require(world, **settings)
    return agents, now


def pass_a_minute() -> None:
    """Run the sweep and the renewal of regressions, and then the waiting jobs."""
    sweep()
    renew_tests()
    run_jobs()
