"""Approvals and their decisions."""

from __future__ import annotations

from apps.releases.models import Approval, Deployment
from tests.permissions import OPERATE, VIEW
from tests.resources import REASON, Act, Call, E, Place, Resource, Table
from tests.resources.deployments import deployment, pending, pending_own
from tests.resources.regressions import regression
from tests.worlds import report, run_jobs


def approval(place: Place) -> Approval:
    return Approval.objects.get(deployment=place.get(deployment))


def undecided(place: Place) -> Approval:
    return Approval.objects.get(deployment=place.get(pending))


def own_request(place: Place) -> Approval:
    return Approval.objects.get(deployment=place.get(pending_own))


def tested(place: Place) -> Approval:
    """Return the approval of a deployment whose regression has finished without differences."""
    made = place.get(pending)
    Deployment.objects.filter(pk=made.pk).update(regression=place.get(regression))
    return Approval.objects.get(deployment=made)


def of_wave(place: Place) -> Approval:
    """Return the approval of the second wave of a deployment."""
    world, environment = place.world, place.world.environment("dev", "of-wave")
    agents = [world.agent(environment, f"of-wave-{number}") for number in range(2)]
    strategy = {"kind": "waves", "percents": [50, 100], "holds": [None, "approval"]}
    made = world.deployment(world.bundle(environment, "of-wave"), strategy=strategy)
    run_jobs()
    assert report(agents[0][1], agents[0][0], "active").status_code == 200
    run_jobs()
    return Approval.objects.get(rollout=made)


RESOURCE = Resource(
    calls=(
        Call(
            "listApprovals", "GET", E + "/approvals", VIEW,
            null=frozenset({"target", "capabilities", "credential", "explain", "wave_report"}),
        ),
        Call(
            "decideApproval", "POST", E + "/approvals", OPERATE, 201,
            values=lambda place: {"deployment_id": str(place.get(pending).pk)},
        ),
        Call("getApproval", "GET", E + "/approvals/{id}", VIEW),
        Call("getApprovalPacket", "GET", E + "/approvals/{id}/packet", VIEW),
        Call("revokeApproval", "POST", E + "/approvals/{id}/revoke", OPERATE, on=undecided, has_body=False),
        Call(
            "remindApproval", "POST", E + "/approvals/{id}/remind", OPERATE, on=own_request, has_body=False,
        ),
    ),
    tables=(
        Table(
            "releases.approval", VIEW, approval, "Approvals",
            acts={
                "approve": Act("decideApproval", on=undecided),
                "accept": Act("decideApproval", {"comment": "wanted"}, on=tested, on_page=False),
                "deny": Act("decideApproval", {"comment": "because"}, on=undecided),
                "revoke": Act("revokeApproval"),
                "remind": Act("remindApproval", only_requester=True, on=own_request),
                # The decision form on the page of the approval sends these.
                "approve_wave": Act("decideApproval", on=of_wave),
                "deny_wave": Act("decideApproval", {"comment": "because"}, on=of_wave),
            },
            large=frozenset({"target", "capabilities", "credential", "explain", "wave_report", "statement"}),
            short={
                "strategy": "at most 100 percentages and holds",
                "options": "five values; a reason has at most 2,000 characters",
                "reviewers": "at most 100 ids",
            },
        ),
        Table("releases.approvaldecision", VIEW, approval, short={"comment": REASON}),
    ),
    ids={"approvals": approval},
)  # fmt: skip
