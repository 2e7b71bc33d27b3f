"""Deployments, their agents and their timeline."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from apps.releases.models import ConfigBundle, Deployment, DeploymentAgent
from apps.releases.services import deployments
from apps.tenancy.models import Environment
from tests.permissions import ADMIN, OPERATE, VIEW
from tests.resources import AGENT_TEXT, REASON, Act, Call, E, Further, Page, Place, Resource, Table
from tests.resources.agents import enrolled
from tests.resources.config_bundles import bundle
from tests.resources.versions import version
from tests.worlds import World, plan, report, run_jobs


def deployment(place: Place) -> Deployment:
    """Create an active deployment of the place's config bundle."""
    return activate(place, place.get(bundle))


def activate(place: Place, bundle: ConfigBundle) -> Deployment:
    """Deploy the bundle to the agent, let the reviewer approve, and let the deployment become active."""
    world = place.world
    agent, api = place.get(enrolled)
    made = world.deployment(bundle)
    decision = {"deployment_id": str(made.pk), "decision": "approve", "comment": f"{world.name} agrees"}
    assert world.reviewer.api.post(world.path(place.environment, "/approvals"), decision).status_code == 201
    run_jobs()
    assert report(api, agent, "active").status_code == 200
    run_jobs()
    made.refresh_from_db()
    assert made.is_current
    return made


def pending(place: Place) -> Deployment:
    """Create a deployment that waits for approval. The reviewer requests it, so every other operator may approve it."""
    place.get(deployment)
    changed = place.world.bundle(place.environment, "pending", version=place.get(version), env={"LEVEL": "3"})
    return place.world.deployment(changed, actor=place.world.reviewer.actor)


def pending_own(place: Place) -> Deployment:
    """Create a deployment that waits for approval, and that the operator requested."""
    place.get(pending)
    changed = place.world.bundle(place.environment, "pending-own", version=place.get(version), env={"LEVEL": "4"})
    return place.world.deployment(changed, actor=place.world.operator.actor)


def _started(world: World, environment: Environment, name: str) -> Deployment:
    made = world.deployment(
        world.bundle(
            environment, name, version=world.version(environment, plan(stages=[{"id": name, "op": "identity"}]))
        )
    )
    run_jobs()
    made.refresh_from_db()
    return made


def moving(place: Place, name: str = "moving") -> Deployment:
    """Create an environment with an agent and a deployment that is still ``deploying``."""
    environment = place.world.environment("dev", name)
    place.world.agent(environment)
    return _started(place.world, environment, name)


def paused(place: Place) -> Deployment:
    return deployments.set_paused(moving(place, "paused"), paused=True, reason="", actor=place.world.admin.actor)


def failed_on_an_agent(place: Place) -> Deployment:
    made = moving(place, "failing")
    DeploymentAgent.objects.filter(deployment=made).update(progress="failed")
    return made


def held(place: Place) -> Deployment:
    """Create a deployment whose second wave waits until somebody starts it."""
    world, environment = place.world, place.world.environment("dev", "held")
    agents = [world.agent(environment, f"held-{number}") for number in range(2)]
    strategy = {"kind": "waves", "percents": [50, 100], "holds": [None, "manual"]}
    made = world.deployment(world.bundle(environment, "held"), strategy=strategy)
    run_jobs()
    assert report(agents[0][1], agents[0][0], "active").status_code == 200
    run_jobs()
    made.refresh_from_db()
    assert made.wave_hold is not None
    return made


def reviewed(place: Place) -> Deployment:
    """Create an environment with a deployment that waits for approval."""
    environment = place.world.environment("dev", "reviewed", approvals_required=True)
    place.world.agent(environment)
    return place.world.deployment(place.world.bundle(environment, "reviewed"))


def reviewed_by_nobody(place: Place) -> Deployment:
    """Make an unknown id the only reviewer of unfinished deployments, so that the reviewers' form changes the list."""
    made = place.get(reviewed)
    mine = Deployment.objects.filter(environment__project=place.world.project)
    mine.filter(status__in=["pending_approval", "deploying"]).update(reviewers=[str(UUID(int=1))])
    return made


def part_that_failed(place: Place) -> DeploymentAgent:
    return place.get(failed_on_an_agent).agents.get()


def later(place: Place) -> Deployment:
    """Create an environment with two successive deployments, and return the later one."""
    environment = place.world.environment("dev", "later")
    agent, api = place.world.agent(environment)
    for name in ("first", "second"):
        made = _started(place.world, environment, name)
        assert report(api, agent, "active").status_code == 200
        run_jobs()
    made.refresh_from_db()
    assert made.is_current
    return made


def _failed_agents(place: Place) -> dict[str, Any]:
    parts = DeploymentAgent.objects.filter(progress="failed", deployment__environment__project=place.world.project)
    return {"agents": [str(part.agent_id) for part in parts]}


def _to_all(place: Place) -> dict[str, Any]:
    return {"config_bundle_id": str(place.get(bundle).pk)}


def _with_option(name: str) -> Further:
    return Further(ADMIN, lambda place: {**_to_all(place), "target": {"all": True}, name: {"reason": "now"}})


_ONE = E + "/deployments/{id}"
_BECAUSE = {"comment": "because"}
RESOURCE = Resource(
    calls=(
        Call("listDeployments", "GET", E + "/deployments", VIEW, null=frozenset({"target", "explain"})),
        Call(
            "createDeployment", "POST", E + "/deployments", OPERATE, 201, values=_to_all,
            further={name: _with_option(name) for name in ("override_freeze", "break_glass")},
        ),
        Call("getDeployment", "GET", _ONE, VIEW),
        Call("rollBackDeployment", "POST", _ONE + "/rollback", OPERATE, on=later),
        Call("pauseDeployment", "POST", _ONE + "/pause", OPERATE, on=moving),
        Call("resumeDeployment", "POST", _ONE + "/resume", OPERATE, on=paused),
        Call("abortDeployment", "POST", _ONE + "/abort", OPERATE, on=moving),
        Call(
            "retryDeployment", "POST", _ONE + "/retry", OPERATE, on=failed_on_an_agent,
            values=_failed_agents, body=lambda place: {"reason": "because"},
        ),
        Call("startNextWave", "POST", _ONE + "/next-wave", OPERATE, on=held),
        Call(
            "updateDeploymentReviewers", "POST", _ONE + "/reviewers", ADMIN, on=reviewed,
            values=lambda place: {"reviewers": [str(place.world.admin.user.pk)]},
        ),
        Call("exportDeploymentEvidence", "GET", _ONE + "/evidence", OPERATE),
        Call("listDeploymentAgents", "GET", _ONE + "/agents", VIEW, null=frozenset({"tuning"})),
        Call("listDeploymentTimeline", "GET", _ONE + "/timeline", VIEW, null=frozenset({"detail"})),
    ),
    tables=(
        Table(
            "releases.deployment", VIEW, deployment, "Deployments",
            acts={
                # A deployment's page has the form of its approval, which is submitted to the approval's own URL.
                "approve": Act("decideApproval", on=pending, on_page=False),
                "deny": Act("decideApproval", _BECAUSE, on=pending, on_page=False),
                "remind": Act("remindApproval", only_requester=True, on=pending_own),
                "roll_back": Act("rollBackDeployment", {"reason": "because"}),
                "roll_back_several": Act("rollBackDeployment", _BECAUSE, on_page=False),
                "retry": Act("retryDeployment"),
                "pause": Act("pauseDeployment"),
                "resume": Act("resumeDeployment"),
                "abort": Act("abortDeployment"),
                "next_wave": Act("startNextWave"),
                "change_reviewers": Act("updateDeploymentReviewers", {"reason": "because"}, on=reviewed_by_nobody),
            },
            pages={"releases_deployment_evidence": Page("exportDeploymentEvidence", is_file=True)},
            large=frozenset({"target", "signing_keys", "manifest", "enlisting", "explain"}),
            short={
                "strategy": "at most 100 percentages and holds", "reviewers": "at most 100 ids",
                "wave_hold": "five values", "policy": "nine values", "note": REASON, "detail": REASON,
                "rollback_reason": REASON, "break_glass": REASON, "freeze_override": REASON,
                "replay_gate_override": REASON,
            },
        ),
        Table(
            "releases.deploymentagent", VIEW, deployment,
            acts={"retry": Act("retryDeployment", on=part_that_failed)},
            large=frozenset({"tuning"}), short={"detail": AGENT_TEXT},
        ),
        Table("releases.agentreport", VIEW, deployment, short={"detail": AGENT_TEXT}),
        Table("releases.timelineentry", VIEW, deployment, large=frozenset({"detail"})),
        Table("releases.agentfailure", short={"detail": AGENT_TEXT}),
        Table("releases.progresscount"),
    ),
    ids={"deployments": deployment},
    more=(pending,),
)  # fmt: skip
